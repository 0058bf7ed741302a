"""What the engine gets wrong by itself is answered right: each claim is red without its caution.

The differential campaign (``tests/differential``) found them; these are the smallest statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from support_engine import FEW, FolderTables, trades, trades_and_few

from catalog.mapped import map_segment
from catalog.records import Range
from catalog.segments import LiveWriter
from catalog.spec import TableName
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import Unimplemented


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Late trades: offsets 1000 to 1009."""
    folder = tmp_path_factory.mktemp("cautions")
    with trades_and_few(folder, late=trades(1000, 10)) as made:
        yield made


def ask(engine: Engine, text: str, values: pa.RecordBatch | None = None) -> pa.Table:
    plan = engine.plan(Statement(text, values), Options(schema="market_data"))
    answer = engine.stream(plan).read_all()
    assert answer.schema.equals(plan.schema)
    return answer


def test_a_filter_above_a_right_join_keeps_to_its_columns(engine: Engine) -> None:
    """It names the same column of both sides; one side alone cannot decide it."""
    answer = ask(
        engine,
        "select f._offset as n from trades t right join few f on t._offset = f._offset + 3"
        " where (t.quantity + f.quantity) is null order by 1",
    )
    assert answer["n"].to_pylist() == [n for n in range(40) if n % 10 == 0 or (n + 3) % 10 == 0]


def test_what_a_join_learns_is_not_said_of_another_column(engine: Engine) -> None:
    """A join's filter on the second of two columns of one name, below an aggregate."""
    answer = ask(
        engine,
        """
        select f._offset as n, p.mine from few f join (
          select a._offset as mine, b._offset as other
          from trades a left join trades b on a._offset = b._offset + 250
          group by a._offset, b._offset
        ) p on f._offset = p.other where f._offset < 10 order by 1
        """,
    )
    assert answer.to_pylist() == [{"n": n, "mine": n + 250} for n in range(10)]


@pytest.mark.parametrize("never", ["false", "cast(null as boolean)", "1 = 2"])
def test_nulls_for_a_side_without_rows_are_not_taken_for_the_other_side(
    engine: Engine, never: str
) -> None:
    """What the join by EXISTS learns of a column is not said of the nulls of that name."""
    text = (
        f'select o.price from "trades$runs" t left join "few$runs" o on {never} where'
        " t.symbol > 'A' and exists"
        ' (select 1 from "few$runs" f where f.price = t.price and f.quantity is not null)'
    )
    assert ask(engine, text)["price"].to_pylist() == [None] * 18
    assert ask(engine, f"select (select count(*) from ({text})) as n")["n"].to_pylist() == [18]


@pytest.mark.parametrize("where", ["", "where t.price >= (select min(price) + 3 from few)"])
def test_the_first_rows_beside_nulls_of_the_same_name(engine: Engine, where: str) -> None:
    text = (
        'select t.price as p, o.price as q from "trades$runs" t left join few o on false'
        f" {where} order by t.price desc limit 3"
    )
    for _ in range(10):  # it depends on which file is read first
        assert ask(engine, text)["p"].to_pylist() == [299, 298, 297]


def test_a_right_join_with_a_condition_below_a_window_is_answered(engine: Engine) -> None:
    """A merge join, which the first claim is owed to, panics here."""
    answer = ask(
        engine,
        "select row_number() over (partition by t.symbol order by t._offset, f._offset) as n"
        " from trades t right join few f on t._offset = f._offset and f.quantity > 1",
    )
    assert answer.num_rows == 40


def test_distinct_truths_are_answered(engine: Engine) -> None:
    """They are never null, which the engine does not believe itself."""
    answer = ask(engine, "select distinct (quantity > 5) is true as big from trades order by 1")
    assert answer["big"].to_pylist() == [False, True]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("cast(1 as int)", "9223372036854775807", [1, 2**63 - 1]),
        ("cast(0.5 as real)", "cast('1e300' as double)", [0.5, 1e300]),
        ("cast(1.25 as decimal(9, 2))", "0.12345678", [Decimal("1.25"), Decimal("0.12345678")]),
        ("date '2024-03-01'", "timestamp '2024-03-01 12:00:00'", None),
    ],
)
def test_a_case_has_the_type_of_all_its_branches(
    engine: Engine, first: str, second: str, wanted: list[object] | None
) -> None:
    """The planned type is not the first branch's, into which the others do not fit."""
    answer = ask(
        engine,
        f"select case when _offset < 1 then {first} else {second} end as v from few"
        " where _offset < 2 order by _offset",
    )
    if wanted is not None:
        assert answer["v"].to_pylist() == wanted
    else:
        assert [value.hour for value in answer["v"].to_pylist()] == [0, 12]


