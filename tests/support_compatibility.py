"""docs/compatibility.md: which client works with what, as the tests marked ``feature`` found it.

A test that shows a feature of a client says ``@pytest.mark.feature(client, feature)``. At the end
of a session the recorder compares what passed with the committed page, and fails the session where
the page claims more or less; ``make compatibility`` writes the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"
WRITE = "K2_WRITE_COMPATIBILITY"
#: client → what was tested; the versions are pinned where the tests are.
CLIENTS: Mapping[str, str] = {
    "ADBC": "`adbc-driver-flightsql` (DBAPI and low level)",
    "pyarrow": "`pyarrow.flight` by hand",
    "pandas": "`pandas.read_sql` over ADBC",
    "Polars": "`polars.read_database` over ADBC",
    "DuckDB": "`duckdb` over the Arrow stream of ADBC",
    "SQLAlchemy": "`flightsql-dbapi`, dialect `datafusion+flightsql`",
    "JDBC": "`org.apache.arrow:flight-sql-jdbc-driver`",
    "Go": "`arrow-go`, `database/sql` driver `flightsql`",
    "npm": "`@lakehouse-rs/flight-sql-client`",
}
FEATURES = (
    "queries",
    "parameters",
    "numbers, text, binary",
    "decimals",
    "dates and timestamps",
    "lists, maps, structs",
    "nulls",
    "catalogs and schemas",
    "tables",
    "columns",
    "keys",
    "server info",
    "partitions",
    "session options",
    "cancelling",
    "TLS",
    "user and password",
    "token",
    "errors",
)
Cell = tuple[str, str]
_THROUGH_ADBC = "set on the ADBC connection that it is given"
_NO_METADATA = "not offered: query `information_schema` instead"
_METADATA = ("keys", "catalogs and schemas", "tables", "columns", "server info")
_ON_CONNECTION = ("session options", "cancelling", "TLS", "user and password", "token", "errors")
#: (client, feature) → why it is not offered, or what to know where it is.
LIMITS: Mapping[Cell, str] = {
    **{(c, f): _NO_METADATA for c in ("pandas", "Polars", "DuckDB") for f in _METADATA},
    **{(c, "partitions"): "not offered" for c in ("pandas", "Polars", "DuckDB")},
    **{(c, f): _THROUGH_ADBC for c in ("pandas", "Polars", "DuckDB") for f in _ON_CONNECTION},
    **{("Go", f): "not offered by `database/sql`" for f in _METADATA},
    **{("Go", f): "not offered" for f in ("partitions", "session options")},
    **{("npm", f): "not offered" for f in ("keys", "server info", "partitions")},
    **{("npm", f): "not offered" for f in ("parameters", "session options", "cancelling")},
    **{("SQLAlchemy", f): "not offered" for f in ("partitions", "session options", "cancelling")},
    ("pandas", "parameters"): "`params=` is not implemented in pandas for ADBC: use a cursor",
    ("SQLAlchemy", "parameters"): (
        "written into the statement by the dialect; its prepared statements go on with the handle "
        "that binding has replaced, and are refused"
    ),
    ("SQLAlchemy", "nulls"): "as None, NaN or NaT: it reads through pandas",
    ("SQLAlchemy", "keys"): "with `feature-sqlalchemy-primary-keys=on` in the URL",
    ("Go", "parameters"): "of integers, floats, text and booleans",
    ("Go", "numbers, text, binary"): "no binary of a fixed length",
    ("Go", "decimals"): "as floating point: the driver does that",
    ("Go", "lists, maps, structs"): "refused by the driver",
    ("npm", "TLS"): "it trusts public authorities alone",
    ("npm", "user and password"): "a wrong password makes the client hang",
    ("npm", "errors"): "the client says `failed to prepare statement`, whatever it is",
    ("JDBC", "parameters"): (
        "timestamps are sent in a wrong unit by driver 18.3.0 (arrow-java #838): write "
        "`cast(? as timestamp)`; decimals need the column's scale (`setScale`)"
    ),
    ("JDBC", "dates and timestamps"): (
        "`getObject` of a timestamp with a zone is not implemented in the driver: `getTimestamp`"
    ),
    ("JDBC", "session options"): (
        "by `SET` and `USE`, and `catalog=` in the URL; with the latter, `close()` of driver "
        "18.3.0 ends the session twice, and throws; its `setSchema` tells the server nothing"
    ),
    ("JDBC", "partitions"): "not offered: the driver fetches all endpoints itself",
}


def render(works: Iterable[Cell]) -> str:
    """The page."""
    shown = set(works)
    notes: list[str] = []
    lines = [
        "# Which client works with what",
        "",
        "<!-- Written by `make compatibility` from the tests' results; the end of a test session",
        "compares. Marks are in tests/, the rest in tests/support_compatibility.py. -->",
        "",
        "Unmodified clients against a server as `k2 serve` builds it. ✓: a test shows it; no: the",
        "client does not offer it.",
        "",
        f"| | {' | '.join(CLIENTS)} |",
        f"|---|{'---|' * len(CLIENTS)}",
    ]
    for feature in FEATURES:
        cells = [_cell((client, feature), shown, notes) for client in CLIENTS]
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    lines += ["", *(f"{n}. {note}" for n, note in enumerate(notes, start=1)), ""]
    lines += [f"* **{client}**: {what}" for client, what in CLIENTS.items()]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell, shown: set[Cell], notes: list[str]) -> str:
    note = LIMITS.get(cell)
    if note is not None and note not in notes:
        notes.append(note)
    mark = "✓" if cell in shown else "no" if note else "?"
    return mark if note is None else f"{mark} {notes.index(note) + 1}"


def read(page: str) -> set[Cell]:
    """The cells that a page says work."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    clients = rows[0][1:] if rows else []
    return {
        (client, row[0])
        for row in rows[1:]
        for client, cell in zip(clients, row[1:], strict=True)
        if cell.startswith("✓")
    }


class Recorder:
    """Collects the outcomes of marked tests in the session's main process."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._passed: set[Cell] = set()
        self._not_passed: set[Cell] = set()
        self.complaint = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A cell works if every test that is marked with it has passed."""
        cells = {tuple(value) for name, value in report.user_properties if name == "feature"}
        if not report.passed:
            self._not_passed |= cells
        elif report.when == "call":
            self._passed |= cells

    @property
    def works(self) -> set[Cell]:
        """What was seen working."""
        return self._passed - self._not_passed

    def compare(self, page: str) -> str:
        """What is wrong with the page, or nothing."""
        claimed = read(page)
        more = sorted(claimed - self.works - self._not_passed) if self._whole else []
        less = sorted(self.works - claimed)
        stale = self._whole and not self._not_passed and page != render(self.works)
        if not (more or less or stale):
            return ""
        return (
            "docs/compatibility.md is not what the tests give: make compatibility "
            f"(claimed, not shown: {more}; shown, not claimed: {less})"
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes or compares."""
        if os.environ.get(WRITE) == "1" and not self._not_passed:
            PAGE.write_text(render(self.works))
        self.complaint = self.compare(PAGE.read_text() if PAGE.exists() else "")
        if self.complaint and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Says why the session has failed."""
        if self.complaint:
            terminalreporter.section("compatibility", red=True)
            terminalreporter.line(self.complaint)
