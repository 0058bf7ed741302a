"""Substrait plans: answered as SQL is, by stock ADBC; hostile ones refused with a typed error."""

# ruff: noqa: SIM117 - connections and expectations nest as the test reads

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_manager
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from datafusion import SessionContext, Table
from datafusion.substrait import Plan, Producer, Serde
from hypothesis import given, settings
from hypothesis import strategies as st
from support_backend import NUMBERS_ROWS, Site
from support_flight import (
    Numbers,
    act,
    connect,
    descriptor,
    fetch,
    hand,
    make_service,
    read,
    serving,
    unwrapped,
)
from support_lake import SCHEMA, STARTS, log_rows

from catalog.errors import CatalogError
from flight_server.plans import Options, Statement
from flight_server.protocol import FlightSqlServer, messages
from flight_server.protocol.errors import (
    FlightSqlError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
)
from flight_server.sqltext import Bounds
from flight_server.substrait import MAX_ROWS, VERSION, read_plan

OPTIONS = Options("market_data")


def client_context() -> SessionContext:
    """What a client has: the tables' columns, and a planner of its own."""
    context = SessionContext()
    for schema in ("demo", "market_data"):
        context.sql(f"create schema {schema}")
    tables = {"demo.numbers": NUMBERS_ROWS.schema, "market_data.ticks": SCHEMA}
    for name, columns in tables.items():
        schema, _, table = name.partition(".")
        empty = ds.dataset(columns.empty_table())
        context.catalog().schema(schema).register_table(table, Table(empty))
    context.sql("create table demo.mine (n bigint)")
    return context


CLIENT = client_context()


def planned(sql: str, context: SessionContext = CLIENT) -> bytes:
    """As it is written: nothing folded, nothing pushed down."""
    return Producer.to_substrait_plan(context.sql(sql).logical_plan(), context).encode()


def optimized(sql: str) -> bytes:
    """With filters and projections pushed into the tables' reads."""
    plan = CLIENT.sql(sql).optimized_logical_plan()
    return Producer.to_substrait_plan(plan, CLIENT).encode()


def as_json(plan: bytes) -> Any:
    return json.loads(Serde.deserialize_bytes(plan).to_json())


def from_json(plan: Any) -> bytes:
    return Plan.from_json(json.dumps(plan)).encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(Site(tmp_path_factory.mktemp("site"))) as site:
        site.consume(10)
        site.flush()
        site.consume(5)
        site.publish()
        yield site


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[FlightSqlServer]:
    with serving(site.service()) as server:
        yield server


@pytest.fixture
def connection(server: FlightSqlServer) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


def run(connection: Any, plan: bytes, *, prepare: bool = False) -> pa.Table:
    """Stock ADBC, low level: CommandStatementSubstraitPlan, or CreatePreparedSubstraitPlan."""
    with closing(adbc_driver_manager.AdbcStatement(connection.adbc_connection)) as statement:
        statement.set_substrait_plan(plan)
        if prepare:
            statement.prepare()
        handle, _ = statement.execute_query()
        return pa.RecordBatchReader._import_from_c(handle.address).read_all()


def ask(connection: Any, sql: str) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def log_of(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: (row["_partition"], row["_offset"]))


QUERIES = [
    "select n, label from demo.numbers where n > 2 order by n",
    "select label from demo.numbers where n > 2 and label is not null order by 1",
    "select n + 1 as m, upper(label) as u from demo.numbers order by m desc limit 2",
    "select count(*) as c, sum(n) as s, count(distinct label) as d from demo.numbers",
    "select a.n from demo.numbers a join demo.numbers b on a.n = b.n + 1 order by 1",
    "select a.n, b.n as m from demo.numbers a, demo.numbers b order by 1, 2",
    "select n from demo.numbers where n = (select max(n) from demo.numbers)",
    "select n from demo.numbers where n in (1, 2) union all select 9 order by 1",
    "select n, row_number() over (order by n desc) as r from demo.numbers order by 1",
    "select case when n > 1 then 'more' else label end as z from demo.numbers order by n",
    "select 1 as one, 'x' as x",
    "select label || '-' || label as x, concat(label, n) as y from demo.numbers order by n",
    "select replace(replace(label, 'o', 'oo'), 'oo', 'u') as x from demo.numbers order by n",
    "select column1 from (values (1), (2)) order by 1",
    "select _partition, count(*) as c, max(price) from market_data.ticks group by 1 order by 1",
    "select symbol, at from market_data.ticks where _offset >= 105 and price > 0 order by 1, 2",
]


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("plan", [planned, optimized])
@pytest.mark.parametrize("sql", QUERIES)
def test_a_plan_gives_what_its_sql_gives(
    connection: Any, sql: str, plan: Any, prepare: Any
) -> None:
    found, wanted = run(connection, plan(sql), prepare=prepare), ask(connection, sql)
    assert found.to_pydict() == wanted.to_pydict()


