"""What plans show, as patterns and calls: the bindings give no other way to tell some things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: A literal that is all of an operand: ``Int64(5)``, ``Utf8("x")``, ``Decimal128(Some(150),9,2)``,
#: ``TimestampMicrosecond(0, Some("UTC"))``. A text with quotes, or over several lines, is taken for
#: none.
LITERAL = (
    r"(?:NULL|(?!(?:TRY_)?CAST\()[A-Z]\w*+"
    r"\((?:[^()\"\n]|\"[^\"\n]*\"|\((?:[^()\"\n]|\"[^\"\n]*\")*+\))*+\))"
    r"(?: AS \w++\))*+(?=[\]),]| AND| OR|$)"
)
#: What compares two values.
COMPARISON = r"(?:[<>]=?|!?=|IS (?:NOT )?DISTINCT FROM|(?:NOT )?BETWEEN)"

_MARK = re.compile(r'"[^"\n]*+"|(?<!\w)\w*+\(|\)|\n')


@dataclass(slots=True, eq=False)
class Call:
    """A function's call, or a cast.

    Attributes:
        text: in which it stands.
        name: of the function.
        start, end: where.
        around: the call or the brackets in which it stands.
    """

    text: str
    name: str
    start: int
    around: Call | None
    end: int = 0

    @property
    def inside(self) -> str:
        """What stands between its brackets."""
        return self.text[self.start + len(self.name) + 1 : self.end - 1]

    @property
    def within(self) -> str:
        """The name of the call around it; "": none."""
        return self.around.name if self.around else ""


def calls(text: str) -> Iterator[Call]:
    """Every call that a plan's text shows, inner ones first; those over several lines are none."""
    last: Call | None = None
    for mark in _MARK.finditer(text):
        found = mark[0]
        if found == "\n":
            last = None
        elif found == ")":
            if last is not None:
                last.end = mark.end()
                yield last
                last = last.around
        elif found[0] != '"':
            last = Call(text, found[:-1], mark.start(), last)


_WORD = re.compile(r"\w++")


def mentions(text: str, names: frozenset[str]) -> bool:
    """Whether some of these columns stand in an expression."""
    return not names.isdisjoint(_WORD.findall(text))
