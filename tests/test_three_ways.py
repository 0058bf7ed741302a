"""The same statements over all-in-history, all-live and split data agree, and DuckDB agrees.

Rules 10 and 16: where a row is kept never shows in an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pyarrow as pa
import pytest
from chaos.market import pool, trade
from chaos.site import lay_out
from differential.answers import rows, same
from support_kafka import Broker
from support_site import connected, running, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.differential]

HALF, REST = 3_000, 1_500
PARTITIONS = 3
WAYS = ("history", "live", "split")
_TABLES = """
[[table]]
name = "market_data.{way}"
topics = ["{topic}"]
sort = ["symbol", "timestamp"]
partition = ["day(timestamp)"]
{flush}
"""
_FLUSH = {
    "history": "flush_age_s = 0.5",
    "live": "flush_age_s = 1000000\nflush_rows = 100000000",
    "split": f"flush_age_s = 1000000\nflush_rows = {HALF}",
}

STATEMENTS = {
    "count": "select count(*) as n from {t}",
    "aggregate": """
        select symbol, count(*) as n, sum(quantity) as volume, min(price) as low,
               max(price) as high, round(avg(cast(price as double)), 6) as mean,
               count(platform_sequence) as numbered
        from {t} group by symbol""",
    "aggregate by day and side": """
        select date_trunc('day', timestamp) as day, side, count(*) as n, sum(price) as total
        from {t} group by 1, 2""",
    "having": """
        select symbol, count(*) as n from {t} group by symbol having count(*) > 80""",
    "distinct": "select distinct asset_class, side from {t}",
    "count distinct": """
        select count(distinct symbol) as symbols, count(distinct (_partition, _offset)) as places
        from {t}""",
    "filter on both parts": """
        select _partition, _offset, symbol, price from {t}
        where symbol in ('S07', 'S11') and price between 100 and 600""",
    "filter on positions": """
        select _partition, _offset, message_id from {t} where _offset between 950 and 1050""",
    "nulls": """
        select count(*) as n, min(_offset) as first from {t}
        where platform_sequence is null and vendor_data is null""",
    "top": """
        select symbol, price, _partition, _offset from {t}
        order by price desc, _partition, _offset limit 25""",
    "offset and limit": """
        select _partition, _offset from {t}
        order by timestamp, _partition, _offset limit 20 offset 1490""",
    "self join": """
        select count(*) as n, sum(a.source_sequence - b.source_sequence) as zero
        from {t} a join {t} b on a._partition = b._partition and a._offset = b._offset""",
    "successors": """
        select count(*) as n, sum(case when b.price > a.price then 1 else 0 end) as ups
        from {t} a join {t} b on a._partition = b._partition and b._offset = a._offset + 1""",
    "left join": """
        select count(*) as n, count(b._offset) as matched
        from {t} a left join {t} b
             on a._partition = b._partition and a._offset = b._offset + 1000""",
    "anti join": """
        select a._partition, a._offset from {t} a
        where not exists (select 1 from {t} b
                          where b._partition = a._partition and b._offset = a._offset + 1)""",
    "window": """
        select _partition, _offset,
               price - lag(price) over (partition by symbol order by _partition, _offset) as step,
               row_number() over (partition by symbol order by _partition, _offset) as number
        from {t}""",
    "running sum": """
        select symbol, _partition, _offset,
               sum(quantity) over (partition by symbol order by _partition, _offset
                                   rows between 4 preceding and current row) as recent
        from {t}""",
    "rank within groups": """
        select * from (
          select symbol, price, _partition, _offset,
                 row_number() over (partition by symbol
                                    order by price desc, _partition, _offset) as r
          from {t}) as ranked where r <= 2""",
    "vwap": """
        select symbol, round(sum(cast(price as double) * cast(quantity as double))
                             / sum(cast(quantity as double)), 6) as vwap
        from {t} group by symbol""",
    "union of itself": """
        select count(*) as n
        from (select _offset from {t} union all select _offset from {t}) as u""",
    "scalar sub-query": """
        select _partition, _offset from {t} where price = (select max(price) from {t})""",
    "common table": """
        with busy as (select symbol from {t} group by symbol order by count(*) desc, symbol limit 5)
        select t.symbol, count(*) as n from {t} t join busy on t.symbol = busy.symbol
        group by t.symbol""",
    "every row once": """
        select count(*) as n, min(_offset) as first, max(_offset) as last, _partition
        from {t} group by _partition""",
}


def expected() -> pa.Table:
    """What was produced, as a table: round robin over the partitions."""
    numbers, _ = pool(seed=21, size=HALF + REST)
    trades = [trade(int(number)) for number in numbers]
    columns = {name: [t[name] for t in trades] for name in trades[0]}
    kinds = {"timestamp": pa.timestamp("us"), "ingestion_timestamp": pa.timestamp("us")}
    kinds |= {"price": pa.decimal128(18, 8), "quantity": pa.decimal128(18, 8)}
    kinds |= {"vendor_data": pa.map_(pa.utf8(), pa.utf8())}
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    places = range(len(trades))
    table = table.append_column(
        "_partition", pa.array([n % PARTITIONS for n in places], pa.int32())
    )
    return table.append_column("_offset", pa.array([n // PARTITIONS for n in places], pa.int64()))


@pytest.fixture(scope="module")
def cursor(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[flightsql.Cursor]:
    topic = kafka.create_topic(PARTITIONS)
    layout = lay_out(_folder(tmp_path_factory), kafka.bootstrap, topic, flush_rows=HALF)
    head, _, _ = layout.config.read_text().partition("[[table]]")
    tables = [_TABLES.format(way=way, topic=topic, flush=_FLUSH[way]) for way in WAYS]
    layout.config.write_text(head + "".join(tables))
    _, records = pool(seed=21, size=HALF + REST)
    with running(layout, "serve"), connected(layout) as connection:
        _produce(kafka, topic, records[:HALF])
        for way in WAYS:
            wait_for(layout, f"market_data.{way}", visible=HALF)
        wait_for(layout, "market_data.split", committed=HALF)
        _produce(kafka, topic, records[HALF:])
        total = HALF + REST
        history = wait_for(layout, "market_data.history", visible=total, committed=total)
        live = wait_for(layout, "market_data.live", visible=total)
        split = wait_for(layout, "market_data.split", visible=total)
        assert sum(history.committed.values()) == total
        assert sum(live.committed.values()) == 0
        assert sum(split.committed.values()) == HALF
        yield connection


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("three-ways") / "site"


def _produce(kafka: Broker, topic: str, records: list[bytes]) -> None:
    for partition in range(PARTITIONS):
        kafka.produce(topic, records[partition::PARTITIONS], partition=partition)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("expected", expected())
        yield connection


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_place_of_a_row_never_shows(
    name: str, cursor: flightsql.Cursor, duck: duckdb.DuckDBPyConnection
) -> None:
    """Rule 16: history, tail and both together give one answer, and it is DuckDB's."""
    wanted = rows(duck.sql(STATEMENTS[name].format(t="expected")).to_arrow_table())
    assert wanted
    for way in WAYS:
        cursor.execute(STATEMENTS[name].format(t=f"market_data.{way}"))
        assert same(rows(cursor.fetch_arrow_table()), wanted), way


def test_the_ways_are_what_they_say(cursor: flightsql.Cursor) -> None:
    parts = {}
    for way in WAYS:
        cursor.execute(
            f'select (select count(*) from market_data."{way}$runs") as runs,'
            f' (select count(*) from market_data."{way}$live") as live'
        )
        parts[way] = cursor.fetchone()
    assert parts["history"] == (HALF + REST, 0)
    assert parts["live"] == (0, HALF + REST)
    assert parts["split"] == (HALF, REST)
