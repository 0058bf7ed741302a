"""Opening catalogs, creating and evolving tables, versions: catalog/lake.py on real catalogs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_lake import SCHEMA, TOPIC, Place, Writer, sqlite_properties

from catalog.connect import TimedRestCatalog
from catalog.errors import (
    CatalogError,
    LakeUnavailable,
    SpecRefused,
    TableNotFound,
    Unsupported,
    VersionGone,
)
from catalog.iceberg_schema import declared_terms, parse_partition
from catalog.lake import Lake
from catalog.spec import TableName, TableSpec

NAME = TableName("market.eu", "ticks")
SPEC = TableSpec(NAME, (TOPIC,), sort=("symbol", "at"), partition=("day(at)", "bucket(4, symbol)"))
SECRET = "do-not-tell"  # noqa: S105 - what must never be shown


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(sqlite_properties(tmp_path), SPEC)


@pytest.fixture
def lake(place: Place) -> Lake:
    return place.lake()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def opening_fails(properties: Mapping[str, str]) -> str:
    """The message of the refusal; it comes in time and tells no secret."""
    started = time.monotonic()
    with pytest.raises(LakeUnavailable) as raised:
        Lake.open("lake", properties, timeout_s=2)
    assert time.monotonic() - started < 10
    message = str(raised.value)
    assert SECRET not in message
    assert "/nowhere" not in message
    assert "[catalog]" in message
    return message


def test_a_rest_catalog_that_is_away(closed_port: int) -> None:
    uri = f"http://user:{SECRET}@127.0.0.1:{closed_port}/nowhere"
    message = opening_fails({"uri": uri, "token": SECRET})
    assert f"http://127.0.0.1:{closed_port}" in message


def test_a_rest_catalog_that_never_answers(silent_port: int) -> None:
    message = opening_fails({"uri": f"http://127.0.0.1:{silent_port}", "token": SECRET})
    assert "no answer" in message


def test_a_sqlite_file_in_a_folder_that_does_not_exist() -> None:
    message = opening_fails({"uri": "sqlite:////nowhere/catalog.db", "warehouse": "file:///tmp"})
    assert "sqlite" in message


def test_an_s3_endpoint_that_is_away(tmp_path: Path, closed_port: int) -> None:
    message = opening_fails(s3_properties(tmp_path, closed_port))
    assert "S3" in message
    assert f"127.0.0.1:{closed_port}" in message


def test_an_s3_endpoint_that_never_answers(tmp_path: Path, silent_port: int) -> None:
    assert "S3" in opening_fails(s3_properties(tmp_path, silent_port))


def s3_properties(folder: Path, port: int) -> dict[str, str]:
    return {
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": "s3://bucket/nowhere",
        "s3.endpoint": f"http://127.0.0.1:{port}",
        "s3.access-key-id": "key",
        "s3.secret-access-key": SECRET,
    }


@pytest.mark.parametrize(
    "properties",
    [{}, {"uri": "gopher://x"}, {"type": "no-such", "uri": f"x://u:{SECRET}@h/nowhere"}],
)
def test_settings_that_make_no_catalog(properties: dict[str, str]) -> None:
    opening_fails(properties)


def test_requests_to_a_rest_catalog_have_a_time_limit(silent_port: int) -> None:
    """Pyiceberg sets none; a call that hangs would hold a flush for ever."""
    catalog = object.__new__(TimedRestCatalog)
    catalog._timeouts_s = (1, 0.2)
    catalog.properties = {}
    catalog._auth_manager = None
    catalog.uri = f"http://127.0.0.1:{silent_port}"
    session = catalog._create_session()
    with pytest.raises(OSError, match="timed out"):
        session.get(catalog.uri)


@pytest.mark.broker
def test_a_real_rest_catalog_and_store(iceberg_rest: object) -> None:
    """The same lake over REST and S3: create, commit, list, describe its store."""
    namespace = iceberg_rest.unique_namespace()  # type: ignore[attr-defined]
    properties = iceberg_rest.properties  # type: ignore[attr-defined]
    place = Place(properties, replace(SPEC, name=TableName(namespace, "ticks")))
    lake = place.lake()
    lake.ensure_table(place.spec, SCHEMA)
    head = Writer.claiming(place, "a", lake).append(5)
    assert lake.tables(namespace) == [place.name]
    assert namespace in lake.namespaces()
    assert lake.listing()[place.name] is None  # a REST catalog tells names only
    entries = lake.entries(place.name, head.snapshot_id, head.metadata_location)
    path = entries["path"][0].as_py()
    options = lake.store_options(place.name, path)
    assert (options.scheme, options.endpoint) == ("s3", properties["s3.endpoint"])
    assert (options.access_key_id, options.virtual_hosted) == (
        properties["s3.access-key-id"],
        False,
    )
    assert properties["s3.secret-access-key"] not in repr(options)
    with pytest.raises(LakeUnavailable, match="S3"):
        Lake.open("lake", {**properties, "s3.endpoint": "http://127.0.0.1:1"}, timeout_s=3)


def test_a_new_table_is_what_its_declaration_says(place: Place, lake: Lake) -> None:
    documented = SCHEMA.set(0, SCHEMA.field(0).with_metadata({"doc": "the instrument's ticker"}))
    spec = replace(SPEC, properties={"commit.retry.num-retries": "3", "owner": "desk"})
    head = lake.ensure_table(spec, documented)
    assert head.marker is None
    assert head.snapshot_id is None
    table = place.foreign_table()
    schema = table.schema()
    assert declared_terms(table.spec(), schema) == (("day", "at"), ("bucket[4]", "symbol"))
    assert [f.name for f in table.spec().fields] == ["at_day", "symbol_bucket"]
    sort = tuple(schema.find_column_name(f.source_id) for f in table.sort_order().fields)
    assert sort == SPEC.sort
    assert table.format_version == 2
    assert schema.find_field("symbol").doc == "the instrument's ticker"
    assert [f.required for f in schema.fields] == [not f.nullable for f in SCHEMA]
    assert table.properties["write.parquet.compression-codec"] == "zstd"
    assert table.properties["commit.retry.num-retries"] == "3"
    assert table.properties["owner"] == "desk"
    assert lake.arrow_schema(NAME, head.metadata_location).equals(SCHEMA)
    assert lake.namespaces() == ["market", "market.eu"]
    assert lake.tables("market.eu") == [NAME]
    assert lake.tables("market") == []
    assert lake.exists(NAME)
    assert not lake.exists(TableName("market", "none"))


def test_preparing_a_table_twice_changes_nothing(lake: Lake) -> None:
    assert lake.ensure_table(SPEC, SCHEMA) == lake.ensure_table(SPEC, SCHEMA)


def test_two_processes_prepare_the_table_at_once(place: Place) -> None:
    """The server and the ingest start together on a new catalog."""
    heads: list[object] = []
    start = threading.Barrier(2)

    def prepare() -> None:
        start.wait()
        try:
            heads.append(place.lake().ensure_table(SPEC, SCHEMA))
        except CatalogError as error:
            heads.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heads[0] == heads[1]


def test_a_table_that_is_not_there(lake: Lake) -> None:
    with pytest.raises(TableNotFound, match=r"market\.eu\.ticks"):
        lake.head(NAME)
    with pytest.raises(TableNotFound):
        lake.tables("nowhere")


ARROW_TYPES = st.sampled_from(
    [
        pa.string(),
        pa.binary(),
        pa.binary(7),
        pa.bool_(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(18, 8),
        pa.decimal128(38, 0),
        pa.date32(),
        pa.time64("us"),
        pa.timestamp("us"),
        pa.timestamp("us", tz="UTC"),
    ]
)
NAMES = st.text("abcXYZ_09 é", min_size=1, max_size=6)


def nested(children: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    fields = st.lists(
        st.tuples(NAMES, children, st.booleans()), min_size=1, max_size=3, unique_by=lambda t: t[0]
    )
    return st.one_of(
        st.builds(lambda t, n: pa.list_(pa.field("element", t, n)), children, st.booleans()),
        st.builds(
            lambda t, n: pa.map_(pa.field("key", pa.string(), False), pa.field("value", t, n)),
            children,
            st.booleans(),
        ),
        fields.map(lambda fs: pa.struct([pa.field(n, t, null) for n, t, null in fs])),
    )


SCHEMAS = st.lists(
    st.tuples(NAMES, st.recursive(ARROW_TYPES, nested, max_leaves=4), st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda t: t[0].lower(),
).map(lambda fields: pa.schema([pa.field(n, t, null) for n, t, null in fields]))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schema=SCHEMAS, number=st.integers(0, 10**12))
def test_every_declared_schema_comes_back_unchanged(
    lake: Lake, schema: pa.Schema, number: int
) -> None:
    """Plain types, child names, nullability, order: what is declared is what is read."""
    name = TableName("schemas", f"t{number}_{abs(hash(schema.to_string()))}")
    head = lake.ensure_table(TableSpec(name, (TOPIC,)), schema)
    assert lake.arrow_schema(name, head.metadata_location, head.schema_id).equals(schema)


@pytest.mark.parametrize(
    ("field", "named"),
    [
        (pa.field("x", pa.timestamp("ns")), "ns"),
        (pa.field("x", pa.large_string()), "large_string"),
        (pa.field("x", pa.int16()), "int16"),
        (pa.field("x", pa.decimal256(50, 2)), "decimal256"),
    ],
)
def test_a_type_that_would_change_is_refused(lake: Lake, field: pa.Field, named: str) -> None:
    with pytest.raises(SpecRefused, match=named):
        lake.ensure_table(SPEC, SCHEMA.append(field))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"partition": ("week(at)",)}, "none of column"),
        ({"partition": ("day(nothing)",)}, "no column 'nothing'"),
        ({"partition": ("day(symbol)",)}, "impossible"),
        ({"partition": ("bucket(symbol)",)}, "none of column"),
        ({"sort": ("nothing",)}, "no column 'nothing'"),
    ],
)
def test_a_layout_that_does_not_fit_the_schema_is_refused(
    lake: Lake, change: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(SpecRefused, match=said):
        lake.ensure_table(replace(SPEC, **change), SCHEMA)  # type: ignore[arg-type] # by name
    assert not lake.exists(NAME)


@pytest.mark.parametrize(
    ("text", "transform", "column"),
    [
        ("symbol", "identity", "symbol"),
        ("day(at)", "day", "at"),
        ("hour( at )", "hour", "at"),
        ("bucket(16, symbol)", "bucket[16]", "symbol"),
        ("truncate(4,x)", "truncate[4]", "x"),
        ("month(at)", "month", "at"),
        ("year(at)", "year", "at"),
    ],
)
def test_partition_terms(text: str, transform: str, column: str) -> None:
    term = parse_partition(text)
    assert (str(term.transform), term.column) == (transform, column)


def test_the_table_grows_with_its_schema(place: Place, lake: Lake) -> None:
    """Added columns are null in old rows; a required column may become nullable; int may widen."""
    spec = replace(SPEC, partition=())
    first = SCHEMA.append(pa.field("size", pa.int32(), nullable=False))
    lake.ensure_table(spec, first)
    grown = SCHEMA.append(pa.field("size", pa.int64())).append(
        pa.field("legs", pa.list_(pa.field("element", pa.string(), nullable=False)))
    )
    head = lake.ensure_table(spec, grown)
    assert lake.arrow_schema(NAME, head.metadata_location).equals(grown)
    assert lake.arrow_schema(NAME, head.metadata_location, 0).equals(first)
    assert lake.names_are_stable(NAME, head.metadata_location)
    with pytest.raises(VersionGone):
        lake.arrow_schema(NAME, head.metadata_location, 99)
    with place.foreign_table().update_schema() as update:
        update.rename_column("size", "volume")
    assert not lake.names_are_stable(NAME, lake.head(NAME).metadata_location)


@pytest.mark.parametrize(
    ("declared", "column"),
    [
        (SCHEMA.set(2, pa.field("price", pa.string())), "price"),
        (SCHEMA.set(2, pa.field("price", pa.float32())), "price"),
        (SCHEMA.set(2, pa.field("price", pa.float64(), nullable=False)), "price"),
        (SCHEMA.append(pa.field("venue", pa.string(), nullable=False)), "venue"),
        (SCHEMA.remove(0), "symbol"),
        (SCHEMA.set(0, pa.field("symbol", pa.list_(pa.field("element", pa.string())))), "symbol"),
    ],
)
def test_a_schema_that_contradicts_the_table_is_refused(
    lake: Lake, declared: pa.Schema, column: str
) -> None:
    """The column is named, and nothing has changed."""
    spec = replace(SPEC, partition=(), sort=())
    head = lake.ensure_table(spec, SCHEMA)
    with pytest.raises(SpecRefused, match=f"'{column}'"):
        lake.ensure_table(spec, declared)
    assert lake.head(NAME) == head


def test_another_partitioning_is_refused(lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    with pytest.raises(SpecRefused, match=r"partitioned by day\(at\), bucket\[4\]\(symbol\)"):
        lake.ensure_table(replace(SPEC, partition=("hour(at)",)), SCHEMA)
    lake.ensure_table(replace(SPEC, partition=()), SCHEMA)


def test_an_older_version_is_read_from_its_own_metadata(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    writer = Writer.claiming(place, "a")
    old = writer.append(3)
    new = writer.append(4)
    assert lake.entries(NAME, old.snapshot_id, old.metadata_location)["record_count"].to_pylist()
    counts = {
        head.snapshot_id: sum(
            lake.entries(NAME, head.snapshot_id, head.metadata_location)["record_count"].to_pylist()
        )
        for head in (old, new)
    }
    assert counts == {old.snapshot_id: 6, new.snapshot_id: 14}
    assert lake.head(NAME, snapshot_id=old.snapshot_id).marker == old.marker


def test_a_version_outlives_its_metadata_file(place: Place, lake: Lake) -> None:
    """Rule 17: tickets hold while the snapshot is there, else VersionGone."""
    lake.ensure_table(SPEC, SCHEMA)
    old = Writer.claiming(place, "a").append(3)
    Writer.claiming(place, "b")
    Path(old.metadata_location.removeprefix("file://")).unlink()
    other = place.lake()
    entries = other.entries(NAME, old.snapshot_id, old.metadata_location)
    assert sum(entries["record_count"].to_pylist()) == 6
    with pytest.raises(VersionGone):
        other.entries(NAME, 4711, old.metadata_location)
    place.foreign().drop_table(str(NAME))
    with pytest.raises(VersionGone):
        place.lake().entries(NAME, old.snapshot_id, old.metadata_location)


def test_old_metadata_files_are_tidied_away(place: Place, lake: Lake) -> None:
    """A commit a minute must not leave a metadata file a minute for ever."""
    spec = replace(SPEC, properties={"write.metadata.previous-versions-max": "3"})
    lake.ensure_table(spec, SCHEMA)
    writer = Writer.claiming(place, "a")
    for _ in range(6):
        writer.commit(None, writer.target(1))
    folder = Path(place.properties["warehouse"].removeprefix("file://"))
    assert len(list(folder.rglob("*.metadata.json"))) == 4


def test_a_head_that_has_not_moved_is_not_read_again(
    place: Place, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQL catalog says where the metadata are; who has read them knows the head."""
    lake.ensure_table(SPEC, SCHEMA)
    loaded: list[object] = []
    load = lake.load
    monkeypatch.setattr(lake, "load", lambda name: loaded.append(name) or load(name))
    first = lake.head(SPEC.name)
    assert lake.head(SPEC.name) is first
    assert loaded == []
    writer = Writer.claiming(place, "a")
    writer.commit(None, writer.target(1))
    moved = lake.head(SPEC.name)
    assert moved.metadata_location != first.metadata_location
    assert lake.head(SPEC.name) is moved
    assert loaded == [SPEC.name]
    place.foreign().drop_table(str(SPEC.name))
    with pytest.raises(TableNotFound):
        lake.head(SPEC.name)


