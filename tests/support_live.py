"""A log of known rows, and a lake that keeps its runs in memory, for tests of the live table."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pyarrow as pa

from catalog.asof import Past
from catalog.errors import FileMissing, TableNotFound, VersionGone
from catalog.manifest import Manifest
from catalog.offsets import Offsets, TopicIdentity, TopicPartition
from catalog.pins import TableVersion
from catalog.records import Range, Segment
from catalog.spec import TableName, TableSpec

NAME = TableName("market_data", "trades")
TOPIC = "market.trades"
SPEC = TableSpec(NAME, (TOPIC,))
IDENTITY = TopicIdentity(TOPIC, "cluster", "id-1")
SCHEMA = pa.schema(
    [
        pa.field("price", pa.decimal128(18, 8)),
        pa.field("symbol", pa.string()),
        pa.field("conditions", pa.list_(pa.field("element", pa.string()))),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_kafka_timestamp", pa.timestamp("us", tz="UTC")),
    ]
)
#: A row by its identity; its other columns are functions of it.
Key = tuple[str, int, int]


def batch_of(keys: Sequence[Key]) -> pa.RecordBatch:
    """The rows with these identities, in this order."""
    return pa.RecordBatch.from_pylist(
        [
            {
                "price": Decimal(offset + partition) / 100,
                "symbol": None if offset % 7 == 3 else f"S{offset % 5}",
                "conditions": None if offset % 11 == 5 else ["x"] * (offset % 3),
                "_topic": topic,
                "_partition": partition,
                "_offset": offset,
                "_kafka_timestamp": offset * 1000,
            }
            for topic, partition, offset in keys
        ],
        schema=SCHEMA,
    )


def keys_of(batches: Sequence[pa.RecordBatch]) -> list[Key]:
    """The identities of all rows, after a check that the rows are what their identity says."""
    keys = [
        key
        for batch in batches
        for key in zip(
            batch["_topic"].to_pylist(),
            batch["_partition"].to_pylist(),
            batch["_offset"].to_pylist(),
            strict=True,
        )
    ]
    rows = pa.Table.from_batches(batches, SCHEMA)
    assert rows.equals(pa.Table.from_batches([batch_of(keys)], SCHEMA)), "rows were changed"
    return keys


@dataclass
class Log:
    """Partitions with the offsets that hold a record; the others are gaps (rule 1)."""

    offsets: Mapping[TopicPartition, Sequence[int]]
    ends: Offsets

    @classmethod
    def random(cls, rng: random.Random, partitions: int, length: int) -> Log:
        """Gaps in one offset of five."""
        offsets = {
            (TOPIC, p): [o for o in range(length) if rng.random() < 0.8] for p in range(partitions)
        }
        return cls(offsets, Offsets(dict.fromkeys(offsets, length)))

    @classmethod
    def full(cls, partitions: int, length: int) -> Log:
        """Without a gap."""
        offsets = {(TOPIC, p): range(length) for p in range(partitions)}
        return cls(offsets, Offsets(dict.fromkeys(offsets, length)))

    def between(self, first: Offsets, next_: Offsets) -> list[Key]:
        """The rows of ``[first, next_)``, sorted."""
        return sorted(
            (*tp, offset)
            for tp, offsets in self.offsets.items()
            for offset in offsets
            if first.at(tp) <= offset < next_.at(tp)
        )

    def chunk(self, first: Offsets, next_: Offsets) -> tuple[pa.RecordBatch, tuple[Range, ...]]:
        """What a poll from ``first`` to ``next_`` hands to the live table."""
        ranges = tuple(
            Range(*tp, first.at(tp), next_.at(tp))
            for tp in sorted(next_)
            if next_.at(tp) > first.at(tp)
        )
        return batch_of(self.between(first, next_)), ranges


@dataclass(frozen=True)
class MemoryHead:
    """A head of :class:`MemoryLake`."""

    metadata_location: str
    table_uuid: str
    snapshot_id: int | None
    schema_id: int = 0


@dataclass
class MemoryLake:
    """Runs in memory: a snapshot is the table of its rows, which ``entries`` gives back.

    Attributes:
        gone: snapshots that are expired.
        foreign: snapshots in which somebody else added or deleted rows.
        missing_files: snapshots whose manifests are gone.
        asked: the questions that a real catalog would have been asked.
    """

    heads: dict[TableName, MemoryHead] = field(default_factory=dict)
    rows: dict[int, pa.Table] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    foreign: set[int] = field(default_factory=set)
    missing_files: set[int] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def commit(self, name: TableName, batches: Sequence[pa.RecordBatch] = ()) -> MemoryHead:
        """Appends rows as one snapshot, to a new table where there is none."""
        old = self.heads.get(name)
        added = pa.Table.from_batches(list(batches), SCHEMA)
        before = [self.rows[old.snapshot_id]] if old and old.snapshot_id else []
        snapshot = len(self.rows) + 1
        self.rows[snapshot] = pa.concat_tables([*before, added])
        uuid = old.table_uuid if old else f"uuid-{name}"
        self.heads[name] = MemoryHead(f"metadata-{snapshot}", uuid, snapshot)
        return self.heads[name]

    def listing(self) -> dict[TableName, str | None]:  # noqa: D102  # as in catalog.runs.Runs, so are all below
        self.asked.append("listing")
        return {name: head.metadata_location for name, head in self.heads.items()}

    def head(self, name: TableName) -> MemoryHead:  # noqa: D102
        self.asked.append("head")
        if name not in self.heads:
            raise TableNotFound(f"there is no table {name}")
        return self.heads[name]

    def entries(  # noqa: D102
        self,
        name: TableName,
        snapshot_id: int | None,
        metadata_location: str,  # noqa: ARG002  # the seam's
        schema_id: int | None = None,  # noqa: ARG002
        *,
        declared: pa.Schema | None = None,  # noqa: ARG002
    ) -> pa.Table:
        if snapshot_id in self.gone:
            raise VersionGone(f"{name}: snapshot {snapshot_id} is expired")
        if snapshot_id in self.missing_files:
            raise FileMissing(f"{name}: a manifest is gone")
        return self.rows[snapshot_id] if snapshot_id else SCHEMA.empty_table()

    def arrow_schema(  # noqa: D102
        self,
        name: TableName,  # noqa: ARG002
        metadata_location: str,  # noqa: ARG002
        schema_id: int | None = None,  # noqa: ARG002
    ) -> pa.Schema:
        return SCHEMA

    def past(self, name: TableName, metadata_location: str, as_of: str) -> Past:  # noqa: ARG002, D102
        return Past(int(as_of.partition("_")[2]), 1)

    def only_fed(  # noqa: D102
        self,
        name: TableName,  # noqa: ARG002
        metadata_location: str,  # noqa: ARG002
        since: int | None,
        until: int | None,
    ) -> bool:
        between = set(range((since or 0) + 1, (until or 0) + 1))
        return since not in self.gone and not between & self.foreign

    def metadata_table(  # noqa: D102
        self,
        name: TableName,  # noqa: ARG002
        which: str,
        snapshot_id: int | None,  # noqa: ARG002
        metadata_location: str,  # noqa: ARG002
    ) -> pa.Table:
        if which == "snapshots":
            return pa.table({"snapshot_id": sorted(self.rows)})
        return pa.table({"path": ["data/1.parquet"]})


def manifest_of(
    segments: Sequence[Segment], committed: Offsets, high: Offsets, **changes: object
) -> Manifest:
    """A manifest of the test table."""
    made = Manifest(
        table=NAME,
        table_uuid=f"uuid-{NAME}",
        topics=(IDENTITY,),
        snapshot_id=None,
        metadata_location="metadata-0",
        committed=committed,
        high=high,
        watermarks=high,
        segments=tuple(segments),
        schema_id=7,
        arrow_schema=SCHEMA,
        published_us=1_700_000_000_000_000,
        sequence=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name, for brevity


def answer(version: TableVersion) -> list[Key]:
    """All rows of an opened version over a :class:`MemoryLake`: runs, then tail, sorted."""
    return sorted([*keys_of(version.entries.to_batches()), *keys_of(version.live)])


def at(*positions: int) -> Offsets:
    """Positions of the test topic's partitions, from 0 on."""
    return Offsets({(TOPIC, p): position for p, position in enumerate(positions)})
