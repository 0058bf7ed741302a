"""One version as one relation: runs and live rows, files with deletes, what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datafusion import DataFrame, SessionConfig, SessionContext
from support_engine import TRADES, TRADES_SCHEMA, FolderTables, entries_of, trades

from catalog.erasure import Holding
from catalog.errors import FileMissing, Unsupported
from catalog.lake import FileRequest
from catalog.tables import TableVersion
from flight_server.hybrid import Relation, Report, RowPart, Source, memory, relation

SCANNED = ("path", "record_count")
PLAIN_STRINGS = {"datafusion.execution.parquet.schema_force_view_types": "false"}


@pytest.fixture
def context() -> SessionContext:
    return SessionContext(SessionConfig(PLAIN_STRINGS))


@pytest.fixture
def tables(tmp_path: Path) -> FolderTables:
    """Offsets 0 to 299 in three files, 300 to 349 live."""
    kept = FolderTables(tmp_path)
    live = trades(300, 50).to_batches(max_chunksize=20)
    kept.publish(TRADES, [trades(100 * i, 100) for i in range(3)], live)
    return kept


def version_of(tables: FolderTables) -> TableVersion:
    return tables.open(tables.pin(TRADES))


def offsets(context: SessionContext, made: Relation) -> list[int]:
    frame: DataFrame = context.read_table(made.table)
    assert frame.schema().names == TRADES_SCHEMA.names
    return sorted(frame.select("_offset").to_pydict()["_offset"])


@pytest.mark.parametrize(
    ("part", "expected", "report"),
    [
        ("hybrid", range(350), Report(files=3, kept=3, rows=300, live_rows=50)),
        ("runs", range(300), Report(files=3, kept=3, rows=300)),
        ("live", range(300, 350), Report(live_rows=50)),
    ],
)
def test_a_part_has_exactly_its_rows(
    context: SessionContext, tables: FolderTables, part: RowPart, expected: range, report: Report
) -> None:
    made = relation(context, Source(version_of(tables), part, None), tables)
    assert offsets(context, made) == list(expected)
    assert made.report == report


def test_all_rows_have_the_declared_schema(context: SessionContext, tables: FolderTables) -> None:
    made = relation(context, Source(version_of(tables), "hybrid", None), tables)
    for batch in context.read_table(made.table).execute_stream():
        assert batch.to_pyarrow().schema.equals(TRADES_SCHEMA)


@pytest.mark.parametrize(("files", "live"), [(0, 0), (2, 0), (0, 2)])
def test_either_side_may_be_empty(
    context: SessionContext, tmp_path: Path, files: int, live: int
) -> None:
    tables = FolderTables(tmp_path)
    tables.publish(TRADES, [], trades(0, 0).to_batches() or [TRADES_SCHEMA.empty_table()])
    tables.publish(
        TRADES,
        [trades(10 * i, 10) for i in range(files)],
        [b for i in range(live) for b in trades(1000 + 10 * i, 10).to_batches()]
        or [pa.RecordBatch.from_pylist([], TRADES_SCHEMA)],
    )
    made = relation(context, Source(version_of(tables), "hybrid", None), tables)
    assert len(offsets(context, made)) == 10 * (files + live)


def test_counts_fold_over_runs_and_live_rows(tmp_path: Path) -> None:
    """count(*) of a version reads no row, whatever its size."""
    tables = FolderTables(tmp_path)
    tables.publish(TRADES, [trades(0, 100)], trades(100, 7).to_batches())
    context = SessionContext(SessionConfig(PLAIN_STRINGS))
    made = relation(context, Source(version_of(tables), "hybrid", None), tables)
    context.register_table("t", made.table)
    frame = context.sql("select count(*) as n from t")
    assert "DataSourceExec" not in frame.execution_plan().display_indent()
    assert frame.to_pydict() == {"n": [107]}


def test_live_batches_are_not_copied() -> None:
    batch = trades(0, 1000).to_batches()[0]
    context = SessionContext(SessionConfig(PLAIN_STRINGS))
    table = memory(TRADES_SCHEMA, [batch])
    read = [b.to_pyarrow() for b in context.read_table(table).execute_stream()]
    addresses = {b.column("_offset").buffers()[1].address for b in read}
    assert addresses == {batch.column("_offset").buffers()[1].address}


def test_a_file_that_vanished_before_it_was_planned_is_an_error(
    context: SessionContext, tables: FolderTables
) -> None:
    """Rule 18: the engine itself would answer without the file's rows."""
    made = relation(context, Source(version_of(tables), "hybrid", None), tables)
    made.require_files(context)
    tables.now[TRADES].files[1][0].unlink()
    with pytest.raises(FileMissing):
        made.require_files(context)


