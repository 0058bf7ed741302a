"""What cannot be right is refused at the start: nothing is claimed, nothing is consumed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.types import BooleanType, LongType, NestedField, StringType
from support_ingest import SCHEMA, SCHEMA_ID, World
from support_kafka import Broker
from support_log import NAME, Log, spec_of

from catalog.errors import CatalogError, SchemaRefused, SpecRefused
from catalog.ingest import run_ingest
from catalog.kafka import TopicReader
from catalog.offsets import Offsets
from catalog.records import Chunk


class Watched(TopicReader):
    """A reader that remembers what it was told to read."""

    reading: list[str]

    def assign(self, positions: Offsets) -> None:
        """Is remembered."""
        self.reading.append("assign")
        super().assign(positions)

    def poll(self, max_rows: int, timeout_s: float) -> Chunk | None:
        """Is remembered."""
        self.reading.append("poll")
        return super().poll(max_rows, timeout_s)


def refused(world: World, log: Log, kind: type[CatalogError], **changes: Any) -> str:
    """What the start says; the reader was told nothing."""
    Watched.reading = []
    sources = world.sources(reader=lambda spec: Watched(world.kafka, spec.topics))
    with pytest.raises(kind) as caught:
        run_ingest([spec_of(log, **changes)], sources, threading.Event())
    assert Watched.reading == []
    assert world.manifest(NAME) is None
    return str(caught.value)


def test_a_table_that_cannot_take_the_topics_rows_is_refused_before_anything_is_consumed(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """No claim is committed, no partition assigned; the message names the column."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    lake = load_catalog("lake", **world.properties)
    lake.create_namespace("market_data")
    columns = [
        NestedField(1, "symbol", BooleanType(), required=True),
        NestedField(2, "number", LongType(), required=True),
        NestedField(3, "_topic", StringType(), required=True),
    ]
    before = lake.create_table(str(NAME), schema=Schema(*columns))
    assert "symbol" in refused(world, log, CatalogError)
    after = lake.load_table(str(NAME))
    assert after.metadata_location == before.metadata_location
    assert after.current_snapshot() is None


def test_a_schema_that_no_table_can_hold_is_refused_before_anything_is_consumed(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """The message names the field; not even the table is made."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    fields = [
        *SCHEMA["fields"],
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
    ]  # type: ignore[misc] # a literal
    (tmp_path / "schemas" / f"{SCHEMA_ID}.avsc").write_text(
        json.dumps({**SCHEMA, "fields": fields})
    )
    assert "at" in refused(world, log, SchemaRefused)
    assert load_catalog("lake", **world.properties).list_namespaces() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sort": ("nosuch",)}, "nosuch"),
        ({"partition": ("nosuch",)}, "nosuch"),
        ({"partition": ("century(symbol)",)}, "century"),
        ({"partition": ("day(symbol)",)}, "symbol"),
    ],
)
def test_a_declaration_that_does_not_fit_the_schema_is_refused(
    changes: dict[str, Any], said: str, mock_broker: Broker, tmp_path: Path
) -> None:
    """The setting's name and the value stand in the message."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    message = refused(world, log, CatalogError, **changes)
    assert next(iter(changes)) in message
    assert said in message


def test_a_topic_that_the_client_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    """A property of librdkafka's that is none, by its name."""
    world = World.make(tmp_path, {"bootstrap.servers": "127.0.0.1:9", "fetch.min.bites": "1"})
    with pytest.raises(SpecRefused, match=r"fetch\.min\.bites"):
        TopicReader(world.kafka, ["t"])
