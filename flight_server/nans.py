"""Floating columns of files in which a NaN may hide from the engine.

To the engine NaN is greater than every number; Parquet's statistics leave it out, and the engine
(55.0) believes them: a column whose least and greatest numbers are equal is a constant to it, a
file whose greatest number is 1 has no row for ``x > 1``, and ``max(x)`` is 1. Files that we write
have no statistics for a column that holds a NaN, and say in their manifest which hold none; files
of other writers may say nothing.

So a column that a statement judges rows by, and of which some file that it reads does not say that
it holds no NaN, is read through a function that the engine cannot see through; conditions on other
columns prune as ever. Where a column that it reads at all may look constant, the engine's own
statistics are put aside for the whole statement.

So is a column that is asked for a zero: a file's Bloom filter knows numbers by their bits, and
0.0 and -0.0, which are one number, differ in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
from datafusion import DataFrame, Expr
from datafusion import functions as f

from catalog.files import CONSTANT, PROVEN
from catalog.scan import column
from flight_server.plantext import LITERAL

#: What the engine must be told where a column only looks constant.
NO_STATISTICS: Mapping[str, str] = MappingProxyType(
    {"datafusion.execution.collect_statistics": "false"}
)
#: A zero that something is to be: less, greater or another do not ask Bloom filters.
_ZERO = re.compile(r"(?<![<>!] )(?<![<>!]= )\bFloat(?:16|32|64)\(-?0\)")
#: A column that is to be what is no literal: a file in which that is 0 throughout makes it one.
_OTHER = re.compile(
    rf" (?:[<>]?= |BETWEEN )(?!{LITERAL})| IN \(\[(?!(?:{LITERAL}, )*{LITERAL}\]\))",
    re.MULTILINE,
)
#: So few are looked at one by one: a kernel's call costs as much as some of them.
_FEW_FILES = 4


@dataclass(frozen=True, slots=True)
class Touched:
    """Columns of a table that a statement reads.

    Attributes:
        read: all of them.
        judged: those among them that decide over rows, or whose order or extremes are asked for.
    """

    read: frozenset[str]
    judged: frozenset[str]

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.read | other.read, self.judged | other.judged)


@dataclass(frozen=True, slots=True)
class Doubt:
    """What statistics must not be believed of.

    Attributes:
        columns: that are judged by, and in which a NaN or a zero may hide.
        constants: some column that is read may look constant.
    """

    columns: frozenset[str] = frozenset()
    constants: bool = False

    def shielded(self, frame: DataFrame) -> DataFrame:
        """The same rows; nothing that is known of these columns reaches a plan over them."""
        if not self.columns:
            return frame
        return frame.select(*(self._shielded(name) for name in frame.schema().names))

    def _shielded(self, name: str) -> Expr:
        mine = column(name)
        return f.nanvl(mine, mine).alias(name) if name in self.columns else mine


def asks_for_zero(condition: str) -> bool:
    """Whether some floating number is looked for that is a zero, or may be one in some file.

    Args:
        condition: as plans show it, or a whole plan.
    """
    return bool(_ZERO.search(condition) or _OTHER.search(condition))


def doubt(entries: pa.Table, touched: Touched | None, *, zero: bool) -> Doubt:
    """What is not known of the files that a statement reads.

    Args:
        entries: of these files.
        touched: which columns it reads; None: it may read all, and judge by all.
        zero: it may look for a zero in them.
    """
    known = entries["nan"]
    names = [field.name for field in known.type if touched is None or field.name in touched.read]
    if not names or entries.num_rows == 0:
        return Doubt()
    worst = _worst(known, names)
    columns = (name for name in names if touched is None or name in touched.judged)
    return Doubt(
        frozenset(name for name in columns if zero or worst[name] != PROVEN),
        CONSTANT in worst.values(),
    )


def _worst(known: pa.ChunkedArray, names: Sequence[str]) -> Mapping[str, int]:
    """The least that some file says of each column."""
    if len(known) <= _FEW_FILES:
        rows = known.to_pylist()
        return {name: max(row[name] for row in rows) for name in names}
    return {name: pc.max(pc.struct_field(known, name)).as_py() for name in names}