def test_history_and_tail_come_once_each(site: Site, connection: Any) -> None:
    found = run(connection, planned("select * from market_data.ticks"))
    assert log_of(found) == log_of(log_rows(STARTS, site.position))


def test_a_client_may_know_fewer_columns_in_another_order(connection: Any) -> None:
    """What the table has beside them is left out."""
    plan = as_json(planned("select label from demo.numbers where n = 2"))
    text = json.dumps(plan)
    assert '"names": ["n", "label"]' in text
    context = SessionContext()
    context.sql("create schema demo")
    context.sql("create table demo.numbers (label varchar, n bigint not null)")
    other = planned("select label from demo.numbers where n = 2", context)
    context.sql("drop table demo.numbers")
    context.sql("create table demo.numbers (label varchar)")
    fewer = planned("select label from demo.numbers order by 1 nulls last", context)
    assert run(connection, other).to_pydict() == {"label": ["two"]}
    labels = ["five", "four", "one", "two", None]
    assert run(connection, fewer).to_pydict() == {"label": labels}


NUMBER, TEXT = {"i64": {}}, {"string": {}}


@pytest.mark.parametrize(
    ("table", "columns", "literal"),
    [
        ("demo.numbers", {"n": NUMBER, "label": TEXT}, {"i64": "3"}),
        ("demo.numbers$files", {"record_count": NUMBER, "path": TEXT}, {"i64": "5"}),
        ("market_data.ticks", {"_offset": NUMBER, "symbol": TEXT}, {"i64": "103"}),
        ("market_data.ticks$runs", {"_offset": NUMBER, "symbol": TEXT}, {"i64": "103"}),
        ("market_data.ticks$live", {"_offset": NUMBER, "symbol": TEXT}, {"i64": "112"}),
        ("market_data.ticks$offsets", {"high": NUMBER, "topic": TEXT}, {"i64": "115"}),
    ],
)
def test_a_filter_inside_a_read_is_obeyed_with_its_projection_and_emit(
    connection: Any, table: str, columns: Any, literal: Any
) -> None:
    """Whatever kind of table it is; SQL says which rows there are."""
    reading = {
        "baseSchema": {
            "names": list(columns),
            "struct": {"types": list(columns.values()), "nullability": 2},
        },
        "filter": {
            "scalarFunction": {
                "functionReference": 1,
                "arguments": [{"value": _field(0)}, {"value": {"literal": literal}}],
                "outputType": {"bool": {}},
            }
        },
        "namedTable": {"names": table.split(".")},
    }
    masked = {"projection": {"select": {"structItems": [{"field": 1}, {"field": 0}]}}}
    emitted = {"common": {"emit": {"outputMapping": [1]}}}
    (first, second), (schema, name) = columns, table.split(".")
    for more, names in (
        ({}, [first, second]),
        (masked, [second, first]),
        (emitted, [second]),
        (masked | emitted, [first]),
    ):
        plan = from_json(_rooted({"read": reading | more}, names, equal=1))
        wanted = ask(
            connection,
            f'select {", ".join(names)} from {schema}."{name}" where {first} = {literal["i64"]}',
        )
        assert 0 < wanted.num_rows < 3
        found = run(connection, plan).to_pylist()
        assert sorted(map(str, found)) == sorted(map(str, wanted.to_pylist()))


