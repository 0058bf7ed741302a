"""The newest trades as a Polars frame, with where in the log each one stands."""

from __future__ import annotations

import os

import adbc_driver_flightsql.dbapi as flightsql
import polars as pl

URI = os.environ.get("URI", "grpc://127.0.0.1:32010")
SQL = """
select _partition, _offset, symbol, timestamp, price, quantity
from market_data.trades
order by _kafka_timestamp desc limit 20
"""


def main() -> None:
    with flightsql.connect(URI, autocommit=True) as connection:
        print(pl.read_database(SQL, connection))


if __name__ == "__main__":
    main()
