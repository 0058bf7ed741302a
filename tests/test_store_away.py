"""The store goes away, or the disk that sorts spill to is full, while statements run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import S3Store
from pyiceberg.catalog.sql import SqlCatalog
from support_lake import sqlite_properties
from support_proxy import Fault, HttpProxy, Request

from catalog.errors import CatalogError
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import DeadlineExceeded, FlightSqlError

#: Longest life of a statement here, in s; the store's client alone would try for three minutes.
TIMEOUT_S = 3.0
ROWS = pa.table({"n": pa.array(range(50_000), pa.int64())})
TOTAL = 3 * sum(range(50_000))


@pytest.fixture
def store(s3: S3Store) -> Iterator[HttpProxy]:
    """The S3 store behind a proxy that breaks what it is told to."""
    with closing(HttpProxy(int(s3.endpoint.rpartition(":")[2]))) as proxy:
        yield proxy


@pytest.fixture
def engine(tmp_path: Path, s3: S3Store, store: HttpProxy) -> Iterator[Engine]:
    properties = {**sqlite_properties(tmp_path), **s3.properties}
    properties["warehouse"] = f"s3://{s3.create_bucket()}/lake"
    with closing(SqlCatalog("lake", **properties)) as catalog:
        catalog.create_namespace("desk")
        table = catalog.create_table("desk.ticks", ROWS.schema)
        for _ in range(3):
            table.append(ROWS)
    lake = Lake.open("lake", {**properties, "s3.endpoint": store.uri}, timeout_s=10)
    limits = Limits(statement_timeout_s=TIMEOUT_S)
    made = Engine(Tables(lake, LiveReader(tmp_path / "live"), [], refresh_ms=0), lake, limits)
    yield made
    made.close()
    lake.close()


def total(engine: Engine) -> int:
    plan = engine.plan(Statement("select sum(n) from ticks"), Options(schema="desk"))
    return int(engine.stream(plan).read_all()[0][0].as_py())


class DataFiles:
    """A rule: reads of data files fail, and how many did."""

    def __init__(self, fault: Fault, first: int) -> None:
        """``first``: so many of them go well before."""
        self._fault, self._left = fault, first
        self.failed = 0

    def __call__(self, request: Request) -> Fault | None:
        """The rule."""
        if ".parquet" not in request.path:
            return None
        if self._left:
            self._left -= 1
            return None
        self.failed += 1
        return self._fault


@pytest.mark.parametrize("first", [0, 4], ids=["at once", "while it reads"])
@pytest.mark.parametrize(
    "fault",
    [Fault("reset"), Fault("hole"), Fault("cut"), Fault("refuse", 503), Fault("refuse", 403)],
    ids=lambda fault: fault.name,
)
def test_a_store_that_goes_away_ends_the_statement_and_nothing_else(
    engine: Engine, store: HttpProxy, fault: Fault, first: int
) -> None:
    """A typed error that names no path, in bounded time; the next statement is answered."""
    store.rule = rule = DataFiles(fault, first)
    with pytest.raises((CatalogError, FlightSqlError)) as failed:
        total(engine)
    assert rule.failed
    assert failed.value.retriable or isinstance(failed.value, DeadlineExceeded)
    assert "parquet" not in str(failed.value)
    store.rule = lambda _: None
    assert total(engine) == TOTAL


#: Sorts more than its memory holds, where files may not grow beyond 1 MiB.
_FULL_DISK = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from support_engine import FolderTables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import FlightSqlError

folder = Path(sys.argv[1])
tables = FolderTables(folder)
engine = Engine(tables, tables, Limits(memory_bytes=48 << 20, spill_folder=folder / "spill"))

def ask(text):
    return engine.stream(engine.plan(Statement(text), Options())).read_all()

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    ask("select value, md5(cast(value as varchar)) as hash from range(2000000) order by hash")
except FlightSqlError as error:
    print(type(error).__name__, error)
print(ask("select 1 as one").to_pylist())
engine.close()
"""


def test_a_full_disk_under_a_spilling_sort_ends_that_statement_only(tmp_path: Path) -> None:
    """The operating system refuses the writes; the process goes on and answers."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    failed, one = done.stdout.splitlines()
    assert failed.startswith("TryAgain the server's disk failed while the statement ran"), failed
    assert str(tmp_path) not in failed
    assert one == "[{'one': 1}]"