def _field(at: int) -> Any:
    return {"selection": {"directReference": {"structField": {"field": at}}, "rootReference": {}}}


def _rooted(rel: Any, names: list[str], **functions: int) -> Any:
    return {
        "version": {"minorNumber": 85},
        "extensions": [
            {"extensionFunction": {"functionAnchor": anchor, "name": name}}
            for name, anchor in functions.items()
        ],
        "relations": [{"root": {"input": rel, "names": names}}],
    }


def test_a_ticket_of_a_plan_is_answered_with_the_same_rows(tmp_path: Path) -> None:
    """Rules 16 and 17, on another server too: the plan travels with its pins."""
    with closing(Site(tmp_path)) as site:
        site.consume(4)
        site.publish()
        plan = messages.SubstraitPlan(planned("select * from market_data.ticks"), VERSION)
        with serving(site.service()) as server, hand(server) as client:
            info = client.get_flight_info(descriptor(messages.StatementSubstraitPlan(plan)))
            ticket = info.endpoints[0].ticket
            first = log_of(read(client.do_get(ticket)))
            assert len(first) == 8
            site.consume(3)
            site.publish()
            other = site.make_engine()
            with serving(site.service(backend=site.backend(other))) as second:
                with hand(second) as another:
                    assert log_of(read(another.do_get(ticket))) == first
            other.close()
            site.flush()
            site.publish()
            assert log_of(read(client.do_get(ticket))) == first
            assert fetch(client, messages.StatementSubstraitPlan(plan)).num_rows == 14


def test_the_session_says_which_schema_a_bare_name_belongs_to(connection: Any) -> None:
    plan = as_json(planned("select n from demo.numbers order by n limit 1"))
    bare = json.loads(json.dumps(plan).replace('["demo", "numbers"]', '["numbers"]'))
    with pytest.raises(connection.ProgrammingError, match=r"no table market_data\.numbers"):
        run(connection, from_json(bare))
    ask(connection, "use demo")
    assert run(connection, from_json(bare)).to_pydict() == {"n": [1]}


def test_the_shares_of_a_plan_are_all_rows_once(site: Site) -> None:
    """Several endpoints, by session option, as for SQL."""
    plan = planned("select * from market_data.ticks where _offset >= 0")
    divided = site.engine.plan(Statement("plan", None, plan), Options("market_data", endpoints=3))
    shares = site.engine.divide(divided)
    assert len(shares) > 1
    parts = [site.engine.stream(divided, share=share).read_all() for share in shares]
    assert log_of(pa.concat_tables(parts)) == log_of(log_rows(STARTS, site.position))
    clocked = planned("select now() as t, _offset from market_data.ticks")
    later = site.engine.plan(Statement("plan", None, clocked), Options("demo", endpoints=3))
    assert site.engine.divide(later) == ()  # each share would have another now()


def test_a_filter_over_history_prunes_its_files(site: Site) -> None:
    """Planning over stubs shows the filters; TRUE, which we add, hides none of them."""
    plan = site.engine.plan(
        Statement("plan", None, planned("select * from market_data.ticks where _offset < 0")),
        OPTIONS,
    )
    (scan,) = plan.prepared.reads.of(("market_data", "ticks"))  # type: ignore[union-attr]
    assert any("_offset" in str(each) for each in scan)
    stream = site.engine.stream(plan)
    (report,) = stream._work.reports.values()
    assert (report.files, report.kept) == (1, 0)
    assert stream.read_all().num_rows == 0


def test_the_server_says_that_it_takes_plans(server: FlightSqlServer) -> None:
    """GetSqlInfo 5, 6 and 7; the version is the one that the engine writes itself."""
    with hand(server) as client:
        rows = fetch(client, messages.GetSqlInfo((5, 6, 7))).to_pylist()
        assert [row["value"] for row in rows] == [True, VERSION, VERSION]
        assert "CreatePreparedSubstraitPlan" in {each.type for each in client.list_actions()}
    written = as_json(planned("select 1"))["version"]
    assert f"0.{written['minorNumber']}.0" == VERSION