def test_nothing_shows_under_a_null_struct_of_a_live_row(tmp_path: Path) -> None:
    """The engine reads a field without asking whether its struct is there."""
    place = pa.record_batch(
        {
            "r": pa.array([{"q": "a"}, None], pa.struct([pa.field("q", pa.string())])),
            "_topic": ["t", "t"],
            "_partition": pa.array([0, 0], pa.int32()),
            "_offset": [0, 1],
        }
    )
    assert place["r"].field("q").to_pylist() == ["a", ""]
    writer = LiveWriter(tmp_path, FEW, 0.0)
    segment = writer.write(place, (Range("t", 0, 0, 2),))
    assert map_segment(tmp_path, segment)["r"].field("q").to_pylist() == ["a", None]


def test_equal_nulls_stay_equal_among_joins(engine: Engine) -> None:
    """Offsets 0, 10, 20 and 30 have no quantity."""
    answer = ask(
        engine,
        "select count(*) as n from few a join few b on a.quantity is not distinct from b.quantity"
        " join few c on a._offset = 0 and c._offset < 3",
    )
    assert answer["n"].to_pylist() == [4 * 3]


def test_what_min_has_seen_hides_no_row_from_an_aggregate_beside_it(engine: Engine) -> None:
    """The first file has the least price, and the others count, too."""
    text = 'select min(price) as least, max(price + 1) as top from "trades$runs"'
    assert ask(engine, text).to_pylist() == [{"least": 0, "top": 300}]


@pytest.mark.parametrize("word", ["intersect", "except"])
def test_set_operations_that_count_are_refused(engine: Engine, word: str) -> None:
    """The engine would not count."""
    with pytest.raises(Unimplemented, match=f"{word.upper()} ALL"):
        ask(engine, f"select symbol from trades {word} all select symbol from few")


def test_a_filter_by_one_value_above_a_join_keeps_to_its_columns(engine: Engine) -> None:
    answer = ask(
        engine,
        "select f._offset as n from trades t join few f on t._offset = f._offset + 300 where"
        " t.quantity = f.quantity or t._offset = (select max(_offset) + 270 from few) order by 1",
    )
    rows = ask(engine, "select _offset as n, quantity as q from trades").to_pylist()
    held = {row["n"]: row["q"] for row in rows}
    wanted = [
        n for n in range(40) if n + 300 == 309 or (held[n] is not None and held[n] == held[n + 300])
    ]
    assert answer["n"].to_pylist() == wanted


@pytest.mark.parametrize(
    "joined",
    [
        "x join y on x.k is not distinct from y.k where x.d = y.d",
        "x join y on x.k is not distinct from y.k join (values (1)) z on x.d = y.d",
        "x join y on x.d = y.d join (values (1)) z on x.k is not distinct from y.k",
        "x join y on (x.k is not distinct from y.k) and x.d = y.d",
        "x join y on x.k is not distinct from y.k where not (x.d <> y.d)",
        "x join y on x.k is not distinct from y.k where not (x.d > y.d) and not (x.d < y.d)",
        "x join y on x.k is not distinct from y.k where not (x.d > y.d or x.d < y.d)",
        "x join y on x.k is not distinct from y.k where x.d >= y.d and y.d >= x.d",
        "x join y on x.k is not distinct from y.k where x.d between y.d and y.d",
        "x join y on x.k is not distinct from y.k where x.d in (y.d)",
        "x join y on x.k is not distinct from cast(y.k as int) where not (x.d <> cast(y.d as int))",
        "x join y on x.k is not distinct from 0 + y.k where x.d = y.d",
        "x join y on x.k is not distinct from y.k where x.d in (0 + y.d)",
        "x join y on x.k is not distinct from y.k where x.d >= 0 + y.d and x.d <= 0 + y.d",
        "x join y on not (x.k is distinct from y.k) where x.d = y.d",
        "x join y on x.k is not distinct from y.k where array_has([y.d], x.d)",
        "x join y on x.k is not distinct from y.k where x.d = any([y.d])",
        "x join y on x.d = y.d where not (x.k is distinct from y.k)",
        "x join y on x.d = y.d where (x.k is distinct from y.k) is not true",
        "x join y on x.d = y.d where (x.k is distinct from y.k) = false",
        "x, y where x.d = y.d and not (x.k is distinct from y.k)",
        "x join y on x.k is not distinct from try_cast(y.k as int) where x.d = y.d",
        "x join y on x.k is not distinct from y.k where not (x.d not in (y.d))",
        "x join y on (x.k is not distinct from y.k) and x.d <= y.d and x.d >= y.d",
    ],
)
def test_nulls_that_equal_in_one_key_equal_in_no_other(engine: Engine, joined: str) -> None:
    pairs = "(values (1, null), (null, 5), (1, null), (null, 6))"
    answer = ask(
        engine,
        f"with x as (select * from {pairs} as v(k, d)), y as (select * from {pairs} as v(k, d))"
        f" select x.k, x.d from {joined} order by 2",
    )
    assert answer.to_pylist() == [{"k": None, "d": 5}, {"k": None, "d": 6}]


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_the_first_groups_of_floats_may_be_nan(engine: Engine, way: str) -> None:
    numbers = "(values (2e0), (cast('NaN' as double)), (1e0), (cast('NaN' as double)), (3e0))"
    answer = ask(engine, f"select distinct x from {numbers} as v(x) order by x {way} limit 3")
    assert (
        repr(answer["x"].to_pylist()) == {"asc": "[1.0, 2.0, 3.0]", "desc": "[nan, 3.0, 2.0]"}[way]
    )


