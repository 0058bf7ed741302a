"""GetSqlInfo: one table of codes, the union child each client expects, and a read-only default.

The child of the union is not free: JDBC casts 541 to 555 and 557 to 562 to long, and all
that the protocol calls an ordinal or a bitmask to int, and panics or throws on another child.

Source: enum SqlInfo of FlightSql.proto; ArrowDatabaseMetadata.java; utils.go of ADBC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import pyarrow as pa

from flight_server.protocol.backend import SqlInfoValue

VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.utf8()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.utf8())),
        pa.field(
            "int32_to_int32_list_map",
            pa.map_(pa.int32(), pa.list_(pa.int32())),
        ),
    ]
)
SQL_INFO = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", VALUE, nullable=False),
    ]
)

_STRING, _BOOL, _BIGINT, _INT, _LIST, _MAP = range(6)

#: Codes asked for by name only: drivers older than them die on an id they do not know.
_ONLY_WHEN_ASKED = frozenset({10, 11})
#: From here on codes belong to vendors; never sent unasked either.
_FIRST_VENDOR_CODE = 10_000

#: No limit, or not known (JDBC's meaning of 0).
_UNLIMITED = 0

#: Rows only, no transactions, SQL-92 entry level; what another engine must override it does by
#: ``Backend.sql_info``.
DEFAULTS: Mapping[int, tuple[int, SqlInfoValue]] = MappingProxyType(
    {
        0: (_STRING, "Flight SQL server"),
        1: (_STRING, "0"),
        2: (_STRING, pa.__version__),
        3: (_BOOL, True),  # read only
        4: (_BOOL, True),  # SQL
        5: (_BOOL, False),  # Substrait
        6: (_STRING, ""),
        7: (_STRING, ""),
        8: (_INT, 0),  # transactions: none
        9: (_BOOL, True),  # cancel
        10: (_BOOL, False),  # bulk ingestion
        11: (_BOOL, False),  # transactions for it
        100: (_INT, 0),  # statement timeout, ms; 0: none
        101: (_INT, 0),  # transaction timeout, ms
        500: (_BOOL, False),  # DDL on catalogs
        501: (_BOOL, False),  # … schemas
        502: (_BOOL, False),  # … tables
        503: (_INT, 3),  # identifiers: stored in lower case
        504: (_STRING, '"'),
        505: (_INT, 1),  # quoted identifiers: case sensitive
        506: (_BOOL, True),
        507: (_INT, 0),  # nulls sort high
        508: (_LIST, ()),  # keywords beyond SQL-92
        509: (_LIST, ("abs", "ceil", "exp", "floor", "ln", "log10", "power", "round", "sqrt")),
        510: (_LIST, ("btrim", "concat", "length", "lower", "replace", "substr", "upper")),
        511: (_LIST, ("coalesce", "nullif")),
        512: (_LIST, ("date_part", "date_trunc", "now")),
        513: (_STRING, "\\"),
        514: (_STRING, ""),
        515: (_BOOL, True),  # column aliases
        516: (_BOOL, True),  # null + null is null
        517: (_MAP, MappingProxyType({})),  # CONVERT()
        518: (_BOOL, True),
        519: (_BOOL, False),
        520: (_BOOL, True),
        521: (_BOOL, True),
        522: (_INT, 3),  # GROUP BY: unrelated, beyond select
        523: (_BOOL, True),
        524: (_BOOL, True),
        525: (_INT, 1),  # grammar: minimum
        526: (_INT, 1),  # SQL-92: entry level
        527: (_BOOL, False),
        528: (_INT, 6),  # outer joins: limited, full
        529: (_STRING, "schema"),
        530: (_STRING, ""),
        531: (_STRING, "catalog"),  # empty would mean "no catalogs" to ODBC
        532: (_BOOL, True),
        533: (_INT, 0),
        534: (_INT, 0),
        535: (_INT, 0),
        536: (_BOOL, False),
        537: (_BOOL, False),
        538: (_INT, 15),  # sub-queries: comparisons, exists, in, quantified
        539: (_BOOL, True),
        540: (_INT, 3),  # union, union all
        **dict.fromkeys((*range(541, 556), *range(557, 562)), (_BIGINT, _UNLIMITED)),
        556: (_BOOL, True),
        562: (_BIGINT, 0),  # isolation: none
        563: (_BOOL, False),
        564: (_INT, 0),
        565: (_BOOL, False),
        566: (_BOOL, False),
        567: (_INT, 2),  # result sets: forward only
        568: (_INT, 2),  # … read only
        569: (_INT, 2),
        570: (_INT, 0),
        571: (_INT, 0),
        572: (_BOOL, False),
        573: (_BOOL, False),
        574: (_BOOL, False),
        575: (_BOOL, False),
        576: (_BOOL, False),
    }
)

_KINDS: Mapping[type, int] = {bool: _BOOL, str: _STRING, int: _BIGINT, tuple: _LIST}


def build_sql_info(
    asked: Sequence[int], answers: Mapping[int, SqlInfoValue]
) -> Iterator[pa.RecordBatch]:
    """One row per known code that was asked for, sorted; none asked: all but the newest ones.

    Args:
        asked: codes; unknown ones are left out of the answer.
        answers: the backend's values over the defaults; a code of its own may have any number
            from 10,000 on and takes the union child of its value's type.
    """
    known = {**DEFAULTS, **{code: (_child(code, v), v) for code, v in answers.items()}}
    if asked:
        codes = sorted(set(asked) & known.keys())
    else:
        codes = sorted(c for c in known if c < _FIRST_VENDOR_CODE and c not in _ONLY_WHEN_ASKED)
    names = pa.array(codes, pa.uint32())
    yield pa.RecordBatch.from_arrays([names, _union([known[c] for c in codes])], schema=SQL_INFO)


def server_facts(name: str, version: str) -> dict[int, SqlInfoValue]:
    """The codes that every server has to override."""
    return {0: name, 1: version, 2: pa.__version__}


def _child(code: int, value: SqlInfoValue) -> int:
    if code in DEFAULTS:
        return DEFAULTS[code][0]
    return next((child for kind, child in _KINDS.items() if isinstance(value, kind)), _MAP)


def _union(values: Sequence[tuple[int, SqlInfoValue]]) -> pa.Array:
    """A dense union of exactly :data:`VALUE`: ``from_dense`` would rename the children."""
    columns: list[list[object]] = [[] for _ in range(VALUE.num_fields)]
    offsets = []
    for child, value in values:
        offsets.append(len(columns[child]))
        columns[child].append(_plain(value))
    children = [pa.array(column, VALUE.field(i).type) for i, column in enumerate(columns)]
    types = pa.array([child for child, _ in values], pa.int8())
    buffers = [None, types.buffers()[1], pa.array(offsets, pa.int32()).buffers()[1]]
    return pa.Array.from_buffers(VALUE, len(values), buffers, children=children)


def _plain(value: SqlInfoValue) -> object:
    if isinstance(value, Mapping):
        return [(key, list(items)) for key, items in value.items()]
    return list(value) if isinstance(value, tuple) else value