class Deleting(FolderTables):
    """Odd offsets of the second file are deleted."""

    how = "deletes"
    asked: FileRequest | None = None
    stable = True

    def names_are_stable(
        self, name: object, metadata_location: str, declared: pa.Schema | None = None
    ) -> bool:
        """As the test says."""
        del name, metadata_location, declared
        return self.stable

    def open(
        self, pin: object, *, need: object = "hybrid", deadline_s: float | None = None
    ) -> TableVersion:
        """The version with delete files, or other formats, in its entries."""
        del deadline_s
        version = super().open(pin, need=need)  # type: ignore[arg-type]
        entries = version.entries
        touched = [[], [0], []] if self.how == "deletes" else [[]] * 3
        for column, values in (
            ("deletes", pa.array(touched, entries.schema.field("deletes").type)),
            ("file_format", pa.array(["orc" if self.how == "orc" else "parquet"] * 3)),
        ):
            at = entries.schema.get_field_index(column)
            entries = entries.set_column(at, entries.schema.field(column), values)
        return TableVersion(version.pin, version.schema, entries, version.live, version.live_rows)

    def read_files(self, name: object, request: FileRequest) -> Iterator[pa.RecordBatch]:
        """The even rows of the files asked for."""
        del name
        self.asked = request
        for path, table in self.now[TRADES].files:
            if f"file://{path}" in request.paths:
                yield from table.filter(_even(table)).to_batches()

    def without_deleted(
        self, name: object, request: FileRequest, holding: Holding
    ) -> tuple[pa.Table, pa.Table]:
        """A copy of the file asked for, without its odd rows, while the holder holds it."""
        del name
        self.asked = request
        ((path, table),) = [f for f in self.now[TRADES].files if f"file://{f[0]}" in request.paths]
        copy = path.with_suffix(".copy.parquet")
        even = table.filter(_even(table))
        pq.write_table(even, copy)
        holding.resources.callback(copy.unlink)
        columns = [f for f in entries_of(TRADES_SCHEMA, []).schema if f.name in SCANNED]
        values = {"path": [f"file://{copy}"], "record_count": [even.num_rows]}
        found = pa.table(values, schema=pa.schema(columns))
        return found.slice(0, 0), found


def _even(table: pa.Table) -> pa.ChunkedArray:
    return pc.equal(pc.bit_wise_and(table["_offset"], 1), 0)


@pytest.fixture
def deleting(tmp_path: Path) -> Deleting:
    kept = Deleting(tmp_path)
    kept.publish(TRADES, [trades(100 * i, 100) for i in range(3)], trades(300, 50).to_batches())
    return kept


def test_deleted_rows_do_not_come_back(context: SessionContext, deleting: Deleting) -> None:
    """Only the file that has deletes is copied; the statement holds the copy until it ends."""
    holding = Holding()
    source = Source(version_of(deleting), "hybrid", None, holding=holding)
    made = relation(context, source, deleting)
    assert offsets(context, made) == [n for n in range(350) if not (100 <= n < 200 and n % 2)]
    assert made.report == Report(files=3, kept=3, rows=300, reread=1, live_rows=50)
    assert deleting.asked is not None
    assert len(deleting.asked.paths) == 1
    assert len(made.paths) == 2
    assert len(list(deleting.folder.rglob("*.copy.parquet"))) == 1
    holding.resources.close()
    assert not list(deleting.folder.rglob("*.copy.parquet"))


def test_files_of_renamed_columns_are_read_by_field_id(
    context: SessionContext, deleting: Deleting
) -> None:
    deleting.how, deleting.stable = "none", False
    made = relation(context, Source(version_of(deleting), "runs", None), deleting)
    assert offsets(context, made) == [n for n in range(300) if n % 2 == 0]
    assert made.report.reread == 3


def test_what_cannot_be_read_right_is_refused(context: SessionContext, deleting: Deleting) -> None:
    deleting.how = "orc"
    with pytest.raises(Unsupported, match="market_data"):
        relation(context, Source(version_of(deleting), "hybrid", None), deleting)
    relation(context, Source(version_of(deleting), "live", None), deleting)