def test_a_right_join_that_no_way_of_joining_gets_right_is_refused(engine: Engine) -> None:
    joined = "on t._offset = f._offset + 3 and t.quantity <> f.price"
    where = "where (t.quantity + f.quantity) is null"
    with pytest.raises(Unimplemented, match="write b LEFT JOIN a"):
        ask(engine, f"select f._offset from trades t right join few f {joined} {where}")
    other = f"select f._offset as n from few f left join trades t {joined} {where} order by 1"
    assert ask(engine, other)["n"].to_pylist()


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) as n from {0} where {1} > date '2024-02-29' + interval '1' day",
        "select count(*) as n from {0} where cast(_kafka_timestamp as date) < {1}",
        """select count(distinct a._offset) as n from {0} a join few b
         on cast(b."timestamp" as date) < cast(a."timestamp" as date)
         where cast(a."timestamp" as date) > date '2024-02-29' + interval '1' day""",
    ],
)
@pytest.mark.parametrize(("rows", "wanted"), [("night", 500), ('"night$runs"', 400)])
def test_a_day_of_a_timestamp_beside_computed_days(
    over_midnight: Engine, text: str, rows: str, wanted: int
) -> None:
    """The engine takes the day's bounds for the timestamp's, and fails on its own estimate."""
    asked = text.format(rows, 'cast("timestamp" as date)')
    assert ask(over_midnight, asked)["n"].to_pylist() == [wanted]


def test_days_with_several_sets_of_parameters(over_midnight: Engine) -> None:
    text = (
        'select count(*) as n from "night$runs" where _offset >= $1'
        """ and cast("timestamp" as date) > date '2000-01-01' - interval '1' day"""
    )
    sets = pa.record_batch({"1": pa.array([86_000, 86_002], pa.int64())})
    plan = over_midnight.plan(Statement(text, parameters=sets), Options(schema="market_data"))
    assert over_midnight.stream(plan).read_all()["n"].to_pylist() == [800, 798]


@pytest.fixture
def over_midnight(tmp_path: Path) -> Iterator[Engine]:
    """Rows of a few minutes before midnight and a few after it."""
    kept = FolderTables(tmp_path)
    name = TableName("market_data", "night")
    kept.publish(name, [trades(86_000, 800)], trades(86_800, 100).to_batches())
    kept.publish(FEW, [trades(0, 20)], trades(20, 20).to_batches())
    made = Engine(kept, kept, Limits())
    yield made
    made.close()


def test_the_first_rows_of_a_join_are_judged_by_their_own_columns(engine: Engine) -> None:
    """Both have an offset, and those of the last ones are larger than any of the others'."""
    text = (
        "select t.ratio as r from trades t join late f on t.quantity = f.quantity"
        " order by t.note nulls first, f._offset desc, t._offset limit 8 offset 2"
    )
    wanted = [n / 2 for n in range(350) if n % 10 and n % 7 == 1009 % 7][2:10]
    for _ in range(20):  # it depends on which side is read first
        assert ask(engine, text)["r"].to_pylist() == wanted


def test_a_lateral_sub_query_that_nothing_fulfils_has_a_row(engine: Engine) -> None:
    """The engine finds out that it is empty before it has made a join of it."""
    answer = ask(
        engine,
        "select f._offset as n, q.least from few f cross join lateral"
        " (select min(t._offset) as least from trades t where t._offset = f._offset and 1 = 0) q"
        " order by 1",
    )
    assert answer["n"].to_pylist() == list(range(40))
    assert answer["least"].null_count == 40


