"""Helpers of the lake's tests: a small log, an independent reader, faults around a real catalog."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table

from catalog.lake import Head, Lake, Staged
from catalog.offsets import Marker, Offsets, TopicIdentity
from catalog.spec import TableName, TableSpec

TOPIC = "ticks"
#: Where each partition of the log begins (an old topic, partly expired).
STARTS = Offsets({(TOPIC, 0): 100, (TOPIC, 1): 0})
IDENTITY = (TopicIdentity(TOPIC, "cluster", "topic-id"),)
SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("price", pa.float64()),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
    ]
)
MICROS_PER_DAY = 86_400_000_000


def sqlite_properties(folder: Path) -> dict[str, str]:
    """A SQLite catalog and a warehouse in ``folder``."""
    return {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}


def log_rows(first: Offsets, next_: Offsets) -> pa.Table:
    """The records of ``[first, next_)``: a pure function of topic, partition and offset."""
    tables = [SCHEMA.empty_table()]
    for topic, partition in next_:
        offsets = range(first.at((topic, partition)), next_.at((topic, partition)))
        columns = [
            [f"S{offset % 7}" for offset in offsets],
            [MICROS_PER_DAY * (offset % 3) + offset for offset in offsets],
            [None if offset % 5 == 0 else offset / 4 for offset in offsets],
            [topic] * len(offsets),
            [partition] * len(offsets),
            list(offsets),
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return pa.concat_tables(tables)


@dataclass(frozen=True, slots=True)
class Place:
    """A catalog's properties and one table in it; every actor opens its own catalog client."""

    properties: Mapping[str, str]
    spec: TableSpec
    opened: list[Lake | Catalog] = field(default_factory=list, compare=False, repr=False)

    def lake(self) -> Lake:
        """A new client of ours."""
        lake = Lake.open("lake", self.properties, timeout_s=60)
        self.opened.append(lake)
        return lake

    def foreign(self) -> Catalog:
        """A client that knows nothing of us."""
        catalog = load_catalog("lake", **self.properties)
        self.opened.append(catalog)
        return catalog

    def close(self) -> None:
        """Closes every client; a server's connections do not close themselves."""
        while self.opened:
            self.opened.pop().close()

    def foreign_table(self) -> Table:
        """The table as other tools see it."""
        return self.foreign().load_table(str(self.spec.name))

    @property
    def name(self) -> TableName:
        """The table's name."""
        return self.spec.name


@dataclass(slots=True)
class Writer:
    """An ingest in miniature: owns an epoch, commits the next records."""

    lake: Lake
    place: Place
    id: str
    head: Head

    @classmethod
    def claiming(cls, place: Place, writer: str, lake: Lake | None = None) -> Writer:
        """A writer that has just claimed the table."""
        lake = lake or place.lake()
        head = lake.claim(place.name, IDENTITY, writer, 1, STARTS)
        return cls(lake, place, writer, head)

    @property
    def marker(self) -> Marker:
        """What this writer believes the head records."""
        assert self.head.marker is not None
        return self.head.marker

    def target(self, rows: int) -> Marker:
        """The marker after ``rows`` more records of each partition."""
        positions = self.marker.positions
        return self.marker.moved_to(
            positions.with_positions([(tp, positions.at(tp) + rows) for tp in positions])
        )

    def stage(self, rows: int) -> Staged:
        """Writes the next records as files."""
        new = self.target(rows).positions
        return self.lake.write_files(
            self.place.name, log_rows(self.marker.positions, new), self.place.spec
        )

    def append(self, rows: int) -> Head:
        """Writes and commits the next records."""
        self.commit(self.stage(rows), self.target(rows))
        return self.head

    def commit(self, staged: Staged | None, new: Marker) -> Head:
        """Commits, and believes the answer."""
        self.head = self.lake.commit(self.place.name, staged, expected=self.marker, new=new)
        return self.head


def rows_of_log(place: Place) -> pa.Table:
    """All rows that came from the log, read by pyiceberg from a fresh client."""
    rows = place.foreign_table().scan().to_arrow()
    return rows.filter(pc.equal(rows["_topic"], TOPIC))


