"""Join live trades with a table of one's own in DuckDB, over Arrow and without a copy."""

from __future__ import annotations

import os

import adbc_driver_flightsql.dbapi as flightsql
import duckdb

URI = os.environ.get("URI", "grpc://127.0.0.1:32010")
SQL = "select symbol, count(*) as trades from market_data.trades group by symbol"


def main() -> None:
    with (
        flightsql.connect(URI, autocommit=True) as connection,
        connection.cursor() as cursor,
        duckdb.connect() as mine,
    ):
        mine.execute("create table sizes as select 1000 as least, 'big' as size")
        cursor.execute(SQL)
        mine.register("live", cursor.fetch_record_batch())
        print(mine.sql("select live.*, size from live left join sizes on trades >= least").df())


if __name__ == "__main__":
    main()