def test_one_column_under_two_names_orders_the_parts_of_a_union(tmp_path: Path) -> None:
    """Each part is sorted by one of them, and the engine wants to merge by the other one."""
    inner = pa.struct([pa.field("q", pa.int64())])
    whole = [pa.field(name, pa.int64(), name != "id") for name in ("id", "m", "i", "z")]
    schema = pa.schema([*whole, pa.field("x", pa.float64()), pa.field("r", inner)])

    def rows(first: int) -> pa.Table:
        values = (
            {"id": n, "m": n % 7, "i": n, "z": n, "x": n / 2, "r": {"q": n}}
            for n in range(first, first + 20)
        )
        return pa.Table.from_pylist(list(values), schema)

    kept = FolderTables(tmp_path)
    kept.publish(TableName("market_data", "s"), [rows(0), rows(20)], rows(40).to_batches())
    with closing(Engine(kept, kept, Limits())) as engine:
        answer = ask(
            engine,
            "select case when 1 > 0 then m else m end as named,"
            " case when i > 1 then r['q'] else r['q'] end as q,"
            " case when x <> 3.5 then z else z end as last from s order by m desc, id",
        )
    assert answer["last"].to_pylist() == sorted(range(60), key=lambda n: (-(n % 7), n))


@pytest.mark.parametrize("rows", ["trades", '"trades$live"'])
def test_the_first_rows_of_a_union_are_those_of_all_its_parts(engine: Engine, rows: str) -> None:
    """The parts differ by a constant that is sorted by first."""
    text = (
        f"select a, b from (select 9 as a, quantity as b from {rows} union all"
        f" select 7 as a, null as b from {rows}) order by a desc, b nulls first limit 20"
    )
    for _ in range(40):  # it depends on which part is read first
        assert set(ask(engine, text)["a"].to_pylist()) == {9}


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ("count(*) over ()", 4),
        ("rank() over (order by symbol desc)", 4),
        ("sum(count(*)) over (order by symbol desc)", 350),
        ("lag(symbol) over (order by symbol desc)", "BBB"),
    ],
)
def test_a_window_sees_all_groups_though_only_the_first_are_shown(
    engine: Engine, shown: str, wanted: object
) -> None:
    text = f"select symbol, {shown} as w from trades group by symbol order by symbol limit 1"
    assert ask(engine, text).to_pylist() == [{"symbol": "AAA", "w": wanted}]
    assert ask(engine, f"select ({text.replace('symbol, ', '', 1)}) as w")["w"].to_pylist() == [
        wanted
    ]


def test_some_of_the_distinct_rows_of_a_window(engine: Engine) -> None:
    text = "select distinct symbol, count(*) over (partition by symbol) as n from trades limit 9"
    wanted = {"AAA": 88, "BBB": 88, "CCC": 87, "DDD": 87}
    assert {row["symbol"]: row["n"] for row in ask(engine, text).to_pylist()} == wanted


@pytest.mark.parametrize("way", ["right", "full", "natural right", "natural full"])
def test_keys_of_the_right_side_alone_are_no_nulls(engine: Engine, way: str) -> None:
    """Which the engine would show in the place of the one key that USING leaves."""
    using = "" if "natural" in way else " using (k)"
    join = f"(values (1, 10)) a(k, x) {way} join (values (4, 400)) b(k, y){using}"
    for text in (f"select k from {join}", f"select (select max(k) from {join}) as k"):
        with pytest.raises(Unimplemented, match=r"write ON a\.k = b\.k"):
            ask(engine, text)
    other = join.replace("natural ", "").replace(" using (k)", "") + " on a.k = b.k"
    answer = ask(engine, f"select coalesce(a.k, b.k) as k from {other} order by 1 desc")
    assert answer["k"].to_pylist()[0] == 4


@pytest.mark.parametrize("way", ["inner", "left", "natural", "natural left"])
def test_keys_of_other_joins_are_one(engine: Engine, way: str) -> None:
    using = "" if "natural" in way else " using (k)"
    join = f"(values (1, 10)) a(k, x) {way} join (values (1, 400)) b(k, y){using}"
    assert ask(engine, f"select * from {join}").to_pylist() == [{"k": 1, "x": 10, "y": 400}]


_PAIRS = "trades t join few f on t._offset = f._offset where t._offset + f._offset"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("select max(_offset) from few", 20),
        ("select _offset from few order by price desc limit 1", 20),
        ("select max(g._offset) from few g where g.symbol = t.symbol", 20),
        ("select 39", 20),
        ("select _offset from few", None),
        ("select max(_offset) from few group by symbol", None),
        ("select 1 union all select 2", None),
    ],
)
def test_a_sub_query_for_a_value_has_one(engine: Engine, value: str, wanted: int | None) -> None:
    """Where it is joined, further rows would be so many values."""
    text = f"select count(*) as n from {_PAIRS} < ({value})"
    if wanted is None:
        with pytest.raises(Unimplemented, match=r"write \(SELECT max\(x\) …\), or LIMIT 1"):
            ask(engine, text)
    else:
        assert ask(engine, text)["n"].to_pylist() == [wanted]


