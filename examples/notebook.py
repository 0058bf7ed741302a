"""The engine in a notebook: run the cells in Jupyter or VS Code."""

# %% [markdown]
# # The same engine without a server
#
# Run these cells beside a `k2.toml` whose ingest is running. The server is not needed: the live
# folder and the Iceberg catalog are read directly.

# %%
import flight_server

db = flight_server.open("k2.toml")
db.sql("select table_schema, table_name from information_schema.tables").pandas()

# %%
# one version for several statements: nothing arrives in between
with db.pin("market_data.trades") as version:
    first = version.sql("select count(*) as n from market_data.trades").pandas()
    again = version.sql("select count(*) as n from market_data.trades").pandas()
print(first["n"][0], again["n"][0])

# %%
db.sql("""
    select date_trunc('minute', timestamp) as minute, count(*) as trades, max(price) as high
    from market_data.trades group by 1 order by 1
""").polars()

# %%
db.close()
