"""The newest trades through SQLAlchemy; in an environment of its own: flightsql-dbapi, pandas."""

import os

import flightsql.sqlalchemy  # noqa: F401 - registers the dialect
import sqlalchemy as sa

HOST = os.environ.get("URI", "grpc://127.0.0.1:32010").partition("://")[2]
ENGINE = sa.create_engine(f"datafusion+flightsql://{HOST}?insecure=true")

with ENGINE.connect() as connection:
    trades = sa.Table("trades", sa.MetaData(), schema="market_data", autoload_with=connection)
    newest = sa.select(trades.c.symbol, trades.c.timestamp, trades.c.price)
    for row in connection.execute(newest.order_by(trades.c.timestamp.desc()).limit(10)):
        print(*row)
