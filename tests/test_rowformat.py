"""Results as text and files: every format, every kind of column, batch by batch."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from flight_server.rowformat import Format, write_rows

TABLE = pa.table(
    {
        "symbol": pa.array(["KAR", None, 'a "quoted", one'], pa.utf8()),
        "price": pa.array(
            [Decimal("1.50000000"), Decimal("-0.00000001"), None], pa.decimal128(18, 8)
        ),
        "at": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6, UTC)] * 3, pa.timestamp("us", "UTC")),
        "day": pa.array([date(2026, 1, 2)] * 3, pa.date32()),
        "n": pa.array([1, 2, None], pa.int64()),
        "ok": pa.array([True, False, None], pa.bool_()),
        "tags": pa.array([["x", "y"], [], None], pa.list_(pa.utf8())),
        "key": pa.array([b"\x01\xff", b"", None], pa.binary()),
    }
)


def written(form: Format, table: pa.Table = TABLE, batch_rows: int = 2) -> bytes:
    out = io.BytesIO()
    assert write_rows(table.schema, table.to_batches(batch_rows), out, form) == table.num_rows
    return out.getvalue()


def test_a_table_is_aligned_and_shows_nulls() -> None:
    lines = written("table").decode().splitlines()
    assert lines[0].split(" | ")[0].strip() == "symbol"
    assert len(lines) == 5
    assert "NULL" in lines[4]
    assert len({line.find(" | ") for line in (lines[0], *lines[2:])}) == 1
    assert lines[2].split(" | ")[4].endswith("1"), "numbers stand to the right"


def test_a_table_cuts_long_texts_and_keeps_one_line_a_row() -> None:
    table = pa.table({"text": ["x" * 500, "two\nlines"]})
    lines = written("table", table).decode().splitlines()
    assert len(lines) == 4
    assert lines[2].endswith("…")
    assert len(lines[2]) < 100


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv").decode())))
    assert [row["symbol"] for row in rows] == ["KAR", "", 'a "quoted", one']
    assert rows[0]["price"] == "1.50000000"
    assert rows[1]["price"] == "-0.00000001", "no exponent, no digit lost"
    assert rows[0]["at"] == "2026-01-02T03:04:05.000006Z"
    assert json.loads(rows[0]["tags"]) == ["x", "y"]
    assert rows[0]["key"] == "0x01ff"


def test_json_is_one_object_a_line() -> None:
    rows = [json.loads(line) for line in written("json").decode().splitlines()]
    assert rows[0]["price"] == "1.50000000", "a float would lose digits"
    assert rows[0]["tags"] == ["x", "y"]
    assert (rows[2]["symbol"], rows[2]["n"], rows[2]["tags"]) == ('a "quoted", one', None, None)


def test_parquet_and_arrow_read_back_exactly() -> None:
    assert pa.parquet.read_table(io.BytesIO(written("parquet"))).equals(TABLE)
    assert pa.ipc.open_stream(written("arrow")).read_all().equals(TABLE)


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet", "arrow"])
def test_no_rows_are_no_error(form: Format) -> None:
    empty = TABLE.slice(0, 0)
    text = written(form, empty)
    assert (b"symbol" in text) == (form != "json")


def test_batches_are_written_as_they_come() -> None:
    """A stream without end is not gathered: rows are out before the next batch is asked for."""
    out = io.BytesIO()
    sizes: list[int] = []

    def batches() -> object:
        for _ in range(5):
            sizes.append(len(out.getvalue()))
            yield TABLE.to_batches()[0]

    write_rows(TABLE.schema, batches(), out, "json")
    assert sizes == sorted(set(sizes)), "every batch grew the output before the next one was made"
