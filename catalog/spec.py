"""Declarations: what a table is made of. Values only; the settings build them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from catalog.errors import SpecRefused, shorten

TimestampNanos = Literal["refuse", "as_long", "truncate"]
OnError = Literal["stop"]
#: What an ingest does with its tables: "writer" claims them and flushes; "follower" only holds
#: their tail; "standby" follows, and writes while nobody else does.
Role = Literal["writer", "follower", "standby"]


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """``namespace.table`` inside the one catalog. A namespace may have several levels (a.b)."""

    namespace: str
    table: str

    @classmethod
    def parse(cls, dotted: str) -> TableName:
        """``market_data.trades`` → a name.

        Raises:
            SpecRefused: no namespace, or an empty part.
        """
        namespace, _, table = dotted.rpartition(".")
        if not namespace or not table or not all(namespace.split(".")):
            raise SpecRefused(f"table name {shorten(dotted)!r} is not of the form namespace.table")
        return cls(namespace, table)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.table}"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table fed by one or more topics.

    Attributes:
        name: where the rows go.
        topics: the topics that feed it; all carry the one declared schema.
        subject: registry subject of the schema; None: ``<first topic>-value``.
        schema_id: registry id of the schema that the declaration is fixed to; None: it begins with
            the subject's newest version and follows the records' schemas.
        sort: columns by which the rows of a flush are sorted, ascending, nulls first.
        partition: Iceberg partition fields, ``"day(timestamp)"`` or ``"symbol"``.
        flush_rows: a flush starts when the tail holds this many rows …
        flush_bytes: … or this many Arrow bytes …
        flush_age_s: … or its oldest row was read this many seconds ago.
        on_error: what a record that cannot be decoded does to the table.
        key: add ``_key`` (the record's key, binary).
        headers: add ``_headers`` (list of struct key, value).
        timestamp_nanos: what a timestamp-nanos field becomes.
        properties: Iceberg table properties for a table that is created.
    """

    name: TableName
    topics: tuple[str, ...]
    subject: str | None = None
    schema_id: int | None = None
    sort: tuple[str, ...] = ()
    partition: tuple[str, ...] = ()
    flush_rows: int = 1_000_000
    flush_bytes: int = 512 * 1024 * 1024
    flush_age_s: float = 60.0
    on_error: OnError = "stop"
    key: bool = False
    headers: bool = False
    timestamp_nanos: TimestampNanos = "refuse"
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveSpec:
    """The live folder.

    Attributes:
        folder: holds one sub-folder per table; a cache of Kafka, on any file system.
        max_bytes: bound on the live bytes of one table; at the bound its consumer pauses.
        grace_s: how long a segment outlives the manifest that last listed it (rule 14).
        reload_s: how often the ingest looks for foreign commits on its tables (rule 13).
        role: who flushes: see :data:`Role`.
        take_over_after_s: how long a standby hears nothing of the writer before it takes over.
    """

    folder: Path
    max_bytes: int = 4 * 1024 * 1024 * 1024
    grace_s: float = 30.0
    reload_s: float = 2.0
    role: Role = "writer"
    take_over_after_s: float = 3.0