def test_a_prepared_plan_says_its_columns_and_takes_no_parameters(server: FlightSqlServer) -> None:
    plan = messages.SubstraitPlan(planned("select n from demo.numbers"), VERSION)
    with hand(server) as client:
        (body,) = act(client, messages.CreatePreparedSubstraitPlan(plan))
        result = unwrapped(body, "ActionCreatePreparedStatementResult")
        columns = pa.ipc.read_schema(pa.BufferReader(result.dataset_schema))
        assert (columns.names, columns.types) == (["n"], [pa.int64()])
        assert len(pa.ipc.read_schema(pa.BufferReader(result.parameter_schema))) == 0
        command = messages.PreparedStatementQuery(result.prepared_statement_handle)
        assert client.get_schema(descriptor(command)).schema.names == ["n"]
        assert fetch(client, command).num_rows == 5
        rows = pa.record_batch({"$1": [1]})
        writer, _ = client.do_put(descriptor(command), rows.schema)
        writer.write_batch(rows)
        with pytest.raises(pa.ArrowNotImplementedError, match="no parameters here"):
            writer.close()


def test_a_plan_is_no_update(server: FlightSqlServer) -> None:
    plan = messages.SubstraitPlan(planned("select n from demo.numbers"), VERSION)
    command = descriptor(messages.StatementSubstraitPlan(plan))
    with hand(server) as client:
        writer, _ = client.do_put(command, pa.schema([]))
        with pytest.raises(pa.ArrowNotImplementedError, match="executed as a query"):
            writer.close()
        assert client.get_schema(command).schema.names == ["n"]


@pytest.mark.parametrize("plan", [None, messages.SubstraitPlan(b"", "")], ids=["without", "empty"])
def test_a_command_without_a_plan_is_malformed(server: FlightSqlServer, plan: Any) -> None:
    with hand(server) as client:
        with pytest.raises(pa.ArrowInvalid, match="holds no Substrait plan"):
            client.get_flight_info(descriptor(messages.StatementSubstraitPlan(plan)))
        with pytest.raises(pa.ArrowInvalid, match="holds no Substrait plan"):
            act(client, messages.CreatePreparedSubstraitPlan(plan))


def test_a_backend_that_takes_no_plans_is_never_asked() -> None:
    """What GetSqlInfo says (5) decides."""
    plan = messages.SubstraitPlan(planned("select 1"), VERSION)
    with serving(make_service(Numbers())) as server, hand(server) as client:
        with pytest.raises(pa.ArrowNotImplementedError, match="not offered: send SQL"):
            client.get_flight_info(descriptor(messages.StatementSubstraitPlan(plan)))
        with pytest.raises(pa.ArrowNotImplementedError, match="not offered: send SQL"):
            act(client, messages.CreatePreparedSubstraitPlan(plan))
        (row,) = fetch(client, messages.GetSqlInfo((5,))).to_pylist()
        assert row["value"] is False
        assert "CreatePreparedSubstraitPlan" not in {each.type for each in client.list_actions()}


def test_a_transaction_is_refused(server: FlightSqlServer) -> None:
    plan = messages.SubstraitPlan(planned("select 1"), VERSION)
    with hand(server) as client:
        with pytest.raises(pa.ArrowNotImplementedError, match="no transactions"):
            client.get_flight_info(descriptor(messages.StatementSubstraitPlan(plan, b"t")))


def test_a_plan_stands_in_the_query_log(site: Site, connection: Any) -> None:
    plan = planned("select n * 7 as seven from demo.numbers")
    run(connection, plan)
    shown = f"-- Substrait plan of {len(plan)} bytes"
    assert shown in {record.statement for record in site.log.records()}


# --- what is refused -----------------------------------------------------------------------------


NUMBERS = planned("select n from demo.numbers")


def read_instead(kind: str, value: Any) -> bytes:
    """The plan over numbers with another kind of table to read from."""
    plan = as_json(NUMBERS)
    read = _the_read(plan)
    del read["namedTable"]
    read[kind] = value
    return from_json(plan)


def _the_read(node: Any) -> Any:
    if isinstance(node, dict) and "read" in node:
        return node["read"]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next(filter(None, map(_the_read, children)), None)


def calling(function: str, *arguments: Any) -> bytes:
    """A call of a function over no table's row."""
    given = [{"value": {"literal": each}} for each in arguments]
    call = {
        "scalarFunction": {"functionReference": 1, "arguments": given, "outputType": {"i64": {}}}
    }
    one = as_json(planned("select 1 as one"))
    project = one["relations"][0]["root"]["input"]["project"]
    project["expressions"] = [call]
    one["extensions"] = [{"extensionFunction": {"functionAnchor": 1, "name": function}}]
    return from_json(one)


def nested(levels: int) -> bytes:
    """Filters (2) around the inputs (2) of one another, in the root (2) of a relation (3)."""
    rel = b""
    for _ in range(levels):
        rel = _field_bytes(2, _field_bytes(2, rel))
    return _field_bytes(3, _field_bytes(2, _field_bytes(1, rel)))


def _field_bytes(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


FILES = {"items": [{"uriFile": "file:///etc/passwd", "text": {}}]}
ANY = {"typeUrl": "type.googleapis.com/x", "value": ""}
HOSTILE = [
    ("truncated", NUMBERS[:-7], InvalidArgument, "no Substrait plan"),
    ("text", b"select 1", InvalidArgument, "no Substrait plan"),
    ("deep", nested(3000), InvalidArgument, "nested too deep"),
    ("beyond the decoder", nested(50), InvalidArgument, "nested too deep"),
    ("not too deep", nested(40), FlightSqlError, "^(?!.*too deep)"),
    ("local files", read_instead("localFiles", FILES), Unimplemented, "'localFiles'"),
    (
        "iceberg",
        read_instead("icebergTable", {"direct": {"metadataUri": "file:///x"}}),
        Unimplemented,
        "'icebergTable'",
    ),
    (
        "extension",
        read_instead("extensionTable", {"detail": ANY}),
        Unimplemented,
        "'(detail|extensionTable)'",
    ),
    (
        "leaf",
        from_json(_rooted({"extensionLeaf": {"detail": ANY}}, ["n"])),
        Unimplemented,
        "'(detail|extensionLeaf)'",
    ),
    (
        "ddl",
        from_json(_rooted({"ddl": {"namedObject": {"names": ["x"]}, "op": 1, "object": 1}}, [])),
        Unimplemented,
        "'ddl'|'namedObject'|'object'",
    ),
    (
        "write",
        from_json(
            _rooted(
                {
                    "write": {
                        "namedTable": {"names": ["demo", "numbers"]},
                        "op": 1,
                        "input": as_json(NUMBERS)["relations"][0]["root"]["input"],
                    }
                },
                [],
            )
        ),
        Unimplemented,
        "'write'",
    ),
    (
        "update",
        from_json(_rooted({"update": {"namedTable": {"names": ["demo", "numbers"]}}}, [])),
        Unimplemented,
        "'update'",
    ),
    ("reference", from_json(_rooted({"reference": {}}, ["n"])), Unimplemented, "'reference'"),
    (
        "parameter",
        from_json(
            _rooted(
                {
                    "project": {
                        "input": as_json(planned("select 1"))["relations"][0]["root"]["input"],
                        "expressions": [{"dynamicParameter": {"type": {"i64": {}}}}],
                    }
                },
                ["a", "b"],
            )
        ),
        Unimplemented,
        "'dynamicParameter'",
    ),
    ("no relation", from_json({"version": {"minorNumber": 85}}), InvalidArgument, "one relation"),
    (
        "two relations",
        from_json({**as_json(NUMBERS), "relations": as_json(NUMBERS)["relations"] * 2}),
        InvalidArgument,
        "one relation",
    ),
    (
        "no root",
        from_json({"relations": [{"rel": as_json(NUMBERS)["relations"][0]["root"]["input"]}]}),
        InvalidArgument,
        "a root that names columns",
    ),
    ("wrong table", planned("select n from demo.mine"), NotFound, "demo.mine; the nearest"),
    ("a file's name", read_instead("namedTable", {"names": ["/etc/passwd"]}), NotFound, "no table"),
    ("growth", calling("repeat", {"string": "x"}, {"i64": "2000000000"}), Unimplemented, "repeat"),
    ("series", calling("range", {"i64": "1"}, {"i64": "2000000000"}), Unimplemented, "range"),
    (
        "replacing",
        planned(
            "select replace(replace(replace(label, 'o', 'oo'), 'o', 'oo'), 'o', 'oo') as x "
            "from demo.numbers"
        ),
        Unimplemented,
        "3 calls that replace or join text",
    ),
    (
        "replacing by much",
        planned(
            f"select replace(replace(label, 'o', '{'o' * 300}'), 'o', '{'o' * 300}') as x "
            "from demo.numbers"
        ),
        Unimplemented,
        "2 calls that replace or join text or lists, or with",
    ),
    (
        "doubling",
        planned(
            "with c0 as (select label as x from demo.numbers)"
            + "".join(f", c{i + 1} as (select x || x as x from c{i})" for i in range(17))
            + " select length(x) as n from c17"
        ),
        Unimplemented,
        "17 calls that replace or join text",
    ),
    ("unknown function", calling("nonsense:i64", {"i64": "1"}), Unimplemented, "function name"),
    (
        "no such column",
        from_json(
            _rooted(
                {
                    "filter": {
                        "input": {"read": _the_read(as_json(NUMBERS))},
                        "condition": _field(9),
                    }
                },
                ["n"],
            )
        ),
        InvalidArgument,
        "refers to a column or step that it has not",
    ),
    ("wide chain", calling("and", *[{"boolean": True}] * 1100), ResourceExhausted, "steps and"),
    ("many bytes", b"\x00" * 300_000, ResourceExhausted, "300000 bytes, the limit is 262144"),
    (
        "many rows",
        from_json(
            _rooted(
                {
                    "read": {
                        "baseSchema": {
                            "names": ["a"],
                            "struct": {"types": [{"i64": {}}], "nullability": 2},
                        },
                        "virtualTable": {
                            "expressions": [{"fields": [{"literal": {"i64": "1"}}]}]
                            * (MAX_ROWS + 1)
                        },
                    }
                },
                ["a"],
            )
        ),
        ResourceExhausted,
        "may bring 10000 rows",
    ),
]


@pytest.mark.parametrize(
    ("plan", "kind", "words"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_plans_get_a_typed_error(
    site: Site, plan: bytes, kind: type[FlightSqlError], words: str
) -> None:
    with pytest.raises(kind, match=words) as refused:
        site.engine.plan(Statement("plan", None, plan), OPTIONS)
    assert "DataFusion" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_join_without_an_equality_is_bounded_as_in_sql(site: Site) -> None:
    froms = ", ".join(f"demo.numbers t{i}" for i in range(14))
    plan = site.engine.plan(Statement("plan", None, planned(f"select t0.n from {froms}")), OPTIONS)
    with pytest.raises(ResourceExhausted, match="join without an equality"):
        site.engine.stream(plan)


def test_the_bounds_are_those_of_the_settings() -> None:
    with pytest.raises(ResourceExhausted, match=r"limit is 40 \(4 × limits.max_sql_bytes\)"):
        read_plan(NUMBERS, "plan", Bounds(max_bytes=10))
    with pytest.raises(ResourceExhausted, match=r"limits\.max_operators"):
        read_plan(planned("select n + n from demo.numbers"), "plan", Bounds(max_operators=2))


SEEDS = [planned(sql) for sql in QUERIES[:9]] + [optimized(sql) for sql in QUERIES[:2]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_plans_are_typed_errors_or_answers(site: Site, data: st.DataObject) -> None:
    """Bits flipped, bytes left out and put in: nothing else ever comes out of the engine."""
    plan = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(plan) - 1))
        plan[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        plan = plan or bytearray(b"x")
    try:
        found = site.engine.plan(Statement("plan", None, bytes(plan)), OPTIONS)
        site.engine.stream(found).read_all()
    except (FlightSqlError, CatalogError):
        return
