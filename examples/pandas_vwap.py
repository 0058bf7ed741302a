"""VWAP by symbol as a pandas frame, over history and the live tail."""

from __future__ import annotations

import os

import adbc_driver_flightsql.dbapi as flightsql
import pandas as pd

URI = os.environ.get("URI", "grpc://127.0.0.1:32010")
SQL = """
select symbol,
       sum(cast(price as double) * cast(quantity as double))
         / sum(cast(quantity as double)) as vwap,
       count(*) as trades
from market_data.trades
group by symbol order by symbol
"""


def main() -> None:
    with flightsql.connect(URI, autocommit=True) as connection:
        frame = pd.read_sql(SQL, connection, index_col="symbol")
    print(frame.head(10))


if __name__ == "__main__":
    main()
