"""Plan and stream: one pin per table, nothing executed while planning, exactly the schema."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from support_engine import PLAIN, SYMBOLS, TRADES, TRADES_SCHEMA, FolderTables, trades

from catalog.errors import FileMissing, NotReady
from catalog.offsets import Offsets
from catalog.tables import Pin
from flight_server import contexts
from flight_server.engine import Engine, Options, Statement
from flight_server.explain import without_paths
from flight_server.limits import Deadline, Limits
from flight_server.protocol.errors import (
    Cancelled,
    DeadlineExceeded,
    FlightSqlError,
    InvalidArgument,
    NotFound,
    Overloaded,
    ResourceExhausted,
    SyntaxRefused,
    Unimplemented,
)

OPTIONS = Options(schema="market_data")


@pytest.fixture
def tables(tmp_path: Path) -> FolderTables:
    """Trades: offsets 0 to 299 in three files, 300 to 349 live. Symbols: a plain table."""
    kept = FolderTables(tmp_path / "lake")
    live = trades(300, 50).to_batches(max_chunksize=20)
    kept.publish(TRADES, [trades(100 * i, 100) for i in range(3)], live)
    names = pa.table({"symbol": list(SYMBOLS), "rank": [1, 2, 3, 4]})
    kept.publish(PLAIN, [names], kind="plain")
    return kept


@pytest.fixture
def engine(tables: FolderTables) -> Iterator[Engine]:
    made = Engine(tables, tables, Limits(), system={"queries": lambda: pa.table({"sql": ["x"]})})
    yield made
    assert (made.admission.running, made.admission.waiting) == (0, 0)
    made.close()


def sql(engine: Engine, text: str, *values: object, options: Options = OPTIONS) -> pa.Table:
    """The whole answer, checked against the promised schema."""
    parameters = None
    if values:
        names = [f"p{i}" for i in range(len(values))]
        parameters = pa.RecordBatch.from_arrays([pa.array([v]) for v in values], names=names)
    plan = engine.plan(Statement(text, parameters), options)
    result = engine.stream(plan).read_all()
    assert result.schema.equals(plan.schema, check_metadata=True)
    return result


def one(engine: Engine, text: str, *values: object) -> object:
    """The single value of an answer."""
    result = sql(engine, text, *values)
    assert result.num_rows == 1
    return result.column(0)[0].as_py()


# Names and pins


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("trades", 350),
        ("market_data.trades", 350),
        ("lake.market_data.trades", 350),
        ('"trades$runs"', 300),
        ('market_data."trades$live"', 50),
        ('lake.market_data."trades$offsets"', 1),
        ('"trades$snapshots"', 1),
        ('"trades$files"', 3),
        ("symbols", 4),
        ("system.queries", 1),
        ("lake.system.queries", 1),
    ],
)
def test_every_kind_of_name_is_answered(engine: Engine, name: str, rows: int) -> None:
    assert one(engine, f"select count(*) from {name}") == rows
    assert sql(engine, f"select * from {name}").num_rows == rows


MANY_REFERENCES = """
    with mine as (select * from trades where price >= 0)
    select (select count(*) from trades) as a,
           (select count(*) from mine) as b,
           (select count(*) from (select * from "trades$runs" union all
                                  select * from lake.market_data."trades$live")) as c,
           (select count(*) from trades x join trades y on x._offset = y._offset) as d,
           (select count(*) from mine
            where _offset in (select _offset from market_data.trades)) as e
"""


def test_all_references_of_a_statement_see_one_version(
    engine: Engine, tables: FolderTables
) -> None:
    """Rule 16: the table is pinned once, though every pin would give another version."""
    take_pin = tables.pin

    def moving_pin(name: object, **options: object) -> Pin:
        pin = take_pin(name, **options)  # type: ignore[arg-type]
        grown = [trades(0, 500)]
        tables.publish(TRADES, grown, trades(500, 10 * pin.snapshot_id).to_batches())  # type: ignore[operator]
        return pin

    tables.pin = moving_pin  # type: ignore[method-assign, assignment]
    answer = sql(engine, MANY_REFERENCES).to_pylist()[0]
    assert tables.pinned == [TRADES]
    assert tables.opened == [(TRADES, "split")]
    assert set(answer.values()) == {350}


def test_a_plan_is_answered_from_its_own_pins(engine: Engine, tables: FolderTables) -> None:
    """Rule 17: what is published between the plan and the stream does not show."""
    plan = engine.plan(Statement("select count(*), max(_offset) from trades"), OPTIONS)
    tables.publish(TRADES, [trades(0, 1000)], trades(1000, 5).to_batches())
    for _ in range(2):
        assert engine.stream(plan).read_all().to_pylist()[0].values() == {
            350: 0,
            349: 0,
        }.keys() or (list(engine.stream(plan).read_all().to_pylist()[0].values()) == [350, 349])
    assert tables.pinned == [TRADES]


def test_given_pins_stand_and_are_never_moved(engine: Engine, tables: FolderTables) -> None:
    """Rule 17: a ticket's pins come back through ``plan``, in whichever process."""
    first = engine.plan(Statement("select 1 from trades, symbols"), OPTIONS)
    assert [pin.name for pin in first.pins] == [PLAIN, TRADES]
    tables.publish(TRADES, [trades(0, 1000)])
    tables.pinned.clear()
    travelled = [Pin.from_json(pin.to_json()) for pin in first.pins]
    again = engine.plan(Statement("select count(*) from trades"), OPTIONS, pins=travelled)
    assert tables.pinned == []
    assert engine.stream(again).read_all().to_pylist() == [{"count(*)": 350}]


