"""Tables that other engines wrote (see tests/stack/fixtures.py), laid into the test store.

Their files are byte for byte what the engine wrote, and name paths in the bucket ``k2-fixtures``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

#: Where fixtures lie, and the bucket that their paths name.
FIXTURES = Path(__file__).resolve().parent / "fixtures" / "iceberg"
BUCKET = "k2-fixtures"
#: Floating numbers that Java writes otherwise.
_JAVA = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@dataclass(frozen=True)
class Foreign:
    """One table that an engine wrote, and what the engine says of it.

    Attributes:
        engine: the folder under :data:`FIXTURES`.
        name: the table's name.
    """

    engine: str
    name: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.name}"

    @cached_property
    def answer(self) -> dict[str, Any]:
        """See tests/stack/fixtures/Answers.java."""
        path = FIXTURES / self.engine / "answers" / f"{self.name}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def foreign_tables() -> list[Foreign]:
    """All of them, in a fixed order."""
    found = sorted(FIXTURES.glob("*/answers/*.json"))
    return [Foreign(path.parts[-3], path.stem) for path in found]


def lay_out(bucket: Path) -> None:
    """The fixtures in the store's folder of the bucket that their paths name, once."""
    if not bucket.exists():
        part = Path(tempfile.mkdtemp(dir=bucket.parent.parent))
        for engine in FIXTURES.iterdir():
            shutil.copytree(engine, part / engine.name, ignore=shutil.ignore_patterns("answers"))
        with contextlib.suppress(OSError):  # another worker was first
            part.rename(bucket)


def rows(table: pa.Table) -> list[list[Any]]:
    """Rows in those words."""
    columns = [[_plain(value, column.type) for value in _held(column)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _held(column: pa.ChunkedArray) -> list[Any]:
    """Values, those of moments as numbers (Python's datetime has neither ns nor all years)."""
    return column.cast(_numbers(column.type)).to_pylist()


def _numbers(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_numbers(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_numbers(kind.value_type)))
    if pa.types.is_map(kind):
        item = kind.item_field.with_type(_numbers(kind.item_type))
        return pa.map_(kind.key_field.with_type(_numbers(kind.key_type)), item)
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return pa.int64()
    return pa.int32() if pa.types.is_date32(kind) else kind


def _plain(value: Any, kind: pa.DataType) -> Any:  # noqa: PLR0911 - a line per kind
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return [_plain(value[each.name], each.type) for each in kind]
    if pa.types.is_list(kind):
        return [_plain(each, kind.value_type) for each in value]
    if pa.types.is_map(kind):
        return [[_plain(k, kind.key_type), _plain(v, kind.item_type)] for k, v in value]
    if pa.types.is_timestamp(kind):
        return value * (1 if kind.unit == "ns" else 1000)
    if pa.types.is_decimal(kind):
        return f"{value:f}"
    if pa.types.is_floating(kind):
        return float_text(value)
    return value.hex() if isinstance(value, bytes) else value


def float_text(number: float) -> str:
    """As Java writes it, or nearly so."""
    return _JAVA.get(repr(number), repr(number))


def canonical(found: list[list[Any]]) -> list[str]:
    """Rows in any order, to compare."""
    return sorted(json.dumps(row, ensure_ascii=False) for row in found)
