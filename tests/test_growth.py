"""What a commit does to a table's columns, and under which condition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType
from support_lake import SCHEMA, STARTS, TOPIC, Place, log_rows, sqlite_properties

from catalog import commits
from catalog.declaration import bound, by_schema, ids, tagged
from catalog.errors import Fenced
from catalog.growth import DECLARATION_PROPERTY, columns_of
from catalog.iceberg_schema import names_are_stable
from catalog.lake import Head, Staged
from catalog.offsets import Marker, Offsets, TopicIdentity
from catalog.spec import TableName, TableSpec

NEXT = Offsets({(TOPIC, 0): STARTS.at((TOPIC, 0)) + 10})


class Grown:
    """A claimed table whose declaration has a column more than it, and rows of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lake = place.lake()
        head = self.lake.ensure_table(place.spec, SCHEMA)
        identity = (TopicIdentity(TOPIC, "cluster", "id"),)
        self.head: Head = self.lake.claim(place.name, identity, "writer", 1, STARTS)
        columns = self.lake.columns(place.name, head.metadata_location)
        new = tagged(pa.field("venue", pa.string()), number=columns.last_id + 1)
        self.declared = by_schema(bound(SCHEMA, columns.table).append(new), 2)
        rows = log_rows(STARTS, NEXT)
        venue = pa.array([f"v{n}" for n in range(rows.num_rows)])
        self.batches = rows.append_column("venue", venue).to_batches()

    @property
    def marker(self) -> Marker:
        """Of the claim."""
        assert self.head.marker is not None
        return self.head.marker

    def stage(self) -> Staged:
        """Writes the rows as files."""
        place = self.place
        return self.lake.write_files(place.name, self.batches, place.spec, self.declared)

    def commit(self, staged: Staged) -> Head:
        """Commits them."""
        new = replace(self.marker.moved_to(NEXT), schema_id=2)
        return self.lake.commit(self.place.name, staged, expected=self.marker, new=new)


@pytest.fixture(params=["sqlite", pytest.param("rest", marks=pytest.mark.broker)])
def grown(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Grown]:
    """In each kind of catalog."""
    properties, namespace = sqlite_properties(tmp_path), "market"
    if request.param == "rest":
        rest = request.getfixturevalue("iceberg_rest")
        properties, namespace = rest.properties, rest.unique_namespace()
    made = Grown(Place(properties, TableSpec(TableName(namespace, "grown"), (TOPIC,))))
    with closing(made.lake):
        yield made


def test_rows_their_columns_and_their_positions_are_one_commit(grown: Grown) -> None:
    """Rule 2: schema, snapshot, marker and declaration stand in one metadata file, or none does."""
    before = grown.place.foreign_table().metadata
    head = grown.commit(grown.stage())
    after = grown.place.foreign_table().metadata
    assert len(after.metadata_log) == len(before.metadata_log) + 1
    assert len(after.snapshots) == len(before.snapshots) + 1
    snapshot = after.current_snapshot()
    assert snapshot is not None
    assert snapshot.schema_id == after.current_schema_id != before.current_schema_id
    assert after.schema().find_field("venue").field_id == before.last_column_id + 1
    assert DECLARATION_PROPERTY in after.properties
    assert columns_of(after).declared is not None
    assert ids(columns_of(after).declared or SCHEMA) == ids(grown.declared)
    assert head.marker is not None
    assert (head.marker.schema_id, head.marker.positions.at((TOPIC, 0))) == (2, NEXT.at((TOPIC, 0)))
    assert grown.place.foreign_table().scan().to_arrow()["venue"].null_count == 0


def test_files_count_only_for_the_columns_that_they_were_written_for(grown: Grown) -> None:
    """Another tool's column got the id that ours was to have: nothing is committed."""
    staged = grown.stage()
    with grown.place.foreign_table().update_schema() as update:
        update.add_column("theirs", LongType())
    with pytest.raises(Fenced, match="columns changed"):
        grown.commit(staged)
    assert grown.place.foreign_table().schema().find_field("theirs").field_id in ids(grown.declared)
    assert grown.lake.head(grown.place.name).marker == grown.marker


def test_columns_that_change_while_the_commit_is_sent_refuse_it(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The condition travels with the request: the head's snapshot is the same, its columns not."""
    staged, changed = grown.stage(), []

    def change(point: str) -> None:
        if point == "commit.before_send" and not changed:
            changed.append(point)
            with grown.place.foreign_table().update_schema() as update:
                update.add_column("theirs", LongType())

    monkeypatch.setattr(commits, "reach", change)
    with pytest.raises(Fenced, match="columns changed"):
        grown.commit(staged)
    assert changed
    assert grown.lake.head(grown.place.name).marker == grown.marker


def test_names_say_nothing_when_a_schema_is_gone() -> None:
    """Expiry may remove the schema that a file was written with."""
    old = Schema(NestedField(1, "a", StringType()), schema_id=0)
    new = Schema(NestedField(1, "b", StringType()), schema_id=1)
    assert names_are_stable([old])
    assert not names_are_stable([old, new])
    assert not names_are_stable([new])
    assert names_are_stable([old], pa.schema([tagged(pa.field("a", pa.string()), number=1)]))
    assert not names_are_stable([old], pa.schema([tagged(pa.field("b", pa.string()), number=1)]))
    late = tagged(pa.field("c", pa.string()), number=2)
    assert names_are_stable([old], pa.schema([late]))
    assert not names_are_stable([old], pa.schema([tagged(late, value=pa.array(["x"]))]))
