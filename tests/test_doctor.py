"""`k2 doctor`: every part that a start needs, healthy and broken."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support_house import TOPIC, House, living, write_config

from flight_server.demo.broker import EmbeddedBroker
from flight_server.doctor import Finding, examine
from flight_server.exits import ExitCode

K2 = Path(sys.executable).with_name("k2")


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("K2_")]:
        monkeypatch.delenv(name)


def findings(config: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(config)}


def edited(config: Path, old: str, new: str) -> Path:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    return config


def test_a_healthy_house_is_all_right(tmp_path: Path) -> None:
    with living(tmp_path, 1500) as house:
        found = findings(house.config)
        assert {name: f.state for name, f in found.items() if f.state != "ok"} == {}
        assert found["broker market_data.trades"].detail == (
            f"{TOPIC}: 4 partitions, 1,500 offsets kept"
        )
        assert "19 columns" in found["registry market_data.trades"].detail
        assert "data files listed" in found["store market_data.trades"].detail
        command(house)


def command(house: House) -> None:
    done = subprocess.run(
        [K2, "doctor", "--config", house.config, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {finding["state"] for finding in report["findings"]} == {"ok"}


def test_what_is_wrong_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = write_config(tmp_path, "127.0.0.1:1")
        edited(config, "port = 0", f"port = {port}")
        edited(config, "sqlite:///catalog.db", "sqlite:///no/such/folder/catalog.db")
        (tmp_path / "schemas" / "subjects.json").write_text("{}")
        found = findings(config)
    broken = {name for name, finding in found.items() if finding.state == "wrong"}
    assert broken == {
        "server address",
        "broker market_data.trades",
        "registry market_data.trades",
        "catalog",
    }
    assert "server.port" in found["server address"].detail
    assert "127.0.0.1:1" in found["broker market_data.trades"].detail
    assert f"{TOPIC}-value" in found["registry market_data.trades"].detail
    assert found["store"].state == "skipped"


def test_a_topic_that_does_not_exist_is_wrong(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        found = findings(write_config(tmp_path, broker.bootstrap))
    finding = found["broker market_data.trades"]
    assert finding.state == "wrong"
    assert TOPIC in finding.detail


def test_a_wrong_configuration_ends_the_examination(tmp_path: Path) -> None:
    config = edited(write_config(tmp_path, "127.0.0.1:1"), "port = 0", "prot = 0")
    found = findings(config)
    assert list(found) == ["versions", "configuration"]
    assert "did you mean 'port'?" in found["configuration"].detail


def test_a_folder_that_cannot_be_made_is_wrong(tmp_path: Path) -> None:
    config = edited(write_config(tmp_path, "127.0.0.1:1"), '"live"', '"file/live"')
    (tmp_path / "file").write_text("no folder")
    finding = findings(config)["live folder"]
    assert (finding.state, "live.folder" in finding.detail) == ("wrong", True)