def test_a_session_that_saw_more_is_not_answered_from_less(engine: Engine) -> None:
    """Rule 20."""
    ahead = {TRADES: Offsets({("t", 0): 99})}
    with pytest.raises(NotReady):
        engine.plan(Statement("select * from trades"), OPTIONS, at_least=ahead)
    engine.plan(Statement("select * from symbols"), OPTIONS, at_least=ahead)


def test_only_what_is_read_is_opened(engine: Engine, tables: FolderTables) -> None:
    sql(engine, "select count(*) from symbols")
    sql(engine, 'select count(*) from "trades$runs"')
    sql(engine, 'select count(*) from "trades$live"')
    sql(engine, "select count(*) from trades")
    sql(engine, "select count(*) from trades where false")
    assert tables.opened == [
        (PLAIN, "hybrid"),
        (TRADES, "runs"),
        (TRADES, "split"),
        (TRADES, "hybrid"),
    ]


def test_names_that_are_missing_come_with_their_neighbours(engine: Engine) -> None:
    with pytest.raises(NotFound, match=r"no table market_data\.trade; .*market_data\.trades"):
        sql(engine, "select * from trade")
    with pytest.raises(NotFound, match=r"no table other\.trades; .*market_data\.trades"):
        sql(engine, "select * from other.trades")
    with pytest.raises(NotFound, match=r"no table system\.querys; .*system\.queries"):
        sql(engine, "select * from system.querys")
    with pytest.raises(NotFound, match=r"no column prise; .*trades\.price"):
        sql(engine, "select prise from trades")
    with pytest.raises(NotFound, match=r"first_value\(x ORDER BY t DESC"):
        sql(engine, "select max_by(price, timestamp) from trades")
    with pytest.raises(NotFound, match="no function fliptable"):
        sql(engine, "select fliptable(price) from trades")


def test_a_table_that_is_not_ready_says_so(engine: Engine, tables: FolderTables) -> None:
    tables.unready.add(TRADES)
    with pytest.raises(NotReady):
        sql(engine, "select * from trades")
    assert one(engine, "select count(*) from symbols") == 4
    listed = sql(engine, "select table_name from information_schema.tables")
    assert "trades" in listed.column(0).to_pylist()


def test_information_schema_shows_all_tables_and_pins_none(
    engine: Engine, tables: FolderTables
) -> None:
    listed = sql(
        engine,
        "select table_catalog, table_schema, table_name from information_schema.tables "
        "where table_schema <> 'information_schema' order by 1, 2, 3",
    )
    assert [tuple(row.values()) for row in listed.to_pylist()] == [
        ("lake", "market_data", "symbols"),
        ("lake", "market_data", "trades"),
        ("lake", "system", "queries"),
    ]
    columns = sql(
        engine,
        "select column_name from information_schema.columns where table_name = 'trades' "
        "order by ordinal_position",
    )
    assert columns.column(0).to_pylist() == TRADES_SCHEMA.names
    assert tables.pinned == []
    assert tables.opened == []
    assert "trades" in sql(engine, "show tables").column("table_name").to_pylist()
    assert sql(engine, "describe trades").num_rows == len(TRADES_SCHEMA)


def test_information_schema_next_to_a_table(engine: Engine) -> None:
    text = """select (select count(*) from trades) as n, (
                  select count(*) from information_schema.tables
                  where table_name = 'trades') as m"""
    assert sql(engine, text).to_pylist() == [{"n": 350, "m": 1}]


def test_tables_are_listed_with_their_columns(engine: Engine, tables: FolderTables) -> None:
    listed = engine.list_tables()
    assert [(t.catalog, t.schema, t.name, t.type) for t in listed] == [
        ("lake", "market_data", "symbols", "BASE TABLE"),
        ("lake", "market_data", "trades", "BASE TABLE"),
        ("lake", "system", "queries", "BASE TABLE"),
    ]
    assert listed[1].columns() == TRADES_SCHEMA
    assert tables.pinned == []