def test_snapshots_and_files_for_people(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    writer = Writer.claiming(place, "a")
    head = writer.append(3)
    rows = lake.metadata_table(
        NAME, "snapshots", head.snapshot_id, head.metadata_location
    ).to_pylist()
    assert [row["added_rows"] for row in rows] == [6, None]
    assert [row["epoch"] for row in rows] == [1, 1]
    assert rows[0]["parent_id"] == rows[1]["snapshot_id"]
    assert rows[0]["positions"] == '{"ticks":{"0":103,"1":3}}'
    assert rows[0]["operation"] == "append"
    paths = lake.metadata_table(NAME, "files", head.snapshot_id, head.metadata_location)[
        "path"
    ].to_pylist()
    assert paths
    assert all(path.startswith("data/at_day=") for path in paths)


def test_a_store_that_cannot_be_read_natively_is_named(lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    assert lake.store_options(NAME, "file:///x").scheme == "file"
    assert lake.store_options(NAME, "s3a://bucket/x").bucket == "bucket"
    with pytest.raises(Unsupported, match="hdfs"):
        lake.store_options(NAME, "hdfs://a/x")


def test_many_threads_read_while_one_commits(place: Place, lake: Lake) -> None:
    """Every head that a reader sees is a whole version: positions and rows agree."""
    lake.ensure_table(SPEC, SCHEMA)
    writer = Writer.claiming(place, "a")
    stop = threading.Event()
    errors: list[BaseException] = []
    seen: list[int] = []

    def read() -> None:
        try:
            while not stop.is_set():
                head = lake.head(NAME)
                entries = lake.entries(NAME, head.snapshot_id, head.metadata_location)
                assert head.marker is not None
                rows = sum(entries["record_count"].to_pylist())
                assert rows == 2 * head.marker.positions.at((TOPIC, 1))
                seen.append(rows)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        writer.append(2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen
