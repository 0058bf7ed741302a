"""The README is true to the letter: its Python runs, its commands and settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest
from chaos.market import pool
from chaos.site import Layout, lay_out
from support_kafka import Broker
from support_site import connected, running, wait_for

from flight_server.config import load

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SQL_PAGE = (ROOT / "docs" / "sql.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "grpc://127.0.0.1:32010"
K2 = Path(sys.executable).with_name("k2")
ROWS = 3_000


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """A running system whose table has history and a tail."""
    topic = kafka.create_topic(2)
    folder = tmp_path_factory.mktemp("readme") / "site"
    layout = lay_out(folder, kafka.bootstrap, topic, flush_rows=ROWS, flush_age_s=1e6)
    _, records = pool(seed=31, size=ROWS + ROWS // 2)
    with running(layout, "serve"), connected(layout):
        kafka.produce(topic, records[:ROWS], partition=0)
        wait_for(layout, layout.table, committed=ROWS)
        kafka.produce(topic, records[ROWS:], partition=1)
        wait_for(layout, layout.table, visible=len(records))
        yield layout


@pytest.mark.broker
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_runs(number: int, site: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.folder)
    source = blocks("python")[number].replace(ADDRESS, site.uri)
    names: dict[str, object] = {}
    exec(compile(source, f"README, block {number}", "exec"), names)  # noqa: S102 - our own page
    answers = [names[name] for name in ("table", "frame", "newest", "before") if name in names]
    assert answers
    assert all(len(answer) > 0 for answer in answers)  # type: ignore[arg-type] # all have rows


@pytest.mark.broker
def test_the_audit_in_sql_holds(site: Layout) -> None:
    (audit,) = blocks("sql")
    with connected(site) as cursor:
        cursor.execute(audit)
        assert cursor.fetchall() == [(True,)]


@pytest.mark.broker
@pytest.mark.parametrize(
    "name",
    [
        *("$runs", "$live", "$offsets", "$snapshots", "$files", "$manifests", "$history"),
        *("$partitions", "$refs", "tables", "lag", "rejects", "queries"),
    ],
)
def test_the_names_in_sql_answer(name: str, site: Layout) -> None:
    assert f"{name}`" in README or f'{name}"`' in README
    table = f'lake.market_data."trades{name}"' if name.startswith("$") else f"system.{name}"
    with connected(site) as cursor:
        cursor.execute(f"select * from {table}")
        assert cursor.fetch_arrow_table().num_columns > 1


@pytest.mark.broker
@pytest.mark.parametrize("number", range(len(blocks("sql", SQL_PAGE))))
def test_the_sql_of_the_sql_page_runs(number: int, site: Layout) -> None:
    with connected(site) as cursor:
        cursor.execute(blocks("sql", SQL_PAGE)[number])
        assert cursor.fetch_arrow_table().num_rows > 0


@pytest.mark.broker
@pytest.mark.parametrize(
    ("missing", "instead"), re.findall(r"^\| `(\w+\(.*?)`.* \| `(.*)` \|$", SQL_PAGE, re.MULTILINE)
)
def test_what_is_missing_is_missing_and_the_replacement_runs(
    missing: str, instead: str, site: Layout
) -> None:
    """A function that the engine has learnt meanwhile should leave the page."""
    table = (
        "(select price as x, timestamp as t, timestamp as a, timestamp as b,"
        " price > 1 as c, '%Y' as f from market_data.trades) as v"
    )
    with connected(site) as cursor:
        with pytest.raises(flightsql.Error, match="there is no function"):
            cursor.execute(f"select {missing} from {table}")
        cursor.execute(f"select {instead} from {table}")
        assert cursor.fetch_arrow_table().num_rows > 0


@pytest.mark.broker
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_the_examples_run(script: Path, site: Layout) -> None:
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=site.folder,
        env={"URI": site.uri, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_address_is_the_default() -> None:
    server = load(None, environ={}).server
    assert f"grpc://{server.host}:{server.port}" == ADDRESS
    assert f"{server.host}:{server.port}?useEncryption=false" in README


def test_the_configuration_is_accepted(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    file = tmp_path / "k2.toml"
    file.write_text(block)
    (table,) = load(file, environ={}).table_specs()
    assert str(table.name) == "market_data.trades"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = "\n".join(blocks("sh", page.read_text())) + "\n".join(
        re.findall(r"`(make [^`]*)`", page.read_text())
    )
    named = {word for line in re.findall(r"make ([a-z ]+)", shell) for word in line.split()}
    assert named <= targets


def test_the_k2_commands_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:`|^)k2 ([a-z]+)", text, re.MULTILINE))
    done = subprocess.run([str(K2), "--help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"^[│ ]+([a-z]+)  ", done.stdout, re.MULTILINE))
    assert "serve" in named
    assert named <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "bench" / "README.md"], ids=lambda page: page.name)
def test_the_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", page.read_text())
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in blocks("sh")[0]
    assert re.search(r"^export K2_REQUIRE_BROKER=1$", script, re.MULTILINE)
    assert script.rstrip().endswith("exec make test")