def test_many_statements_at_once_do_not_mix_their_names(
    engine: Engine, tables: FolderTables
) -> None:
    """Contexts are shared; the names in them belong to the asking thread alone."""
    other = FolderTables(tables.folder / "other")
    other.publish(TRADES, [trades(0, 7)])
    second = Engine(other, other, Limits())
    wrong: list[object] = []

    def ask(which: Engine, expected: int) -> None:
        for _ in range(30):
            got = which.stream(which.plan(Statement("select count(*) from trades"), OPTIONS))
            if (rows := got.read_all().column(0)[0].as_py()) != expected:
                wrong.append(rows)

    pairs = [(engine, 350), (second, 7), (engine, 350), (second, 7)]
    threads = [threading.Thread(target=ask, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()
    assert wrong == []


# Planning executes nothing


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) from trades where price > 150",
        "select * from trades a join symbols b on a.symbol = b.symbol order by price limit 5",
        "explain select * from trades",
        "explain analyze select sum(price) from trades",
        "select (select max(price) from trades), 1 / 0 as never",
    ],
)
def test_planning_opens_no_data_file_and_executes_nothing(
    engine: Engine, tables: FolderTables, text: str
) -> None:
    """GetFlightInfo plans and never executes: every data file is gone, and it still plans."""
    for kept in tables.now.values():
        for path, _ in kept.files:
            path.unlink()
    plan = engine.plan(Statement(text), OPTIONS)
    assert tables.opened == []
    with pytest.raises((FileMissing, InvalidArgument)):
        engine.stream(plan).read_all()


def test_the_files_that_are_gone_are_never_an_empty_answer(
    engine: Engine, tables: FolderTables
) -> None:
    """Rule 18, also where the first rows would have come from another file."""
    tables.now[TRADES].files[0][0].unlink()
    for text in (
        "select count(*), sum(_offset) from trades",
        "select * from trades",
        "explain select * from trades",
    ):
        with pytest.raises(FileMissing):
            sql(engine, text)
    assert one(engine, "select count(*) from trades where price > 250") == 99
    assert one(engine, 'select count(*) from "trades$live"') == 50


# Schemas and batches


TYPES = """
    select symbol, price, quantity, timestamp, conditions, vendor, ratio, _partition,
           symbol || 'x' as text, count(*) over () as n, price * 2 as double_price,
           arrow_cast(symbol, 'Dictionary(Int32, Utf8)') as dictionary,
           arrow_cast(symbol, 'LargeUtf8') as large, arrow_cast(symbol, 'Utf8View') as view,
           named_struct('a', symbol, 'b', [symbol]) as nested, null as nothing,
           date '2024-01-01' as day
    from trades
"""


def test_the_stream_has_exactly_the_planned_schema(engine: Engine) -> None:
    plan = engine.plan(Statement(TYPES), OPTIONS)
    with engine.stream(plan) as stream:
        assert stream.schema == plan.schema
        batches = list(stream)
    assert sum(batch.num_rows for batch in batches) == 350
    for batch in batches:
        assert batch.schema.equals(plan.schema, check_metadata=True)
        batch.validate(full=True)
    flat = " ".join(str(field.type) for field in plan.schema)
    assert not re.search(r"view|large|dictionary|run_end", flat)
    assert not plan.schema.field("symbol").nullable
    assert plan.schema.field("quantity").nullable


@pytest.mark.parametrize(
    "text", [TYPES + " limit 0", TYPES + " where false", TYPES + " where price < 0"]
)
def test_an_empty_answer_keeps_its_schema(engine: Engine, text: str) -> None:
    plan = engine.plan(Statement(text), OPTIONS)
    result = engine.stream(plan).read_all()
    assert (result.num_rows, result.schema) == (0, plan.schema)


def test_batches_stay_small(tables: FolderTables) -> None:
    engine = Engine(tables, tables, Limits(batch_bytes=1000))
    plan = engine.plan(Statement("select *, repeat('x', 5000) as wide from trades"), OPTIONS)
    batches = list(engine.stream(plan))
    assert all(batch.num_rows == 1 for batch in batches)
    plan = engine.plan(Statement("select _offset from trades order by 1"), OPTIONS)
    batches = list(engine.stream(plan))
    assert max(batch.nbytes for batch in batches) <= 1000
    rows = [n for batch in batches for n in batch.column(0).to_pylist()]
    assert rows == list(range(350))
    engine.close()


# Parameters


def test_parameters_are_inferred_and_bound(engine: Engine) -> None:
    text = "select count(*) from trades where price > ? and symbol = ? and timestamp >= ?"
    plan = engine.plan(Statement(text), OPTIONS)
    assert plan.parameter_schema == pa.schema(
        [
            ("$1", pa.decimal128(18, 8)),
            ("$2", pa.string()),
            ("$3", pa.timestamp("us", tz="UTC")),
        ]
    )
    since = datetime(2024, 3, 1, 0, 2, tzinfo=UTC)
    assert one(engine, text, Decimal(199), "AAA", since) == 38
    assert one(engine, text, 199, "AAA", "2024-03-01T00:02:00Z") == 38
    assert one(engine, text, 199.5, "AAA", since) == 38
    assert one(engine, text, None, "AAA", since) == 0


