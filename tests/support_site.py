"""A whole system on real Kafka for tests that look at it from outside: topic, site, processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
from chaos.site import Layout, Process

from catalog.manifest import Manifest
from catalog.segments import LiveReader
from catalog.spec import TableName

#: Longest wait for a condition that must come, in seconds.
PATIENCE_S = 90.0


@contextlib.contextmanager
def running(layout: Layout, *arguments: str) -> Iterator[Process]:
    """A ``k2`` process for the length of the block; ended in order."""
    process = Process(layout, arguments)
    try:
        yield process
    finally:
        process.end()


def manifest(layout: Layout, table: str) -> Manifest | None:
    """What the ingest has published for the table."""
    return LiveReader(layout.folder / "live").manifest(TableName.parse(table))


def wait_for(layout: Layout, table: str, *, visible: int = 0, committed: int = 0) -> Manifest:
    """Waits until so many positions are visible and committed."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        now = manifest(layout, table)
        if now is not None:
            assert now.error is None, now.error
            if sum(now.high.values()) >= visible and sum(now.committed.values()) >= committed:
                return now
        assert time.monotonic() < limit, f"{table} did not get there: {logs(layout)}"
        time.sleep(0.05)


def logs(layout: Layout) -> str:
    """The ends of the processes' logs, for a failure's message."""
    return "\n".join(
        f"{path.name}: {path.read_text(errors='replace')[-2000:]}"
        for path in sorted(layout.folder.glob("*.log"))
    )


def connect(layout: Layout, **options: str) -> flightsql.Connection:
    """A connection with cookies, so one session, once the server answers.

    Raises:
        AssertionError: it does not answer in time; holds the ends of the logs.
    """
    cookies = {adbc_driver_flightsql.DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true"}
    limit = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(
                    flightsql.connect(layout.uri, db_kwargs=cookies | options, autocommit=True)
                )
                with connection.cursor() as cursor:
                    cursor.execute("select 1")
                    cursor.fetchall()
            except flightsql.Error as error:
                if time.monotonic() > limit:
                    raise AssertionError(f"the server does not answer: {logs(layout)}") from error
            else:
                stack.pop_all()
                return connection
        time.sleep(0.1)


@contextlib.contextmanager
def connected(layout: Layout, **options: str) -> Iterator[flightsql.Cursor]:
    """A cursor on a connection of its own, once the server answers."""
    with connect(layout, **options) as connection, connection.cursor() as cursor:
        yield cursor
