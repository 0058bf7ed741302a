"""What plans show, as patterns and items: the bindings give no other way to tell some things."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: A literal that is all of an operand: ``Int64(5)``, ``Utf8("x")``, ``Decimal128(Some(150),9,2)``,
#: ``TimestampMicrosecond(0, Some("UTC"))``. A text with quotes, or over several lines, is taken for
#: none.
LITERAL = (
    r"(?:NULL|(?!(?:TRY_)?CAST\()[A-Z]\w*+"
    r"\((?:[^()\"\n]|\"[^\"\n]*\"|\((?:[^()\"\n]|\"[^\"\n]*\")*+\))*+\))"
    r"(?: AS \w++\))*+(?=[\]),]| AND| OR|$)"
)
_MARK = re.compile(r'"[^"\n]*+"|[()]|, ')


def items(line: str) -> Iterator[str]:
    """What stands between the commas of a step's line; those inside of brackets part nothing."""
    depth = start = 0
    for mark in _MARK.finditer(line):
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        if mark[0] == ", " and depth == 0:
            yield line[start : mark.start()]
            start = mark.end()
    yield line[start:]


_WORD = re.compile(r"\w++")


def mentions(text: str, names: frozenset[str]) -> bool:
    """Whether some of these columns stand in an expression."""
    return not names.isdisjoint(_WORD.findall(text))