def test_parameters_without_a_type_do_not_shift_the_others(engine: Engine) -> None:
    text = """select $2 as a, price from trades
              where price < $3 and note is not distinct from $1 limit $4"""
    plan = engine.plan(Statement(text), OPTIONS)
    assert plan.parameter_schema == pa.schema(
        [("$1", pa.string()), ("$2", pa.null()), ("$3", pa.decimal128(18, 8)), ("$4", pa.null())]
    )
    result = sql(engine, text, None, "hello", 10, 3)
    assert result.column("a").to_pylist() == ["hello"] * 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cast(? as int)", [pa.int32()]),
        ("try_cast($1 as decimal(10, 2)) as a, $1 as b", [pa.decimal128(10, 2)]),
        ("cast(? as array<int>), ?::varchar", [pa.list_(pa.int32()), pa.string()]),
        ("?::decimal(10, 2) + 1, (?::date)", [pa.decimal128(10, 2), pa.date32()]),
        ("cast(cast(? as varchar) as int)", [pa.string()]),
        ("cast(? as timestamp)", [pa.timestamp("ms")]),
        ("cast(? as timestamp with time zone)", [pa.timestamp("ms", "UTC")]),
        ("cast(? as time)", [pa.time32("ms")]),
        ("?::int[]", [pa.null()]),
        ("?::timestamp with time zone", [pa.null()]),
        ("?, cast(1 as int)", [pa.null()]),
        ("coalesce(?, 'cast(? as int)')", [pa.null()]),
    ],
)
def test_a_cast_says_the_type_of_a_parameter_that_nothing_else_says(
    engine: Engine, text: str, told: list[pa.DataType]
) -> None:
    """Clients are told; values are bound as they come, and the cast makes of them what it can."""
    plan = engine.plan(Statement(f"select {text}"), OPTIONS)
    assert plan.described.types == told
    assert plan.parameter_schema.types == [pa.null()] * len(told)
    names = [f"${i + 1}" for i in range(len(told))]
    assert plan.described.names == names


def test_what_is_inferred_goes_before_a_cast(engine: Engine) -> None:
    plan = engine.plan(Statement("select cast($1 as int) from trades where price > $1"), OPTIONS)
    assert plan.described.types == plan.parameter_schema.types == [pa.decimal128(18, 8)]


def test_a_cast_parameter_takes_whatever_the_cast_takes(engine: Engine) -> None:
    moment = datetime(2024, 3, 1, 12, 30, 15, 123456)  # noqa: DTZ001 - without a zone is the case
    for value in (moment, "2024-03-01T12:30:15.123456", "2024-03-01 12:30:15.123456"):
        assert one(engine, "select cast(cast(? as timestamp) as varchar)", value) == (
            "2024-03-01T12:30:15.123456"
        )
    assert one(engine, "select cast(? as int)", "17") == 17
    assert one(engine, "select cast(? as int)", None) is None


def test_one_number_may_be_used_twice_and_values_are_never_text(engine: Engine) -> None:
    text = "select $1 as a, $1 || '!' as b, count(*) as n from trades where symbol <> $1"
    hostile = "x' or '1'='1"
    assert sql(engine, text, hostile).to_pylist() == [{"a": hostile, "b": hostile + "!", "n": 350}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "parameter"),
        ((1,), "2 parameters, 1 are bound"),
        ((1, "a", 2), "2 parameters, 3 are bound"),
        (("many", "AAA"), r"parameter \$1 is of type decimal"),
        ((1, datetime(2024, 1, 1, tzinfo=UTC)), ""),
    ],
)
def test_wrong_parameters_are_named(
    engine: Engine, values: tuple[object, ...], message: str
) -> None:
    text = "select count(*) from trades where price > ? and symbol = ?"
    if not message:
        assert one(engine, text, *values) == 0
        return
    with pytest.raises(InvalidArgument, match=message):
        sql(engine, text, *values)


def test_several_sets_of_parameters_are_one_answer(engine: Engine) -> None:
    """Each set sees the same version; its rows follow those of the set before."""
    text = "select ? as k, count(*) as n from trades where symbol = ? and _offset < ?"
    sets = pa.record_batch(
        {"k": ["a", "b", "c"], "s": ["AAA", "BBB", "zzz"], "o": pa.array([100, 320, 5])}
    )
    plan = engine.plan(Statement(text, sets), OPTIONS)
    result = engine.stream(plan).read_all()
    assert result.schema == plan.schema
    assert result.to_pydict() == {"k": ["a", "b", "c"], "n": [25, 80, 0]}
    with pytest.raises(InvalidArgument, match="0 sets"):
        engine.plan(Statement(text, sets.slice(0, 0)), OPTIONS)


def test_a_statement_of_which_only_a_later_set_reads_the_table(engine: Engine) -> None:
    sets = pa.record_batch({"go": [False, True]})
    plan = engine.plan(Statement("select count(*) from trades where ?", sets), OPTIONS)
    assert engine.stream(plan).read_all().column(0).to_pylist() == [0, 350]


# Defaults


def test_decimals_and_times_are_what_they_look_like(engine: Engine) -> None:
    assert one(engine, "select 0.1 + 0.2") == Decimal("0.3")
    assert one(engine, "select 0.1 + 0.2 = 0.3") is True
    assert one(engine, "select 1e0 / 4") == 0.25
    assert sql(engine, "select 1.5e3").schema.field(0).type == pa.float64()
    assert one(engine, "select arrow_typeof(now())") == 'Timestamp(ns, "UTC")'
    assert one(engine, "select count(*) from trades where timestamp >= '2024-03-01 00:05:00'") == 50
    berlin = Options(schema="market_data", time_zone="Europe/Berlin")
    text = "select count(*) from trades where timestamp >= timestamptz '2024-03-01 01:05:00'"
    assert sql(engine, text, options=berlin).column(0).to_pylist() == [50]
    with pytest.raises(InvalidArgument, match="time zone"):
        sql(engine, "select 1", options=Options(time_zone="Mars/Olympus"))


