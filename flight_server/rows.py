"""Comparisons of rows, and of nothing with itself, in which the engine takes a null for a value.

DataFusion 55.0 compares structs with their nulls as values, be it by ``(a, b) < (c, d)``, IN or
USING (which is right of IS DISTINCT FROM alone); and ``x ^ x`` is 0 to it though x is null.

Source: apache/datafusion issue 24246; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import pyarrow as pa

from flight_server.protocol.errors import Unimplemented
from flight_server.typed import Step

_ROW, _XOR = "truct(", "BIT_XOR"


def concerns(shown: str, typed: str) -> bool:
    """Whether a plan may have something to be refused here.

    Args:
        shown: as the statement says it, by ``display_indent``.
        typed: the same by ``display_indent_schema``.
    """
    return _ROW in typed or _XOR in shown


def require(step: Step) -> None:
    """Refuses comparisons in which a null would be a value.

    Args:
        step: of a plan for :mod:`flight_server.typed`.

    Raises:
        Unimplemented: there is one.
    """
    for said, (first, *_) in step.comparisons:
        if not said.startswith("IS ") and pa.types.is_struct(step.type_of(first)):
            raise Unimplemented(
                "nulls in rows would be compared as values: write a < b OR (a = b AND c < d) for"
                " (a, c) < (b, d), and a = b AND c = d for (a, c) = (b, d)"
            )
    for _, drawn in step.chains(_XOR):
        if len({each.canonical_name() for each in drawn}) < len(drawn):
            raise Unimplemented("x ^ x would be 0 where x is null: write x - x")
