"""What the engine would misread is refused in words; what stands beside it is answered as ever."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from support_engine import FolderTables, ask

from catalog.spec import TableName
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import Unimplemented

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("k", pa.int32()),
        pa.field("l", pa.int64()),
        pa.field("c", pa.decimal128(9, 2)),
        pa.field("d", pa.decimal128(18, 8)),
        pa.field("x", pa.float64()),
        pa.field("u", pa.string()),
        pa.field("t", pa.timestamp("us")),
        pa.field("z", pa.timestamp("us", tz="UTC")),
        pa.field("day", pa.date32()),
    ]
)


def rows(first: int, count: int) -> pa.Table:
    """One row in seven has nulls; days and times of day go round several times."""
    found = []
    for number in range(first, first + count):
        rng = random.Random(number)
        moment = datetime(2024, 1, 30) + timedelta(hours=7 * number, milliseconds=250 * number)  # noqa: DTZ001
        whole = {
            "id": number,
            "k": number % 5,
            "l": number if number % 3 else number + 2**40,
            "c": Decimal(rng.randrange(-600, 600)).scaleb(-2),
            "d": Decimal(rng.randrange(-(10**9), 10**9)).scaleb(-8),
            "x": rng.randrange(-40, 40) / 4,
            "u": rng.choice(("a", "b", "7", "300")),
            "t": moment,
            "z": moment.replace(tzinfo=UTC) - timedelta(hours=rng.randrange(60)),
            "day": date(2024, 1, 30) + timedelta(days=number % 40),
        }
        found.append({"id": number} if number % 7 == 6 else whole)
    return pa.Table.from_pylist(found, SCHEMA)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kept = FolderTables(tmp_path_factory.mktemp("misread"))
    files = [rows(0, 60), rows(60, 60)]
    kept.publish(TableName("market_data", "a"), files, rows(120, 40).to_batches())
    kept.publish(TableName("market_data", "b"), [rows(0, 12)], rows(12, 12).to_batches())
    with closing(Engine(kept, kept, Limits())) as made:
        yield made


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("set timezone = 'UTC'")
        made.register("a", rows(0, 160))
        made.register("b", rows(0, 24))
        yield made


def assert_refused(engine: Engine, text: str, words: str) -> None:
    with pytest.raises(Unimplemented, match=words):
        ask(engine, text)


def assert_answered(engine: Engine, duck: duckdb.DuckDBPyConnection, text: str) -> None:
    """In any order; with rows, so that something was compared."""
    found = sorted(ask(engine, text), key=repr)
    assert found == sorted(duck.execute(text).fetchall(), key=repr)
    assert found


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where t - timestamp '2024-02-01' > interval '1 day'",
        "select id from a where now() - z > interval '7 days'",
        "select timestamp '2022-01-05' - timestamp '2022-01-01' = interval '4 days'",
        "select interval '36 hours' > interval '1 day'",
        (
            "select id from a where t - cast(z as timestamp) between interval '1 day' and"
            " interval '2 days'"
        ),
        "select id from a where interval '1 month' <> t - cast(z as timestamp)",
        "select id from a where t - cast(z as timestamp) in (interval '1 day')",
        "select case when t - cast(z as timestamp) > interval '1 day' then 1 end from a",
        "select a.id from a join b on a.k = b.k and a.t - b.t > interval '1 day'",
        (
            "select id from (select id, t - lag(t) over (order by id) as gap from a)"
            " where gap > interval '1 day'"
        ),
        "select k from a group by k having max(t) - min(t) > interval '2 days'",
        "select id from a where t - timestamp '2024-02-01' in (interval '5 h', interval '1 day')",
        (
            "select id from (select id, interval '36 hours' as v, interval '1 day' as w from a)"
            " where v > w"
        ),
        (
            "select id from (select id, interval '1 day' as v from a) p"
            " join (select interval '24 hours' as v) q using (v)"
        ),
        "select k from a group by k having max(t) - min(t) > max(interval '1 day')",
        "select count(*) filter (where t - timestamp '2024-02-01' > interval '1 day') from a",
        "select id from a where t - timestamp '2024-02-01' > (select interval '1 day')",
    ],
)
def test_days_are_not_compared_with_hours(engine: Engine, text: str) -> None:
    """They would be compared field by field, and a difference has no days."""
    assert_refused(engine, text, "write interval '24 hours'")


@pytest.mark.parametrize(
    "text",
    [
        "select date '2022-01-01' + interval '36 hours'",
        "select date '2022-01-01' - interval '1 minute'",
        "select id from a where t < date '2024-02-08' + interval '5 minutes'",
        "select id from a where t >= cast(t as date) + interval '5 minutes'",
        "select id, day + interval '1 day' + interval '5 minutes' from a",
        "select current_date + interval '9 hours 30 minutes'",
        "select interval '5 minutes' + day from a",
        "select max(day) + interval '5 minutes' from a",
        "select other + interval '1 hour' from (select day as other from a)",
        "select day + 1 + interval '9 hours' from a",
        "select case when k > 1 then day end + interval '9 hours' from a",
        "select coalesce(day, date '2024-01-01') + interval '9 hours' from a",
        "select lag(day) over (order by id) + interval '9 hours' from a",
        "select make_date(2024, 1, k + 1) + interval '9 hours' from a",
        "select id from a where t > (select max(day) + interval '9 hours' from b)",
        (
            "select id from a where exists"
            " (select 1 from b where b.id = a.id and a.t > b.day + interval '9 hours')"
        ),
        "select day + (select interval '9 hours') from a",
        "select day + '9 hours'::interval from a",
        "select count(*) filter (where t > day + interval '9 hours') from a",
        "select count(*) filter (where t > day + interval '9 hours') over (partition by k) from a",
        "select string_agg(u, '' order by day + interval '9 hours') from a",
        "select * from (values (date '2024-01-01' + interval '9 hours')) v",
        "select id from a where u <> 'x\"y' and t > day + interval '9 hours'",
        'select v."a day" + interval \'9 hours\' from (select day as "a day" from a) v',
        "select count(*) from a group by grouping sets ((k, day + interval '1 hour'), (k))",
        "select count(*) from a group by k, rollup (u, day + interval '1 hour')",
        "with p as (select interval '36 hours' as w) select a.day + p.w from a, p",
        "select a.day + v.h from a join (values (1, interval '9 hours')) v (k, h) on a.k = v.k",
        "select day + case when k > 1 then interval '1 day' else interval '9 hours' end from a",
        "select day + '1.5 days'::interval from a",
    ],
)
def test_hours_are_not_added_to_dates(engine: Engine, text: str) -> None:
    assert_refused(engine, text, r"write CAST\(d AS timestamp\)")


@pytest.mark.parametrize(
    "text",
    [
        "select extract(epoch from t - lag(t) over (order by id)) from a",
        "select extract(epoch from gap) from (select t - lag(t) over (order by id) as gap from a)",
        "select avg(date_part('minute', t - cast(z as timestamp))) from a",
        "select extract(epoch from max(t - cast(z as timestamp))) from a",
        "select extract(hour from coalesce(t - lag(t) over (order by id), interval '0 h')) from a",
        'select extract(epoch from "a b") from (select t - cast(z as timestamp) as "a b" from a)',
    ],
)
def test_no_part_of_a_difference_is_taken(engine: Engine, text: str) -> None:
    assert_refused(engine, text, "write extract")


@pytest.mark.parametrize("key", ["t", "z", "day", "date_trunc('day', t)", "t + interval '1 day'"])
def test_frames_over_times_have_intervals(engine: Engine, key: str) -> None:
    """A bare number would be so many months."""
    frame = "range between 1 preceding and current row"
    assert_refused(engine, f"select count(*) over (order by {key} {frame}) from a", "interval '1 d")


@pytest.mark.parametrize(
    "bounds", ["unbounded preceding and 1 following", "current row and '1' following"]
)
def test_further_frames_over_times_have_intervals(engine: Engine, bounds: str) -> None:
    words = f"select count(*) over (order by day range between {bounds}) from a"
    assert_refused(engine, words, "interval '1 d")


@pytest.mark.parametrize(
    "text",
    [
        "select id, round(c, 1) in (1.5, 2.25, 2.3), round(c, 2) in (1.5, 0.07) from a",
        "select id from a where round(c, 1) not in (select c from b where c > 0)",
        "select a.id from a join b on round(a.c, 1) = b.c",
        "select case when c > 0 then round(c, 1) else c end from a",
        "select coalesce(round(c, 1), 0.05) from a",
        "select case when c > 0 then round(c, 1) else round(d, 1) end from a",
        "select case round(c, 1) when 1.5 then 1 end from a",
        "select case when round(c, 1) > 1.25 then 1 end from a",
        "select id from a where k > 1 and 1.25 < round(c, 1)",
        "select id from a where c between 1 and round(c, 1)",
        "select id from a where round(c, 1) between 1 and 2.25",
        "select id from a where round(c, 1) > 1.25",
        "select k from a group by k having round(sum(c), 1) > 1.55",
        "select [round(c, 1), c] from a",
        "select r from (select round(c, 1) as r from a) where r not in (1.5, 2.25)",
        "select q from (select r as q from (select round(c, 1) as r from a)) where q <> 1.5",
        "select r from (select id, round(c, 1) as r from a order by id limit 100) where r > 1.25",
        "select id from a where c in (select round(d, 1) from b)",
        "select id from a where abs(round(d, 2)) = c or abs(round(d, 1)) > 1.25",
        "select a.id from (select k, max(round(d, 2)) as m from b group by k) q join a on c < m",
        "select round(d, 2) from a intersect select c from a",
        "select a.id from a join (select round(d, 2) as c from b) q using (c)",
        "select coalesce(r, 0.05) from (select round(c, 1) as r from a)",
        "select coalesce(round(d, 2), 0.05), round(c, -1), round(c, 5) = c from a",
        "select round(c, 1), count(*) from a group by round(c, 1) having round(c, 1) > 1.25",
        "select sum(round(c, 1)) over (order by round(c, 1), id) from a order by round(c, 1)",
        "select id from a where exists (select 1 from b where round(b.c, 1) < round(a.d, 2))",
        "select id from a where round(round(d, 4), 2) <> round(d, 2)",
    ],
)
def test_rounded_decimals_have_their_own_type(
    engine: Engine, duck: duckdb.DuckDBPyConnection, text: str
) -> None:
    """Not that of before they are rounded, wherever they stand."""
    assert_answered(engine, duck, text)


def test_columns_of_rounded_decimals_keep_their_names(engine: Engine) -> None:
    """A client may have them from what it was told first."""
    text = "select round(c, 1), round(x, 2) from a where round(c, 1) > 1.25"
    plan = engine.plan(Statement(text, None), Options(schema="market_data"))
    assert plan.schema.names == ["round(a.c,Int64(1))", "round(a.x,Int64(2))"]
    assert engine.stream(plan).read_all().schema.types == [pa.decimal128(9, 1), pa.float64()]
    outer = f'select "round(a.c,Int64(1))" from ({text}) q'
    assert_refused(engine, outer, "write n as a number")


def test_explain_shows_digits_as_they_are_written(engine: Engine) -> None:
    shown = str(ask(engine, "explain select round(c, 1), round(c, -1) from a"))
    assert "Int64(1)" in shown
    assert "Int64(-1)" in shown
    assert "$" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where round(c, 2 - 1) > 1.25",
        "select id from a where round(c, cast('1' as int)) > 1.25",
        "select round(c, 1) as r, count(*) from a group by rollup (round(c, 1))",
    ],
)
def test_rounding_to_computed_digits_is_refused(engine: Engine, text: str) -> None:
    """The engine would know the type too late."""
    assert_refused(engine, text, "write n as a number")


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where cast(c as int) = 1",
        "select id from a where cast(c as decimal(9, 0)) = 2",
        "select id from a where cast(d as decimal(18, 2)) in (2.00, 1.50)",
        "select id from a where cast(c as int) between 1 and 2",
        "select id from a where 1 + 0 = cast(c as int)",
        "select id from (select id, cast(c as int) as whole from a) where whole = 1",
        "select cast(c as int) <> 1 from a",
        "select k from a group by k having cast(sum(c) as int) < 1",
        "select id from a where try_cast(l as int) > 5",
        "select id from a where try_cast(id as tinyint) > 5",
        "select id from a where try_cast(c as decimal(4, 2)) = 1",
        "select id from a where u <> 'x\"y' and cast(c as int) = 1",
        'select id from (select id, c as "a price" from a) where cast("a price" as int) = 1',
        "select id from a where arrow_cast(c, 'Int32') = 1",
        "select id from a where arrow_try_cast(l, 'Int32') = 1",
        "select id from a where cast(cast(c as int) as bigint) = 1",
        "select count(*) filter (where cast(c as int) = 1) from a",
        "select count(*) filter (where cast(c as int) = 1) over (order by id) from a",
        "select id from a where cast(c as int) = 1 or cast(c as int) = 2 or cast(c as int) is null",
        "select id from a where cast(trunc(c) + d as int) = 1",
        "select id from a where cast(trunc(c) / 2 as int) > 0",
        "select id from a where cast(trunc(c, k) as int) = 1",
        "select id from a where cast(trunc(c, 1 + 1) as decimal(9, 1)) = 1",
        "select id from a where cast(c as int) = any([1, 2])",
        "select id from a where array_has([1, 2], cast(c as int))",
    ],
)
def test_casts_that_lose_something_are_not_compared(engine: Engine, text: str) -> None:
    """What is cast would be compared, and 1.25 is not 1."""
    assert_refused(engine, text, "and not with the cast")


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where (select 1 from b where id = -1 limit 1) is null",
        "select id from a where (select 1 from b where id = -1 limit 1) is not null",
        "select id from a where id > coalesce((select id from b where id = -1), 5)",
        "select (select count(*) from b having count(*) < 0) is null",
        "select v from (select (select 1 from b where id = -1) as v from a) where v is null",
        "select case when (select true from b where id = -1) is null then 1 end",
        "select id from a where ((select id from b where id = -1) > 3) is null",
        "select id from a where not ((select id from b where id = -1) > 3 is true)",
        "select id from a where (select id from b where id < 0) = (select id from b where id < 0)",
        "select 1 from a where exists (select 1 where (select id from b where id < 0) is null)",
    ],
)
def test_a_value_that_may_be_missing_may_be_null(engine: Engine, text: str) -> None:
    assert_refused(engine, text, r"write \(SELECT max\(x\) …\)")


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where (select count(*) from b where b.k = a.k having max(x) > 2) is null",
        (
            "select a.id, q.n from a cross join lateral"
            " (select sum(b.id) as n from b where b.k = a.k having count(*) > 2) q"
        ),
        "select id from a where exists (select count(*) from b where b.k = a.k)",
        "select id from a where not exists (select max(id) from b where b.k = a.k)",
        "select id from a where 0 in (select count(*) from b where b.k = a.k)",
        "select id from a where exists (select count(*) from b where b.k = a.k limit 1)",
        "select id from a where exists (select distinct count(*) from b where b.k = a.k)",
        "select id from a where exists (select sum(id) from b where b.k = a.k group by rollup (x))",
        "select id from a where exists (select 1 from b where b.k = a.k group by cube (x, u))",
    ],
)
def test_aggregates_inside_are_values(engine: Engine, text: str) -> None:
    """Rows that HAVING drops would be there, and EXISTS would want a match."""
    assert_refused(engine, text, "aggregates without GROUP BY")


def test_offsets_inside_are_refused(engine: Engine) -> None:
    inside = "select 1 from b where b.k = a.k offset 1"
    assert_refused(engine, f"select id from a where exists ({inside})", "OFFSET")


@pytest.mark.parametrize(
    "text",
    [
        "select r from (select random() < 0.5 as r, count(*) from a group by 1) where r",
        "select bool_and(r > 0.5e0) from (select random() as r from a) where r > 0.5e0",
        "select s from (select r * 2 as s from (select random() as r from a)) where s > 1",
        "select q.s from (select random() from a) as q (s) where q.s > 0.5e0",
        "select q.s from (select cast(random() * 10 as int) as s, k from a) q join b on q.s = b.k",
        "select p from (select max(r) as p from (select random() as r from a)) where p > 0.9e0",
    ],
)
def test_chance_is_drawn_once(engine: Engine, text: str) -> None:
    assert_refused(engine, text, "would draw anew")


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where (k, x) < (3, 0.0)",
        "select id from a where (k, u) <> (3, 'a')",
        "select id from a where (k, u) not in ((3, 'a'), (4, 'b'))",
        "select a.id from a join b on (a.k, a.u) = (b.k, b.u)",
        "select id from a where struct(k, u) in (select struct(k, u) from b)",
        "select id from (select id, struct(k, u) as p, struct(k, u) as q from a) where p <> q",
        (
            "select id from (select id, struct(k, u) as p from a) v"
            " join (select struct(k, u) as p from b) w using (p)"
        ),
        "select count(*) filter (where struct(k, u) = struct(1, 'a')) from a",
    ],
)
def test_rows_are_not_compared(engine: Engine, text: str) -> None:
    """Their nulls would be values."""
    assert_refused(engine, text, "nulls in rows")


@pytest.mark.parametrize("words", ["(k ^ k)", "((k + 0) ^ (k + 0))", "(k ^ l ^ k)"])
def test_nothing_is_zero_of_null(engine: Engine, words: str) -> None:
    assert_refused(engine, f"select id from a where {words} = 0", "write x - x")


def test_long_chains_are_drawn_up_once(engine: Engine) -> None:
    """Each part of a chain is one, too: looking at all of them would take minutes."""
    chain = " ^ ".join(f"(k + {n})" for n in range(440))
    assert ask(engine, f"select id from a where {chain} < 0 and k < 0") == []


@pytest.mark.parametrize(
    "text",
    [
        "select sum(id) over (w) from a window w as (partition by k order by id)",
        "select sum(id) over (w order by id) from a window w as (partition by k)",
        'select sum(id) over ("w" rows 2 preceding) from a window "w" as (order by id)',
        "select sum(id) over v from a window w as (partition by k), v as (w order by id)",
    ],
)
def test_windows_are_named_without_brackets(engine: Engine, text: str) -> None:
    assert_refused(engine, text, "write OVER ")


@pytest.mark.parametrize(
    "text",
    [
        "select id from a where cast(t as time) < time '05:00:00'",
        (
            "select id from a where cast(cast(z as timestamp) as time) between time '01:00:00'"
            " and time '08:30:00'"
        ),
        (
            "select a.id, b.id as other from a join b on a.k = b.k and"
            " cast(a.t as time) < cast(b.t as time)"
        ),
        "select id from a where t - timestamp '2024-02-01' > interval '24 hours'",
        "select id from a where t > cast(z as timestamp) + interval '1 day'",
        (
            "select id from a where t between timestamp '2024-02-08' - interval '1 day' and"
            " timestamp '2024-02-08' + interval '1 month'"
        ),
        "select id from a where t < date '2024-02-08' + interval '2 days'",
        "select id, cast(day as timestamp) + interval '5 minutes' from a",
        "select id, date_trunc('day', t) + interval '9 hours 30 minutes' from a",
        "select id from a where day - date '2024-01-30' > 7",
        "select id from a where day - date '2024-01-30' = 7",
        "select id, extract(hour from t + interval '1 hour'), extract(day from day) from a",
        "select id, count(*) over (order by id range between 3 preceding and current row) from a",
        (
            "select id, count(*) over (order by t range between interval '1 day' preceding"
            " and current row) from a"
        ),
        "select round(c, 1) as r, count(*) from a group by 1",
        "select id, case when c > 0 then round(c, 1) else 0 end as v from a",
        "select id, case when k > 3 then round(c, 1) when k > 1 then round(c, 1) end as v from a",
        "select id, case when round(c, 1) > 2 then 'high' else 'low' end as v from a",
        "select id, coalesce(round(c, 1), 0) as v, greatest(round(c, 1), 0, 1) as w from a",
        "select id from a where k > 1 and round(c, 1) > 2 and 5 > round(c, 1)",
        "select id from a where round(c, 1) in (1, 2) or round(c, 1) between 3 and 4",
        "select k, coalesce(round(sum(c * c), 2), 0) as v from a group by k",
        "select id, round(c, 1) as c from a where c > 1.5",
        "select id, c + 1 as v from (select id, round(c, 1) as c from a where c > 3.5) as r",
        "select id, extract(hour from t - interval '5 hours') as v from a",
        "select id, date_trunc('month', day) + interval '9 hours' as v from a",
        "select id from a where random() >= 0 and cast(k as bigint) > 3",
        "with q as (select k as range from a) select range from q",
        "select id from a where t in (select max(t) from b where b.k = a.k)",
        (
            "select id, (select id from b order by id limit 1) as v, coalesce(k, 0) as w from a"
            " where k is not null"
        ),
        "select k from a group by k having cast(count(c) as int) > 5",
        "select count(*) over (order by t.id range between 3 preceding and current row) from a t",
        "select k from a group by k having round(stddev(c), 0) > 1.5",
        "select k, round(sum(c), 1) + 1 as v from a group by k",
        "select id from a where cast(round(c, 1) as decimal(9, 1)) = 1.5 or id < 3",
        "select id from a where round(cast(c as double), 0) = 2",
        "select id from a where round(x, 1) > 1.5",
        "select id from a where cast(round(c) as int) = 2",
        "select id from a where cast(k as bigint) = 3",
        "select id from a where cast(c as decimal(18, 4)) > 1.5",
        "select id from a where trunc(c) = 1",
        "select id from a where cast(trunc(c) as int) in (select k from b)",
        "select id from a where try_cast(u as bigint) > 5",
        "select id from a where try_cast(k as bigint) > 1",
        "select id from a where cast(t as date) = date '2024-02-08'",
        "select id from a where (select max(k) from b where id = -1) is null",
        "select id from a where k > (select id from b where id = 3)",
        "select id from a where k > (select id from b where id = 3) and c is not null",
        "select id, (select id from b order by id desc limit 1) as last from a",
        "select id from a where (select count(*) from b where b.k = a.k) = 0",
        "select id, (select count(*) from b where b.k = a.k) as n from a",
        "select id from a where exists (select k from b where b.k = a.k and b.x > 0)",
        "select id from a where exists (select count(*) from b)",
        (
            "select a.id, q.n from a cross join lateral"
            " (select sum(b.id) as n from b where b.k = a.k) q"
        ),
        (
            "select sum(id) over w, count(*) over (partition by k order by id) from a"
            " window w as (partition by k order by id)"
        ),
        "with w as (select k from b) select k from w",
        "select id from a where -cast(trunc(c) as int) = -1 or trunc(c) = k",
        "select id, extract(hour from t - '5 hours'::interval) from a",
        "select id, interval '9 hours' + cast(day as timestamp) from a",
        (
            "select v.at + interval '9 hours', w.at from (select t as at, id from a) v"
            " join (select day as at, id from b) w on v.id = w.id"
        ),
        "select id from a where u <> 'date_part(' and day + interval '1 day' > date '2024-02-03'",
        (
            "select id, count(*) filter (where t - timestamp '2024-02-01' > interval '24 hours')"
            " over (order by id) from a"
        ),
        (
            "select id from (select id, t - lag(t) over (order by id) as gap from a)"
            " where gap > interval '3 hours'"
        ),
        "select cast(day + 1 + interval '1 day' as date) from a where day - interval '1 day' < day",
        "select id from a where cast(trunc(c) as int) = k or cast(d as decimal(9, 2)) < c",
        "select id from a where cast(trunc(d, 2) as decimal(9, 2)) > 1.5",
        "select id, cast(trunc(c) as int), cast(d as decimal(9, 2)) from a order by 2, id",
        "select id, date_trunc('month', max(t)) + interval '9 hours' from a group by id",
        "select m from (select random() as r, abs(k + 1) as m from a) where m > 3",
        "select id from a where k > (select id from b where id = 3) and u is null or c is null",
        (
            "select id from a where day + case when u = 'plus hours' then interval '1 day'"
            " else interval '2 days' end < t"
        ),
        (
            "select id from a where"
            " coalesce(t - timestamp '2024-02-01', interval '0 seconds') > interval '30 hours'"
        ),
        "select id from a where t - timestamp '2024-02-01' > '3 hours'::interval",
        (
            "select id from a where"
            " t - timestamp '2024-02-01' > interval '1 hour' + interval '30 minutes'"
        ),
        "select id from a where cast(floor(c) as int) = 1 or cast(ceil(c) as bigint) > 2",
        "select cast(floor(c) as int), count(*) from a group by 1 having cast(floor(c) as int) > 0",
        "select id, round(c, 40) from a",
        "select id, day + '2 days'::interval < t from a where day is not null",
        "select r, count(*) from (select round(c, 1) as r from a) as q group by rollup (r)",
        "select count(*) from (select k, u from a intersect select k, u from b) as q",
    ],
)
def test_what_stands_beside_it_is_answered(
    engine: Engine, duck: duckdb.DuckDBPyConnection, text: str
) -> None:
    assert_answered(engine, duck, text)