def test_overflow_names_the_cast_that_helps(engine: Engine) -> None:
    text = "select sum(p * p * p) from (select price * 1000000000 as p from trades)"
    scaled = "select price * price * price * price * price from trades"
    for wrong in (text, scaled):
        with pytest.raises(InvalidArgument, match=r"cast an operand to double.*decimal") as refused:
            sql(engine, wrong)
        assert "DataFusion" not in str(refused.value)
    helped = "select sum(cast(price as double) * cast(quantity as double)) from trades"
    exact = "select sum(price * cast(quantity as decimal(20, 4))) from trades"
    assert float(one(engine, exact)) == pytest.approx(one(engine, helped))  # type: ignore[arg-type]
    wide = "select count(*) from (values (cast(1e17 as double))) v (f) where f > 1.5"
    with pytest.raises(InvalidArgument, match=r"1\.5e0"):
        sql(engine, wide)
    assert one(engine, wide.replace("> 1.5", "> 1.5e0")) == 1


def at_time(when: datetime) -> pa.Table:
    """Ten rows that all carry one event time."""
    times = pa.array([when] * 10, pa.timestamp("us", "UTC"))
    return trades(0, 10).set_column(3, TRADES_SCHEMA.field(3), times)


def test_filters_with_now_prune(engine: Engine) -> None:
    """At most one file is read for nothing: the one that shows the filters of the moment."""
    recent = "select count(*) from trades where timestamp > now() - interval '1 hour'"
    shown = sql(engine, f"explain {recent}").column(1).to_pylist()
    assert any("1 of 3 files kept" in line for line in shown)
    assert one(engine, recent) == 0


@pytest.mark.parametrize("files", [1, 3])
def test_now_prunes_nothing_that_the_moment_of_execution_needs(
    engine: Engine, tables: FolderTables, files: int
) -> None:
    """``now()`` moves between plan and stream: rows from between the two moments count."""
    old = [at_time(datetime(2024, 1, 1, tzinfo=UTC)) for _ in range(files - 1)]
    tables.publish(TRADES, [*old, at_time(datetime.now(UTC) + timedelta(seconds=1.5))])
    plan = engine.plan(Statement("select count(*) from trades where timestamp < now()"), OPTIONS)
    assert engine.stream(plan).read_all().column(0).to_pylist() == [10 * len(old)]
    while datetime.now(UTC) < tables.now[TRADES].files[-1][1]["timestamp"][0].as_py():
        time.sleep(0.05)
    assert engine.stream(plan).read_all().column(0).to_pylist() == [10 * files]


# EXPLAIN


def test_explain_shows_version_and_files_and_no_path(engine: Engine, tables: FolderTables) -> None:
    query = "select * from trades where price between 150 and 180"
    for text in (f"explain {query}", f"explain analyze {query}", f"explain verbose {query}"):
        lines = sql(engine, text).to_pylist()
        shown = "\n".join(line["plan"] for line in lines)
        assert [line["plan_type"] for line in lines[:2]] == ["version", "files"]
        assert "market_data.trades: hybrid, snapshot 1; t[0] committed 0 high 1" in shown
        assert "1 of 3 files kept (100 rows), 2 pruned, 50 live rows" in shown
        assert str(tables.folder) not in shown
        assert str(tables.folder).removeprefix("/") not in shown
        assert "v1-1.parquet" in shown


@pytest.mark.parametrize(
    ("text", "scans"),
    [
        ("select symbol, sum(price) as s from trades group by symbol order by symbol", 7),
        ("select * from trades order by timestamp desc limit 1000", 1),
        ("select _offset from trades order by _offset", 1),
    ],
)
def test_many_local_files_are_several_scans_where_every_row_counts(
    engine: Engine, tables: FolderTables, text: str, scans: int
) -> None:
    """Few threads read then, and keep memory; who sorts rows would keep more."""
    parts = [trades(10 * i, 10) for i in range(40)]
    tables.publish(TRADES, parts)
    shown = "\n".join(sql(engine, f"explain {text}").column(1).to_pylist())
    assert shown.count("DataSourceExec") == scans
    several = sql(engine, text)
    tables.publish(TRADES, [pa.concat_tables(parts)])
    assert sql(engine, text).equals(several)


def test_explain_shows_files_outside_the_table_by_their_name_alone(
    engine: Engine, tables: FolderTables
) -> None:
    elsewhere = tables.folder.parent / "else where"
    elsewhere.mkdir()
    kept = tables.now[TRADES]
    path, table = kept.files[0]
    kept.files[0] = (path.rename(elsewhere / "moved.parquet"), table)
    shown = "\n".join(sql(engine, "explain select * from trades").column(1).to_pylist())
    assert "moved.parquet" in shown
    assert "else where" not in shown
    assert str(tables.folder.parent).strip("/") not in shown