def assert_exact(place: Place, starts: Offsets = STARTS) -> Offsets:
    """The table holds exactly the records of ``[starts, C)``, once each; returns C."""
    marker = place.lake().head(place.name).marker
    positions = starts if marker is None else marker.positions
    rows = rows_of_log(place)
    expected = log_rows(starts, positions)
    keys = [("_partition", "ascending"), ("_offset", "ascending")]
    actual = rows.cast(SCHEMA).sort_by(keys)
    assert actual["_offset"].to_pylist() == expected.sort_by(keys)["_offset"].to_pylist()
    assert actual.equals(expected.sort_by(keys))
    return positions


Step = Callable[[Callable[[], object]], object]


def break_commits(lake: Lake, steps: Iterator[Step]) -> list[int]:
    """Puts each of ``steps`` once around the real catalog's ``commit_table``.

    A step gets a function that sends the commit; it may send, raise, keep it for later or let
    others act first. After the last step commits work again.

    Returns:
        A list that grows by one entry per request.
    """
    catalog = lake._catalog
    send = type(catalog).commit_table
    calls: list[int] = []

    def commit_table(*args: object) -> object:
        calls.append(len(calls))
        step = next(steps, None)
        if step is None:
            return send(catalog, *args)
        return step(lambda: send(catalog, *args))

    catalog.commit_table = commit_table  # type: ignore[method-assign] # the fault seam
    return calls


def before(error: Exception) -> Step:
    """The request fails on its way."""

    def step(_: Callable[[], object]) -> object:
        raise error

    return step


def after(error: Exception) -> Step:
    """The commit lands and its answer is lost."""

    def step(send: Callable[[], object]) -> object:
        send()
        raise error

    return step


def meanwhile(action: Callable[[], object]) -> Step:
    """Others act between the load and the request."""

    def step(send: Callable[[], object]) -> object:
        action()
        return send()

    return step


def always(step: Step) -> Iterator[Step]:
    """``step`` for ever."""
    return itertools.repeat(step)


def once(*steps: Step) -> Iterator[Step]:
    """Each of ``steps`` once, then no more faults."""
    return iter(steps)


def data_files_on_disk(place: Place) -> set[str]:
    """Paths of all Parquet files in a local warehouse."""
    folder = Path(place.properties["warehouse"].removeprefix("file://"))
    return {str(path) for path in folder.rglob("*.parquet")}


def all_files_on_disk(place: Place) -> set[str]:
    """Paths of all data files, manifests and manifest lists in a local warehouse."""
    folder = Path(place.properties["warehouse"].removeprefix("file://"))
    return {str(path) for path in folder.rglob("*") if path.suffix in {".parquet", ".avro"}}


def foreign_rows(n: int) -> pa.Table:
    """Rows that another tool puts into our table."""
    rows = log_rows(Offsets(), Offsets({("elsewhere", 0): n}))
    return rows.cast(SCHEMA)


def expire_all_but_head(place: Place) -> None:
    """Expiry as Java's libraries do it: parents' ids stay in the snapshots that are left.

    A REST catalog does it so on its side. pyiceberg's own code, which a SQL catalog runs on the
    client, wipes them out; there the metadata file is written here.
    """
    table = place.foreign_table()
    head = table.current_snapshot()
    assert head is not None
    if place.properties.get("type") == "rest":
        gone = [s.snapshot_id for s in table.metadata.snapshots if s != head]
        table.maintenance.expire_snapshots().by_ids(gone).commit()
        return
    kept = table.metadata.model_copy(update={"snapshots": [head], "snapshot_log": []})
    location = f"{table.metadata_location.removesuffix('.metadata.json')}-expired.metadata.json"
    ToOutputFile.table_metadata(kept, table.io.new_output(location))
    with closing(sqlite3.connect(place.properties["uri"].removeprefix("sqlite:///"))) as database:
        database.execute("update iceberg_tables set metadata_location = ?", [location])
        database.commit()
