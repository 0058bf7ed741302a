"""GetXdbcTypeInfo: one row per SQL type, sorted by (data_type, type_name).

Source: CommandGetXdbcTypeInfo, enums XdbcDataType, Nullable and Searchable of FlightSql.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

XDBC_TYPE_INFO = pa.schema(
    [
        pa.field("type_name", pa.utf8(), nullable=False),
        pa.field("data_type", pa.int32(), nullable=False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.utf8()),
        pa.field("literal_suffix", pa.utf8()),
        pa.field("create_params", pa.list_(pa.field("item", pa.utf8(), nullable=False))),
        pa.field("nullable", pa.int32(), nullable=False),
        pa.field("case_sensitive", pa.bool_(), nullable=False),
        pa.field("searchable", pa.int32(), nullable=False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.utf8()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), nullable=False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)

_NULLABLE = 1
_SEARCHABLE_FULL = 3
#: XDBC_DATETIME: the verbose type of dates, times and timestamps.
_DATETIME = 9
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    code: int
    size: int | None
    quote: str | None = None
    params: tuple[str, ...] | None = None
    scale: tuple[int, int] | None = None
    radix: int | None = None
    subcode: int | None = None
    unsigned: bool | None = None

    def row(self) -> dict[str, object]:
        return {
            "type_name": self.name,
            "data_type": self.code,
            "column_size": self.size,
            "literal_prefix": self.quote,
            "literal_suffix": None if self.quote is None else "'",
            "create_params": None if self.params is None else list(self.params),
            "nullable": _NULLABLE,
            "case_sensitive": self.name == "VARCHAR",
            "searchable": _SEARCHABLE_FULL,
            "unsigned_attribute": self.unsigned,
            "fixed_prec_scale": False,
            "auto_increment": None if self.radix is None else False,
            "local_type_name": self.name,
            "minimum_scale": None if self.scale is None else self.scale[0],
            "maximum_scale": None if self.scale is None else self.scale[1],
            "sql_data_type": self.code if self.subcode is None else _DATETIME,
            "datetime_subcode": self.subcode,
            "num_prec_radix": self.radix,
            "interval_precision": None,
        }


def _number(name: str, code: int, size: int, *, unsigned: bool = False) -> _Type:
    return _Type(name, code, size, radix=10, scale=(0, 0), unsigned=unsigned)


_TYPES = (
    _Type("BOOLEAN", -7, 1),
    _number("TINYINT", -6, 3),
    _number("TINYINT UNSIGNED", -6, 3, unsigned=True),
    _number("BIGINT", -5, 19),
    _number("BIGINT UNSIGNED", -5, 20, unsigned=True),
    _Type("VARBINARY", -3, _MAX_BYTES, quote="X'"),
    _Type("BINARY", -2, _MAX_BYTES, quote="X'", params=("length",)),
    _Type("DECIMAL", 3, 38, params=("precision", "scale"), scale=(0, 38), radix=10, unsigned=False),
    _number("INTEGER", 4, 10),
    _number("INTEGER UNSIGNED", 4, 10, unsigned=True),
    _number("SMALLINT", 5, 5),
    _number("SMALLINT UNSIGNED", 5, 5, unsigned=True),
    _Type("REAL", 7, 24, radix=2, unsigned=False),
    _Type("DOUBLE", 8, 53, radix=2, unsigned=False),
    _Type("VARCHAR", 12, _MAX_BYTES, quote="'"),
    _Type("DATE", 91, 10, quote="DATE '", subcode=1),
    _Type("TIME", 92, 15, quote="TIME '", scale=(0, 6), subcode=2),
    _Type("TIMESTAMP", 93, 26, quote="TIMESTAMP '", scale=(0, 9), subcode=3),
    _Type("TIMESTAMP WITH TIME ZONE", 93, 32, quote="TIMESTAMP '", scale=(0, 9), subcode=3),
)


def build_type_info(data_type: int | None) -> Iterator[pa.RecordBatch]:
    """The types with this XDBC code; None: all."""
    rows = [t.row() for t in _TYPES if data_type is None or t.code == data_type]
    rows.sort(key=lambda row: (row["data_type"], row["type_name"]))
    yield pa.RecordBatch.from_pylist(rows, schema=XDBC_TYPE_INFO)