@pytest.mark.parametrize("text", ["a", "/", "a/", ", ", "[", "x.parquet/", "a b/c.parquet, "])
def test_long_texts_are_shown_in_time_that_grows_as_they_do(engine: Engine, text: str) -> None:
    """In plans and in errors: a quadratic pattern holds Python's lock for hours here."""
    values = pa.record_batch([pa.array([(text * 2**18)[: 2**18]])], names=["1"])
    plan = engine.plan(
        Statement("explain select 1 from trades where symbol <> $1", values), OPTIONS
    )
    assert "…" in str(engine.stream(plan).read_all()) or "x.parquet" not in text
    statement = Statement("select cast($1 as bigint) from trades", values)
    with pytest.raises(FlightSqlError) as failed:
        engine.stream(engine.plan(statement, OPTIONS)).read_all()
    assert len(str(failed.value)) < 2_000


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ("groups=[[/a b/c, d/1.parquet:0..5, /a b/c, d/2.parquet]]", "[[…/1.parquet:0..5, …/2.par"),
        ("groups=[[./v1/1.parquet, s3://b/e/2.parquet], [f/3.parquet]]", "[[./v1/1.parquet, …/2.p"),
        ("of /a/1.parquet and (s3://a/b/2.parquet)", "of …/1.parquet and (…/2.parquet)"),
        ("x=1, y=2\n read /a/1.parquet.parquet", "x=1, y=2\n read …/1.parquet.parquet"),
        ("no file", "no file"),
        (".parquet /a.parquet", ".parquet …/a.parquet"),
    ],
)
def test_folders_are_hidden_wherever_files_are_shown(shown: str, wanted: str) -> None:
    assert wanted in without_paths(shown, [])


def test_the_parsers_own_place_is_the_last_one_that_it_names(engine: Engine) -> None:
    """A token that the message quotes may look like one, and be far away."""
    for place in ("999999999", "9" * 5000, "1"):
        with pytest.raises(SyntaxRefused, match=r"line 1, column 34: .*'x at Line: ") as failed:
            sql(engine, f"select * from (values (1)) t     'x at Line: {place}, Column: 1'")
        assert "expected" in str(failed.value)


def test_long_names_are_not_compared(engine: Engine) -> None:
    """What is alike costs time with the third power of its length."""
    name = "".join(chr(200 + n * n % 139) for n in range(6_000))
    other = name[::2] + name[1::2]
    with pytest.raises(NotFound, match="there is no column"):
        sql(engine, f'select "{other}" from (select 1 as "{name}") t')


def test_long_chains_are_judged(engine: Engine) -> None:
    """Longer than Python may call itself; beside a text, at each of its parts."""
    chain = " or ".join(f"_offset = {n}" for n in range(480))
    inner = "(select t.quantity from trades t)"
    text = f"select count(*) from trades where ({chain}) and quantity in {inner}"
    assert sql(engine, text).num_rows == 1
    total = " + ".join(["_offset"] * 450)
    text = " IN ([" * 5_000
    assert sql(engine, f"select max(length('{text}') + {total}) as n from trades").num_rows == 1


def test_what_would_be_planned_for_long_is_refused(engine: Engine) -> None:
    tables = ",".join(f"trades t{n}" for n in range(1_000))
    with pytest.raises(ResourceExhausted, match="joins 1000 tables, the limit is 151"):
        sql(engine, f"select 1 from {tables}")
    lists = " or ".join(f"_offset = {n} and ratio in (0e0, 1e0, 2e0, 3e0)" for n in range(100))
    with pytest.raises(Unimplemented, match="more than 32 lists"):
        sql(engine, f"select 1 from trades where {lists}")
    values = pa.record_batch([pa.array(["x" * 2**20])], names=["1"])
    shown = ", ".join(f"$1 as c{n}" for n in range(100))
    with pytest.raises(ResourceExhausted, match="each counted wherever it stands"):
        engine.plan(Statement(f"select {shown}", values), OPTIONS)
    with pytest.raises(ResourceExhausted, match="the statement makes values of"):
        sql(engine, f"select repeat('x', {'9' * 5000})")


def test_many_parameters_without_a_type_are_bound(engine: Engine) -> None:
    shown = ", ".join(f"$1 as a{n}, ${n} as b{n}" for n in range(1, 400))
    values = pa.record_batch(
        [pa.array([n]) for n in range(1, 400)], [str(n) for n in range(1, 400)]
    )
    answer = engine.stream(engine.plan(Statement(f"select {shown}", values), OPTIONS)).read_all()
    assert answer["b399"].to_pylist() == [399]


# Limits


