"""What a statement holds on to: a pin, and what it opens to."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import pyarrow as pa

from catalog.errors import VersionGone
from catalog.manifest import Manifest, schema_key
from catalog.offsets import MALFORMED, Offsets, TopicIdentity
from catalog.runs import RunsHead
from catalog.spec import TableName

#: Declared schemas kept for pins whose manifest has been replaced; one per table and declaration.
_MAX_SCHEMAS = 256
#: A table, and which version of it: :attr:`Pin.as_of`.
PinKey = tuple[TableName, str]


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of one table, by identities and positions: never by segment files (rule 17).

    Attributes:
        name: the table.
        table_uuid: the Iceberg table's identity.
        kind: "hybrid": fed by topics; "plain": an ordinary table of the catalog.
        topics: identities of the topics; empty for a plain table.
        snapshot_id: S; None: a table without any snapshot.
        metadata_location: the metadata file in which S stands.
        schema_id: registry id of the declared schema; of a plain table, the Iceberg schema's id.
        committed: C, the positions that S records.
        high: E, where the version ends.
        schema_key: tells declared schemas apart that share a registry id (another declaration of
            the table); "" for a plain table.
        replays: how many replays of dead letters S has seen: it holds their rows, too.
        as_of: the older version that was asked for, as ``catalog.asof`` writes it; "": the newest.
            A hybrid table's older versions are plain: they never have live rows.
    """

    name: TableName
    table_uuid: str
    kind: Literal["hybrid", "plain"]
    topics: tuple[TopicIdentity, ...]
    snapshot_id: int | None
    metadata_location: str
    schema_id: int
    committed: Offsets
    high: Offsets
    schema_key: str = ""
    replays: int = 0
    as_of: str = ""

    @property
    def key(self) -> PinKey:
        """What of a statement's versions it is."""
        return self.name, self.as_of

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The version that a manifest publishes."""
        return cls(
            name=manifest.table,
            table_uuid=manifest.table_uuid,
            kind="hybrid",
            topics=manifest.topics,
            snapshot_id=manifest.snapshot_id,
            metadata_location=manifest.metadata_location,
            schema_id=manifest.schema_id,
            committed=manifest.committed,
            high=manifest.high,
            schema_key=schema_key(manifest.arrow_schema),
            replays=manifest.replays,
        )

    @classmethod
    def plain(cls, name: TableName, head: RunsHead) -> Self:
        """The newest version of an ordinary table."""
        return cls(
            name=name,
            table_uuid=head.table_uuid,
            kind="plain",
            topics=(),
            snapshot_id=head.snapshot_id,
            metadata_location=head.metadata_location,
            schema_id=head.schema_id,
            committed=Offsets(),
            high=Offsets(),
        )

    def on(self, manifest: Manifest) -> Pin:
        """The same rows, up to the same E, counted from the manifest's snapshot S' (rule 17)."""
        return replace(
            self,
            snapshot_id=manifest.snapshot_id,
            metadata_location=manifest.metadata_location,
            committed=manifest.committed,
        )

    def to_json(self) -> dict[str, object]:
        """The compact form that travels in tickets."""
        return {
            "n": [self.name.namespace, self.name.table],
            "u": self.table_uuid,
            "k": self.kind,
            "t": [[t.topic, t.cluster_id, t.topic_id] for t in self.topics],
            "s": self.snapshot_id,
            "m": self.metadata_location,
            "i": self.schema_id,
            "c": self.committed.to_json(),
            "e": self.high.to_json(),
            "h": self.schema_key,
            "r": self.replays,
            "a": self.as_of,
        }

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            VersionGone: another version of this program made it.
        """
        try:
            return cls(
                name=TableName(*item["n"]),
                table_uuid=item["u"],
                kind=item["k"],
                topics=tuple(TopicIdentity(*t) for t in item["t"]),
                snapshot_id=item["s"],
                metadata_location=item["m"],
                schema_id=item["i"],
                committed=Offsets.from_json(item["c"]),
                high=Offsets.from_json(item["e"]),
                schema_key=item["h"],
                replays=item["r"],
                as_of=item["a"],
            )
        except MALFORMED as error:
            raise VersionGone(
                "the ticket's version cannot be read here: plan the statement again"
            ) from error


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A pin, opened: everything that the engine needs to answer from it.

    Attributes:
        pin: the version as it is answered; its S and C may be later than those asked for, its E
            never is another one.
        schema: the table's schema; every batch of ``live`` has it.
        entries: the data files of S, as ``Lake.entries`` gives them.
        live: rows of ``[C, E)``, as few batches as possible; they stay mapped while they are held.
        live_rows: rows in ``live``.
        declared: :attr:`schema` with field ids and fills (``catalog.declaration``); None: columns
            are what the lake's metadata says.
    """

    pin: Pin
    schema: pa.Schema
    entries: pa.Table
    live: tuple[pa.RecordBatch, ...]
    live_rows: int
    declared: pa.Schema | None = None


class Schemas:
    """Declared schemas by table and key, the latest ones; they never change. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[TableName, str], pa.Schema] = {}

    def get(self, name: TableName, key: str) -> pa.Schema | None:
        """The schema of a key; None: it was not seen here, or long ago."""
        return self._found.get((name, key))

    def put(self, name: TableName, schema: pa.Schema) -> None:
        """Remembers a schema."""
        item = name, schema_key(schema)
        if item in self._found:
            return
        with self._lock:
            self._found[item] = schema
            while len(self._found) > _MAX_SCHEMAS:
                del self._found[next(iter(self._found))]
