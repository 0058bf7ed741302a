"""Uses SQLAlchemy through flightsql-dbapi and prints what it saw, one JSON object per line.

python client.py all URL          queries, types, parameters, metadata, errors
python client.py connect URL...   who the server takes the caller for
"""

import json
import sys

import flightsql.sqlalchemy  # noqa: F401 - registers the dialect
import sqlalchemy as sa


def show(step, value):
    print(json.dumps({"step": step, "value": value}, default=plain), flush=True)


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    return value.tolist() if hasattr(value, "tolist") else str(value)


def rows(result):
    return [dict(row) for row in result.mappings()]


def attempt(step, work):
    try:
        show(step, work())
    except Exception as error:
        show(step, {"error": f"{type(error).__name__}: {error}"})


def login(url):
    with sa.create_engine(url).connect() as connection:
        return rows(connection.execute(sa.text("select 40 + 2 as answer")))


def everything(url):
    engine = sa.create_engine(url)
    with engine.connect() as connection:

        def query(step, sql, **parameters):
            # not as execute()'s second argument: the dialect would write NULL for each
            bound = sa.text(sql).bindparams(**parameters)
            attempt(step, lambda: rows(connection.execute(bound)))

        query("query", "select * from demo.numbers order by n")
        query("empty", "select * from demo.numbers where n > 9")
        query("types", "select * from demo.types order by id")
        query("nothing", "select * from demo.nothing")
        query("syntax", "selec 1")
        query("parameters", "select n from demo.numbers where n > :n and label = :l", n=1, l="five")
        inspector = sa.inspect(engine)
        attempt("schemas", lambda: inspector.get_schema_names())
        attempt("tables", lambda: inspector.get_table_names(schema="demo"))
        attempt("columns", lambda: inspector.get_columns("numbers", schema="demo"))
        attempt("selected", lambda: selected(connection))
        attempt("info", lambda: [engine.dialect.sql_info[0], engine.dialect.sql_info[504]])
    attempt("keys", lambda: keys(url + "&feature-sqlalchemy-primary-keys=on"))
    attempt("prepared", lambda: prepared(url))


def selected(connection):
    """A statement that SQLAlchemy writes itself, over a table that it reflected."""
    numbers = sa.Table("numbers", sa.MetaData(), schema="demo", autoload_with=connection)
    statement = sa.select(numbers.c.n).where(numbers.c.label.in_(["two", "four"]))
    return rows(connection.execute(statement.order_by(numbers.c.n.desc()).limit(5)))


def keys(url):
    return sa.inspect(sa.create_engine(url)).get_pk_constraint("numbers", schema="demo")


def prepared(url):
    """The DBAPI below, which prepares: it goes on with the handle that its binding replaced."""
    with sa.create_engine(url).connect() as connection:
        cursor = connection.connection.cursor()
        return cursor.execute("select n from demo.numbers where n > ?", [4]).fetchall()


if sys.argv[1] == "all":
    everything(sys.argv[2])
else:
    for address in sys.argv[2:]:
        attempt("connect", lambda address=address: login(address))