def test_a_join_without_an_equality_is_bounded(tables: FolderTables) -> None:
    engine = Engine(tables, tables, Limits(max_product_rows=10_000))
    runs = '"trades$runs" a, "trades$runs"'
    for text in (
        "select sum(a.price) from trades a, trades b",
        f"select sum(a.price) from {runs} b where a.symbol <> 'statistics=[Rows=Exact(1)'",
        f"select sum(a.price) from {runs} b where a.symbol <> 'fetch=1'",
        f"select sum(a.price) from {runs} b on a.symbol || b.symbol <> '\nAExec'".replace(
            ", ", " join "
        ),
        "select count(*) from trades a join trades b on a.price < b.price",
        "select price from trades a where exists (select 1 from trades b where b.price < a.price)",
        "select sum(a.value * b.value) from generate_series(1, 1000) a, generate_series(1, 1000) b",
        "explain analyze select sum(a.price) from trades a, trades b",
    ):
        plan = engine.plan(Statement(text), OPTIONS)
        with pytest.raises(ResourceExhausted, match=r"limits\.max_product_rows"):
            engine.stream(plan)
    for text, rows in (
        ("select count(a.price) from trades a, symbols b", 1400),
        ("select count(a.price) from \"trades$runs\" a, symbols b where a.symbol <> '\n'", 1200),
        ("select count(a.price) from trades a, (select max(price) p from trades) b", 350),
        ("select count(*) from trades a join trades b on a._offset = b._offset + 1", 349),
        ("select count(a.price) from trades a, (select * from trades limit 10) b", 3500),
        ("select count(*) from generate_series(1, 100) a, generate_series(1, 100) b", 10000),
    ):
        answer = engine.stream(engine.plan(Statement(text), OPTIONS)).read_all()
        assert answer.column(0).to_pylist() == [rows]
    engine.close()


BIG_SORT = "select value v, random() r from generate_series(1, 3000000) order by r"
BIG_JOIN = """select count(a.value + b.value) from generate_series(1, 4000000) a
              join generate_series(1, 4000000) b on a.value = b.value"""


def test_memory_is_bounded_and_sorts_spill(tables: FolderTables, tmp_path: Path) -> None:
    """A sort of 48 MB goes through a pool of 40 MB; a hash join, which cannot spill, is refused."""
    limits = Limits(memory_bytes=40 * 1024**2, spill_folder=tmp_path / "spill")
    engine = Engine(tables, tables, limits)
    plan = engine.plan(Statement(BIG_SORT), OPTIONS)
    assert sum(batch.num_rows for batch in engine.stream(plan)) == 3_000_000
    with pytest.raises(ResourceExhausted, match=r"limits\.memory_bytes") as refused:
        engine.stream(engine.plan(Statement(BIG_JOIN), OPTIONS)).read_all()
    assert str(tmp_path) not in str(refused.value)
    engine.close()


def test_many_cores_do_not_divide_a_small_pool_until_sorts_fail(
    tables: FolderTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "usable_cores", lambda: 16)
    limits = Limits(memory_bytes=40 * 1024**2, spill_folder=tmp_path / "spill")
    engine = Engine(tables, tables, limits)
    stream = engine.stream(engine.plan(Statement(BIG_SORT), OPTIONS))
    assert sum(batch.num_rows for batch in stream) == 3_000_000
    engine.close()


def test_spilling_is_bounded(tables: FolderTables, tmp_path: Path) -> None:
    limits = Limits(memory_bytes=40 * 1024**2, spill_bytes=1024**2, spill_folder=tmp_path / "spill")
    engine = Engine(tables, tables, limits)
    with pytest.raises(ResourceExhausted, match=r"limits\.spill_bytes") as refused:
        engine.stream(engine.plan(Statement(BIG_SORT), OPTIONS)).read_all()
    assert str(tmp_path) not in str(refused.value)
    engine.close()


ENDLESS = "select sum(value) from generate_series(1, 100000000000000)"


def test_a_statement_ends_at_its_deadline(engine: Engine) -> None:
    plan = engine.plan(Statement(ENDLESS), OPTIONS)
    with pytest.raises(DeadlineExceeded, match=r"limits\.statement_timeout_s"):
        engine.stream(plan, deadline=Deadline.after(0.3)).read_all()
    short = engine.plan(Statement(ENDLESS), Options(timeout_s=0.3))
    with pytest.raises(DeadlineExceeded):
        engine.stream(short).read_all()


