"""Stream one statement's batches through ADBC: python examples/adbc_query.py "select 1"."""

from __future__ import annotations

import os
import sys

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql

URI = os.environ.get("URI", "grpc://127.0.0.1:32010")
SQL = """
select symbol, count(*) as trades, max(timestamp) as newest
from market_data.trades
group by symbol order by trades desc limit 10
"""


def main() -> None:
    # cookies make the connection a session: it never sees an older version than before
    options = {adbc_driver_flightsql.DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true"}
    with (
        flightsql.connect(URI, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sys.argv[1] if len(sys.argv) > 1 else SQL)
        for batch in cursor.fetch_record_batch():
            print(batch.to_pydict())


if __name__ == "__main__":
    main()
