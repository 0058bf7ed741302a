"""Declarations: what a table is made of. Values only; the settings build them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from catalog.errors import SpecRefused, shorten

TimestampNanos = Literal["refuse", "as_long", "truncate"]
OnError = Literal["stop", "skip", "dead_letter"]
Tombstones = Literal["reject", "skip"]
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
        on_error: what a record that cannot be decoded does to the table: ``stop`` in front of it,
            ``skip`` it and count it, or keep it in the ``dead_letter`` table.
        dead_letter_table: its name, ``namespace.table``; None: ``<name>_dead_letters``.
        tombstones: whether a record without a value is a reject, or passed over and counted.
        max_reject_share: the table stops where more than this share of the last
            ``reject_window`` records were rejects; 1.0: never.
        reject_window: records (at least) over which that share is taken; fewer say nothing.
        max_value_bytes: a longer value is a reject.
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
    dead_letter_table: str | None = None
    tombstones: Tombstones = "reject"
    max_reject_share: float = 0.5
    reject_window: int = 10_000
    max_value_bytes: int = 64 * 1024 * 1024
    key: bool = False
    headers: bool = False
    timestamp_nanos: TimestampNanos = "refuse"
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def dead_letters(self) -> TableName:
        """Where records go that cannot be decoded, under ``on_error = "dead_letter"``."""
        if self.dead_letter_table is not None:
            return TableName.parse(self.dead_letter_table)
        return TableName(self.name.namespace, f"{self.name.table}_dead_letters")

    @property
    def reads_key(self) -> bool:
        """Whether the log's reader takes the records' keys."""
        return self.key or self.on_error == "dead_letter"

    @property
    def reads_headers(self) -> bool:
        """Whether the log's reader takes the records' headers."""
        return self.headers or self.on_error == "dead_letter"


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
