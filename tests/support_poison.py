"""Helpers of the tests of records that cannot be decoded: a topic of good and bad ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyiceberg.catalog import load_catalog
from support_ingest import SCHEMA, WAIT_S, Row, World, framed
from support_kafka import Broker

from catalog.offsets import Offsets
from catalog.registry import open_registry
from catalog.replay import Replayed
from catalog.replay import replay as run_replay
from catalog.spec import TableName, TableSpec
from catalog.verify import verify

NAME = TableName("market_data", "ticks")
LETTERS = TableName("market_data", "ticks_dead_letters")
#: A schema id that the registry learns later, by :func:`teach`.
LATE_ID = 99

#: Kind → a value of that kind.
BAD: Mapping[str, bytes | None] = {
    "null_value": None,
    "no_frame": b'{"number": 1}',
    "unknown_schema": framed(1, schema_id=LATE_ID),
    "malformed": framed(1)[:-1],
}
#: More ways of being malformed.
MALFORMED = {
    "trailing bytes": framed(1) + b"x",
    "bad UTF-8": framed(1)[:5] + b"\x04\xff\xfe\x02",
    "frame alone": framed(1)[:5],
}


@dataclass
class PoisonLog:
    """A topic, the numbers of its good records, and the kinds of its bad ones, by place.

    Attributes:
        good: (partition, offset) → number.
        bad: (partition, offset) → kind.
    """

    broker: Broker
    topic: str
    partitions: int = 1
    good: dict[tuple[int, int], int] = field(default_factory=dict)
    bad: dict[tuple[int, int], str] = field(default_factory=dict)

    def write(self, *kinds: str, count: int = 1, partition: int = 0) -> None:
        """Appends ``count`` good records before each bad one of ``kinds``, and after the last."""
        producer = self.broker.producer()

        def send(value: bytes | None, remember: Any) -> None:
            producer.produce(
                self.topic,
                value,
                key=b"key",
                headers=[("trace", b"1")],
                partition=partition,
                on_delivery=lambda error, m: remember(error, (m.partition(), m.offset())),
            )
            producer.poll(0)

        def good() -> None:
            for _ in range(count):
                number = len(self.good) + producer_count[0]
                producer_count[0] += 1
                send(framed(number), lambda e, at, n=number: _put(self.good, e, at, n))

        producer_count = [0]
        for kind in kinds:
            good()
            send(BAD[kind], lambda e, at, k=kind: _put(self.bad, e, at, k))
        good()
        assert producer.flush(WAIT_S) == 0

    @property
    def ends(self) -> tuple[int, ...]:
        """One past the last record, per partition."""
        places = [*self.good, *self.bad]
        return tuple(
            1 + max((o for p, o in places if p == partition), default=-1)
            for partition in range(self.partitions)
        )

    def rows(self, *, below: Offsets | None = None) -> list[Row]:
        """The rows that an answer has."""
        return sorted(
            (p, o, n)
            for (p, o), n in self.good.items()
            if below is None or o < below.at((self.topic, p))
        )

    def spec(self, **changes: Any) -> TableSpec:
        """The table's declaration."""
        options = {
            "schema_id": 7,
            "flush_rows": 10**9,
            "flush_age_s": 3600.0,
            "on_error": "dead_letter",
            **changes,
        }
        return TableSpec(NAME, (self.topic,), **options)


def _put(places: dict[Any, Any], error: object, at: tuple[int, int], what: object) -> None:
    assert error is None
    places[at] = what


def teach(world: World) -> None:
    """From now on the registry knows the late schema, which is the table's own."""
    (world.folder / "schemas" / f"{LATE_ID}.avsc").write_text(json.dumps(SCHEMA))


def letters(world: World) -> list[dict[str, Any]]:
    """The recorded letters, by place, as another tool reads them."""
    table = load_catalog("lake", **world.properties).load_table(str(LETTERS))
    rows: list[dict[str, Any]] = table.scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["_partition"], row["_offset"]))


def replay(world: World, spec: TableSpec) -> Replayed:
    """Replays as the command does."""
    return run_replay(world.lake(), spec, open_registry(f"file:{world.folder}/schemas", {}))


def places(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where letters are from."""
    return [(row["_partition"], row["_offset"]) for row in rows]


@contextmanager
def child(
    world: World, log: PoisonLog, kill_point: str = "", what: str = "ingest", **spec: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """An ingest, or a replay, in a process of its own."""
    given = {
        "folder": str(world.folder),
        "kafka": world.kafka,
        "table": str(NAME),
        "topic": log.topic,
        "spec": {"on_error": "dead_letter", **spec},
    }
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, str(here / f"support_{what}_child.py"), json.dumps(given)],
        env={
            **os.environ,
            "K2_KILL_POINT": kill_point,
            "PYTHONPATH": f"{here.parent}:{here}",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_proved(world: World, rejects: Mapping[int, int]) -> None:
    """The table and its letters prove themselves; per partition, how many records are no row."""
    lake = world.lake()
    found = verify(lake, NAME)
    assert found.state == "proved", found.findings
    assert {p.partition: p.rejects for p in found.partitions if p.rejects} == rejects
    if lake.exists(LETTERS):
        of_letters = verify(lake, LETTERS)
        assert of_letters.state == "proved", of_letters.findings
