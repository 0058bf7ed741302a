"""The settings of one table."""

from __future__ import annotations

from pydantic import ByteSize, Field, field_validator

from catalog.errors import CatalogError
from catalog.spec import OnError, TableName, TableSpec, TimestampNanos, Tombstones
from flight_server.sections import Bytes, Count, Seconds, Section, Share, Text


class Table(Section):
    """One table fed by topics."""

    name: Text = Field(description="`namespace.table`")
    topics: tuple[Text, ...] = Field(min_length=1, description="the topics that feed it")
    subject: Text | None = Field(
        None, description="registry subject of the schema; `<first topic>-value` by default"
    )
    schema_id: int | None = Field(
        None,
        ge=0,
        description="registry id of the one schema; by default the topic's schemas are followed",
    )
    sort: tuple[Text, ...] = Field(
        (), description="columns by which the rows of a flush are sorted"
    )
    partition: tuple[Text, ...] = Field(
        (), description='Iceberg partition fields: `"day(timestamp)"`, `"bucket[16](symbol)"`'
    )
    flush_rows: Count = Field(1_000_000, description="a flush starts at this many live rows …")
    flush_bytes: Bytes = Field(ByteSize(512 * 1024**2), description="… this many Arrow bytes …")
    flush_age_s: Seconds = Field(60, description="… or when the oldest row is this old, seconds")
    on_error: OnError = Field(
        "stop",
        description="what a record that cannot be decoded does: `stop` stops this table in front "
        "of it, `skip` passes and counts it, `dead_letter` keeps it in the dead letter table",
    )
    dead_letter_table: Text | None = Field(
        None,
        description="`namespace.table` of the dead letters; `<name>_dead_letters` by default",
    )
    tombstones: Tombstones = Field(
        "reject",
        description="what a record without a value is: `reject` leaves it to `on_error`, `skip` "
        "passes it over and counts it",
    )
    max_reject_share: Share = Field(
        0.5,
        description="the table stops when more than this share of the last `reject_window` records "
        "could not be decoded; 1 turns it off",
    )
    reject_window: Count = Field(
        10_000, description="records over which that share is taken; it says nothing before"
    )
    max_value_bytes: Bytes = Field(
        ByteSize(64 * 1024**2), description="a record whose value is longer cannot be decoded"
    )
    key: bool = Field(default=False, description="add `_key`, the record's key")
    headers: bool = Field(default=False, description="add `_headers`, the record's headers")
    timestamp_nanos: TimestampNanos = Field(
        "refuse",
        description="what a timestamp-nanos field becomes: `refuse`, `as_long`, `truncate`",
    )
    properties: dict[str, str] = Field(
        default_factory=dict, description="Iceberg properties of a table that is created"
    )

    @field_validator("name", "dead_letter_table")
    @classmethod
    def _name_has_a_namespace(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            TableName.parse(name)
        except CatalogError as refusal:
            raise ValueError(str(refusal)) from refusal
        return name

    def spec(self) -> TableSpec:
        """The declaration that the data side works with."""
        values = {key: value for key, value in self if key != "name"}
        values["flush_bytes"] = int(self.flush_bytes)
        values["max_value_bytes"] = int(self.max_value_bytes)
        return TableSpec(name=TableName.parse(self.name), **values)
