"""The same tables and engine in this process: for notebooks and scripts, without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from catalog.spec import TableName
from catalog.tables import Pin
from flight_server.app import Reading, build_reading
from flight_server.config import load
from flight_server.engine import Plan, Statement
from flight_server.protocol.errors import InvalidArgument
from flight_server.versions import check_versions

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

#: Values of the parameters ``?`` or ``$1``, in order.
Parameters = Sequence[object]


class Result:
    """One statement's rows over the versions that it was planned over.

    Nothing is executed before rows are asked for; each way of asking executes again, over the same
    versions, so that every answer of one result agrees.
    """

    def __init__(self, reading: Reading, plan: Plan) -> None:
        self._reading = reading
        self._plan = plan

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._plan.schema

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The versions that it reads."""
        return self._plan.pins

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as they come.

        Raises:
            FlightSqlError: the statement failed.
            CatalogError: a version cannot be answered any more.
        """
        with self._reading.queries.begin("local", self._plan.statement.sql) as query:
            query.planned(str(pin.name) for pin in self._plan.pins)
            stream = self._reading.engine.stream(self._plan)
            try:
                for batch in stream:
                    query.sent(stream.rows, stream.bytes)
                    yield batch
            finally:
                stream.close()

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return pa.Table.from_batches(self.batches(), schema=self.schema)

    def pandas(self) -> pd.DataFrame:
        """All rows as a pandas frame; needs pandas."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame

    def polars(self) -> pl.DataFrame:
        """All rows as a Polars frame; needs polars."""
        import polars as pl  # noqa: PLC0415  # an optional library

        return pl.DataFrame(self.arrow())

    def __iter__(self) -> Iterator[dict[str, object]]:
        """Row by row, as dicts; for small results."""
        for batch in self.batches():
            yield from batch.to_pylist()


class Pinned:
    """Statements that see one version of some tables, whatever is written meanwhile."""

    def __init__(self, reading: Reading, pins: tuple[Pin, ...]) -> None:
        self._reading = reading
        self.pins = pins

    def sql(self, sql: str, parameters: Parameters = ()) -> Result:
        """Plans a statement; tables that are not pinned are taken at their newest version.

        Args:
            sql: one statement; parameters are ``?`` or ``$1``.
            parameters: their values, in order.

        Raises:
            FlightSqlError: the statement is wrong.
            CatalogError: a table cannot be read now.
        """
        statement = Statement(sql, _bound(parameters))
        plan = self._reading.engine.plan(statement, self._reading.options, pins=self.pins)
        return Result(self._reading, plan)


class Database(Pinned):
    """An opened configuration; any thread. Close it, or use it as a context manager."""

    def __init__(self, reading: Reading, stack: ExitStack) -> None:
        super().__init__(reading, ())
        self._stack = stack

    def tables(self) -> list[str]:
        """Every table, as ``namespace.table``."""
        return [str(name) for name in self._reading.tables.names()]

    @contextmanager
    def pin(self, *tables: str) -> Iterator[Pinned]:
        """Keeps one version of each table over several statements.

        Args:
            tables: as ``market_data.trades``, or ``trades`` in the only declared namespace.

        Raises:
            CatalogError: a table does not exist, or cannot be read now.
        """
        names = (TableName.parse(self._qualified(table)) for table in tables)
        yield Pinned(self._reading, tuple(self._reading.tables.pin(name) for name in names))

    def close(self) -> None:
        """Ends the engine and the catalog's connections; idempotent."""
        self._stack.close()

    def _qualified(self, table: str) -> str:
        return table if "." in table else f"{self._reading.options.schema}.{table}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_database(
    config: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Database:
    """The tables of a configuration, in this process.

    Args:
        config: the file; ``k2.toml`` by default.
        overrides: section → key → value, over the file and the environment.

    Raises:
        ConfigRefused: the configuration or an installed version is wrong.
        CatalogError: the catalog does not answer.
    """
    check_versions()
    settings = load(None if config is None else Path(config), overrides=overrides)
    with ExitStack() as stack:
        reading = build_reading(settings, stack)
        return Database(reading, stack.pop_all())


def _bound(parameters: Parameters) -> pa.RecordBatch | None:
    """One row with a column per parameter."""
    if not parameters:
        return None
    if isinstance(parameters, (str, bytes, Mapping)) or not isinstance(parameters, Iterable):
        raise InvalidArgument("parameters are a list or a tuple, one value for each ? or $n")
    arrays = [pa.array([value]) for value in parameters]
    return pa.RecordBatch.from_arrays(arrays, names=[f"${n}" for n in range(1, len(arrays) + 1)])