def test_a_right_join_that_shows_only_in_another_plan(engine: Engine) -> None:
    """A value of a sub-query makes it an inner one, until values are joined."""
    text = (
        "select count(*) as n from trades t join few f on t._offset = f._offset + 2 right join few"
        " g on t.symbol = g.symbol where (g.quantity = 1 or f.quantity = 3) and t._offset >= ({})"
    )
    literal = ask(engine, text.format("7"))["n"].to_pylist()
    assert (
        ask(engine, text.format("select max(h._offset) - 32 from few h"))["n"].to_pylist()
        == literal
    )


@pytest.mark.parametrize(
    ("constant", "wanted"),
    [("'x'", None), ("null", None), ("cast(7 as bigint)", None), ("_offset - _offset", 0)],
)
def test_values_of_a_constant_are_not_counted_by_guess(
    engine: Engine, constant: str, wanted: int | None
) -> None:
    rows = f"(select {constant} as c, 1 as other, _offset from trades where _offset < 0) r"
    text = f"select count(distinct c) as n, count(distinct _offset), sum(other) from {rows}"
    if wanted is None:
        with pytest.raises(Unimplemented, match=r"write count\(\*\) > 0"):
            ask(engine, text)
        text = f"select count(distinct _offset) as n, sum(other), count(c) from {rows}"
    assert ask(engine, text)["n"].to_pylist() == [0]


def test_a_right_join_within_joins_that_would_fail_is_refused(engine: Engine) -> None:
    text = (
        "select count(*) as n from trades t right join few f on t.quantity = f.quantity join few g"
        " on t._offset = g._offset where f.price > 1.5 and (g.price < 30 or t.symbol <= 'BBB')"
    )
    with pytest.raises(Unimplemented, match="write b LEFT JOIN a"):
        ask(engine, text)


def test_joins_of_one_name_that_the_engine_fails_on_are_refused_in_words(engine: Engine) -> None:
    """Its projections lose their columns in a merge join; the way that is named is open."""
    text = (
        "select count(x.c) as n, max(x.q) as q from (select case when t.price between 5 and 0"
        " then f.quantity else f.quantity end as q, f.ratio as c from {} on t.price = f.price"
        " where t.ratio is null order by f.timestamp, t.symbol nulls first, f.symbol limit 1) x"
    )
    with pytest.raises(Unimplemented, match="write b LEFT JOIN a"):
        ask(engine, text.format("late t right join few f"))
    assert ask(engine, text.format("few f left join late t")).to_pylist() == [{"n": 1, "q": None}]


@pytest.mark.parametrize(
    "counted",
    [
        (
            "select count(*) as n from trades t right join few f on t._offset = f._offset + 3"
            " where (t.quantity + f.quantity) is null"
        ),
        (
            "select count(*) as n from few f join (select a._offset as mine, b._offset as other"
            " from trades a left join trades b on a._offset = b._offset + 250"
            " group by a._offset, b._offset) p on f._offset = p.other where f._offset < 10"
        ),
        (
            "select sum(f._offset) as n from trades t join few f on t._offset = f._offset + 300"
            " where t.quantity = f.quantity or t._offset = (select max(_offset) + 270 from few)"
        ),
    ],
)
def test_joins_in_sub_queries_of_expressions_are_seen(engine: Engine, counted: str) -> None:
    """Their plans cannot be walked; the same statement gives the same by itself."""
    wanted = ask(engine, counted).to_pylist()
    assert ask(engine, f"select ({counted}) as n").to_pylist() == wanted


@pytest.mark.parametrize("text", ["\n", " = ", " < x", "x Join: ", "CAST(", " IN ([Int64(1), "])
def test_long_texts_are_judged_in_time_that_grows_as_they_do(engine: Engine, text: str) -> None:
    """Patterns over plans meet the statement's own texts; a quadratic one takes hours here."""
    values = pa.RecordBatch.from_pydict({"$1": [(text * 2**19)[: 2**19]]})
    answer = ask(
        engine,
        "select count(*) as n from few a join few b on a.quantity is not distinct from b.quantity"
        " where a.symbol <> $1 and a._offset = b._offset",
        values,
    )
    assert answer["n"].to_pylist() == [40]