def test_a_statement_is_cancelled_from_another_thread(engine: Engine) -> None:
    stream = engine.stream(engine.plan(Statement(ENDLESS), OPTIONS))
    timer = threading.Timer(0.2, stream.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        list(stream)
    timer.join()
    stream.cancel()
    stream.close()
    with pytest.raises((Cancelled, StopIteration)):
        next(iter(stream))


def test_slots_are_given_back_however_a_statement_ends(tables: FolderTables) -> None:
    engine = Engine(tables, tables, Limits(concurrency=1, queue_wait_s=0.01))
    plan = engine.plan(Statement("select * from trades"), OPTIONS)
    open_stream = engine.stream(plan)
    with pytest.raises(Overloaded):
        engine.stream(plan)
    open_stream.close()
    open_stream.close()
    for _ in range(3):
        next(iter(engine.stream(plan)))
        broken = engine.plan(Statement("select 1 / (_offset - 5) from trades"), OPTIONS)
        with pytest.raises(InvalidArgument, match=r"[Dd]ivide by zero"):
            engine.stream(broken).read_all()
        assert engine.stream(plan).read_all().num_rows == 350
    assert engine.admission.running == 0
    engine.close()


def test_rows_are_counted_for_the_log(engine: Engine) -> None:
    stream = engine.stream(
        engine.plan(Statement("select * from trades where price > 150"), OPTIONS)
    )
    result = stream.read_all()
    assert stream.rows == result.num_rows == 199
    assert stream.bytes > 0
    report = stream.reports["market_data", "trades"]
    assert (report.files, report.kept, report.live_rows) == (3, 2, 50)


# Hostile and wrong statements


HOSTILE = [
    ("copy (select 1) to '{}/x.csv'", Unimplemented),
    ("create external table x stored as csv location '/etc/passwd'", Unimplemented),
    ("create table x as select 1", Unimplemented),
    ("with x as (select 1) insert into trades select * from x", Unimplemented),
    ("select * into x from trades", Unimplemented),
    ('insert into "trades$live" select * from trades', Unimplemented),
    ("delete from trades", Unimplemented),
    ("update trades set price = 1", Unimplemented),
    ("set datafusion.execution.batch_size = 1", Unimplemented),
    ("explain create table x as select 1", Unimplemented),
    ("select * from '/etc/passwd'", NotFound),
    ('select * from "/etc/passwd"', NotFound),
    ("select * from 'file:///etc/passwd'", NotFound),
    ("select * from read_csv('/etc/passwd')", FlightSqlError),
    ("select * from read_parquet('/etc/passwd')", FlightSqlError),
    ("select * from parquet_metadata('/etc/passwd')", FlightSqlError),
    ("select * from trades tablesample (1)", Unimplemented),
    ("select repeat('x', 2000000000)", ResourceExhausted),
    ("select " + "1+" * 20000 + "1", ResourceExhausted),
    ("select 1; drop table trades", InvalidArgument),
    ("select * from trades for version as of 1 + 1", FlightSqlError),
    ("select @@version", InvalidArgument),
    ("show all", FlightSqlError),
]


@pytest.mark.parametrize(("text", "kind"), HOSTILE)
def test_hostile_statements_get_a_typed_error(
    engine: Engine, tmp_path: Path, text: str, kind: type[FlightSqlError]
) -> None:
    text = text.format(tmp_path) if "{}" in text else text
    if text == "show all":
        settings = sql(engine, text).to_pydict()
        assert str(tmp_path) not in str(settings)
        return
    with pytest.raises(kind) as refused:
        sql(engine, text)
    message = str(refused.value)
    assert len(message) < 1000
    assert "Traceback" not in message
    assert "DataFusion" not in message
    assert not (tmp_path / "x.csv").exists()
    assert one(engine, "select count(*) from trades") == 350


@pytest.mark.parametrize(
    ("text", "place", "caret"),
    [
        ("selec 1", "line 1, column 1", 2),
        ("select 1\nfrom from from", "line 2, column 11", 12),
        ("select ?, ?, 1 1 1", "line 1, column 16", 17),
        ("select * from trades where\n  price > ? )", "line 2, column 13", 14),
        ("select 1e5, 2e5, 3 3 3", "line 1, column 20", 21),
    ],
)
def test_syntax_errors_show_the_place_in_the_text_as_it_was_sent(
    engine: Engine, text: str, place: str, caret: int
) -> None:
    with pytest.raises(SyntaxRefused, match=place) as refused:
        sql(engine, text)
    assert str(refused.value).splitlines()[-1] == " " * caret + "^"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select sum(symbol) from trades", "sum"),
        ("select price from trades group by symbol", "GROUP BY"),
        ("select cast(symbol as int) from trades", "Cannot cast string 'AAA'"),
        ("select 1 / 0", "[Dd]ivide by zero"),
        ("select (select price from trades)", "more than one row"),
        ("select price from trades limit -1", "LIMIT"),
        ("select date '2024-13-45'", "2024-13-45"),
        ("select count(*) from trades where symbol ~ '(a'", "regex"),
        ("select 1 union select 1, 2", "UNION"),
        ("select a.price from trades a join trades b on true where symbol = 'x'", "mbiguous"),
    ],
)
def test_mistakes_are_the_statements_fault(engine: Engine, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        sql(engine, text)
    assert "Error during planning" not in str(refused.value)


def test_a_table_function_that_reads_files_does_not_exist(engine: Engine) -> None:
    with pytest.raises(NotFound, match="table functions are generate_series, range"):
        sql(engine, "select * from read_parquet('/etc/passwd')")


def test_a_defect_in_a_table_source_is_internal_and_says_nothing(
    engine: Engine, tables: FolderTables
) -> None:
    def broken(*_: object, **__: object) -> Pin:
        raise RuntimeError("secret /path/to/things")

    tables.pin = broken  # type: ignore[method-assign]
    with pytest.raises(FlightSqlError) as refused:
        sql(engine, "select * from trades")
    assert refused.value.code == "INTERNAL"
    assert "secret" not in str(refused.value)
