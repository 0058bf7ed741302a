"""docker-compose.yml: pinned, healthy, without a secret, and every K2_ variable a real setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from flight_server.config import SECTIONS, load

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
#: ``${NAME:?message}``: compose refuses to start where the variable is missing.
REQUIRED = re.compile(r"\$\{([A-Z0-9_]+):\?[^}]+\}")
SECRETS = re.compile(r"(SECRET|PASSWORD|TOKEN|TICKET_KEY|ACCESS_KEY|ROOT_USER)")


def environment(service: str) -> dict[str, str]:
    return SERVICES[service].get("environment", {})


def k2_variables() -> dict[str, str]:
    given = environment("k2")
    return {name: REQUIRED.sub("an-invented-value", value) for name, value in given.items()}


def test_the_parts_of_the_house_are_there() -> None:
    assert {"kafka", "registry", "s3", "catalog", "k2"} <= set(SERVICES)
    assert SERVICES["k2"]["command"] == ["serve"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_image_is_pinned_and_every_lasting_service_watched(service: str) -> None:
    image = SERVICES[service]["image"]
    name, _, tag = image.rpartition(":")
    assert name, image
    assert re.search(r"\d", tag), image  # a version, no "latest"
    assert "healthcheck" in SERVICES[service] or SERVICES[service].get("restart") == "no"


def test_a_service_waits_for_what_it_needs() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition != "service_started"
            if condition == "service_healthy":
                assert "healthcheck" in SERVICES[needed]


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES:
        for name, value in environment(service).items():
            if SECRETS.search(name):
                assert REQUIRED.fullmatch(value), f"{service}: {name}"


def test_the_example_lists_every_variable_and_no_value() -> None:
    wanted = set(REQUIRED.findall((ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    assert set(given) == wanted
    assert not any(given.values())


def test_every_k2_variable_is_a_setting() -> None:
    """They are read by the settings themselves, which refuse what they do not know."""
    variables = {name: value for name, value in k2_variables().items() if name.startswith("K2_")}
    settings = load(None, environ=variables)
    for name in variables:
        section, _, key = name.removeprefix("K2_").lower().partition("__")
        if section == "table":
            assert key.partition("__")[2] in SECTIONS["table"].model_fields, name
        elif section in {"server", "live", "limits"}:
            assert key in SECTIONS[section].model_fields, name
        else:
            assert section in SECTIONS, name
    assert settings.catalog.properties()["s3.access-key-id"] == "an-invented-value"
    assert settings.kafka.properties()["bootstrap.servers"] == "kafka:9092"
    (table,) = settings.table_specs()
    assert table.sort == ("symbol", "timestamp")


def test_the_image_runs_the_lock_without_root() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock" in lines
    assert re.search(r"^USER (?!root)\w+$", lines, re.MULTILINE)
    for image in re.findall(r"^FROM (\S+)", lines, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+", image)
