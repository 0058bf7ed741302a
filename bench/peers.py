"""Other engines that answer the same statements over the same files.

A peer that cannot be started has a reason instead of answers (:class:`Peers`): its line on the page
says so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import datafusion
import duckdb
import pyarrow as pa
from support_stack import free_port

#: Statement → answer.
Ask = Callable[[str], pa.Table]
_START_S = 30.0


class PeerUnavailable(Exception):
    """It is not installed, or does not start."""


class Peers(contextlib.ExitStack):
    """Peers for the length of a block.

    Attributes:
        asks: name → how it is asked; those that started.
        missing: name → why it is not there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asks: dict[str, Ask] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, opened: AbstractContextManager[Ask]) -> None:
        """Starts it, or notes why not."""
        try:
            self.asks[name] = self.enter_context(opened)
        except PeerUnavailable as error:
            self.missing[name] = str(error)


@contextlib.contextmanager
def server(name: str, arguments: Sequence[str], port: int, folder: Path) -> Iterator[str]:
    """A server of the tools' lock, told to be quiet; gives its Flight SQL address.

    Raises:
        PeerUnavailable: it is not installed here or does not listen in time.
    """
    binary = Path(sys.executable).with_name(name)
    if not binary.exists():
        raise PeerUnavailable(f"{name} is not installed: make bench installs it")
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "RUST_LOG": "error"},
        )
    try:
        _wait_for(name, process, port)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(name: str, process: subprocess.Popen[bytes], port: int) -> None:
    limit = time.monotonic() + _START_S
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise PeerUnavailable(f"{name} does not listen within {_START_S:g} s")


@contextlib.contextmanager
def roapi(folder: Path, tables: Mapping[str, Path]) -> Iterator[str]:
    """ROAPI over files as they lie (by default it would copy them into memory at its start)."""
    folder.mkdir()
    port = free_port()
    arguments: list[str] = []
    for table, place in tables.items():
        option = ",format=parquet,use_memory_table=false" if place.is_dir() else ""
        arguments += ["--table", f"{table}={place}{option}"]
    for kind, at in (("flight-sql", port), ("http", free_port()), ("postgres", free_port())):
        arguments += [f"--addr-{kind}", f"127.0.0.1:{at}"]
    with server("roapi", arguments, port, folder) as uri:
        yield uri


@contextlib.contextmanager
def sail(folder: Path, tables: Mapping[str, Path]) -> Iterator[str]:
    """Sail's own Flight SQL server over folders of Parquet files."""
    folder.mkdir()
    port = free_port()
    with server("sail", ["flight", "server", "--port", str(port)], port, folder) as uri:
        with asking(uri) as ask:
            for table, place in tables.items():
                ask(f"create table {table} using parquet location '{place}'")
        yield uri


@contextlib.contextmanager
def asking(uri: str) -> Iterator[Ask]:
    """Statements through ADBC, all on one cursor."""
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

        def ask(sql: str) -> pa.Table:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

        yield ask


@contextlib.contextmanager
def roapi_asking(folder: Path, tables: Mapping[str, Path]) -> Iterator[Ask]:
    """Statements to a ROAPI of its own."""
    with roapi(folder, tables) as uri, asking(uri) as ask:
        yield ask


@contextlib.contextmanager
def engine_asking(tables: Mapping[str, Path]) -> Iterator[Ask]:
    """Our engine without us: DataFusion in this process, its own settings, the same files."""
    context = datafusion.SessionContext()
    for table, place in tables.items():
        context.register_parquet(table, str(place))

    def ask(sql: str) -> pa.Table:
        frame = context.sql(sql)
        batches = frame.collect()  # their schema may say "nullable" where the plan's does not
        return pa.Table.from_batches(batches, batches[0].schema if batches else frame.schema())

    yield ask


@contextlib.contextmanager
def duckdb_asking(
    tables: Mapping[str, Path], arrow: Mapping[str, tuple[str, pa.Table]] | None = None
) -> Iterator[Ask]:
    """DuckDB in this process.

    Args:
        tables: name → folder of Parquet files.
        arrow: further rows: name → (columns, the rows), added to the files' rows.
    """
    with duckdb.connect() as duck:
        for table, place in tables.items():
            rows = f"select * from read_parquet('{place}/*.parquet')"
            if arrow and table in arrow:
                columns, more = arrow[table]
                duck.register(f"{table}_more", more)
                rows = (
                    f"select {columns} from read_parquet('{place}/*.parquet')"
                    f" union all select {columns} from {table}_more"
                )
            duck.sql(f"create view {table} as {rows}")

        def ask(sql: str) -> pa.Table:
            return duck.sql(sql).to_arrow_table()

        yield ask


@contextlib.contextmanager
def chdb_asking(tables: Mapping[str, Path]) -> Iterator[Ask]:
    """ClickHouse's engine in this process, told to follow SQL where it would not by itself.

    Raises:
        PeerUnavailable: it is not installed here.
    """
    try:
        from chdb.session import Session  # noqa: PLC0415 - of the tools' lock
    except ImportError as error:
        raise PeerUnavailable("chdb is not installed: make bench installs it") from error
    with contextlib.closing(Session()) as session:
        settings = "join_use_nulls = 1, allow_experimental_correlated_subqueries = 1"
        for setting in settings.split(", "):
            session.query(f"set {setting}")
        session.query("create database bench engine = Memory")
        session.query("use bench")
        for table, place in tables.items():
            source = f"file('{place}/*.parquet', Parquet)"
            session.query(f"create view {table} as select * from {source}")

        def ask(sql: str) -> pa.Table:
            return _without_zones(session.query(sql, "ArrowTable"))

        yield ask


def _without_zones(table: pa.Table) -> pa.Table:
    """ClickHouse knows moments of a zone only; in these tables none has one."""
    plain = [
        field.with_type(pa.timestamp(field.type.unit))
        if pa.types.is_timestamp(field.type)
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(plain))
