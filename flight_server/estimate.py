"""Joins without an equality: how many pairs they would make.

Such a join cannot be cancelled (it goes on for seconds after its stream was dropped), so one whose
estimated product is beyond the limit is refused before it starts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from flight_server.protocol.errors import ResourceExhausted

#: The settings of a context whose EXPLAIN this module reads.
SETTINGS = {
    "datafusion.explain.show_statistics": "true",
    "datafusion.explain.physical_plan_only": "true",
}

_STEP = re.compile(r" *+[A-Z]\w*Exec\b")
_ROWS = re.compile(r"statistics=\[Rows=(?:Exact|Inexact)\((\d{1,19})\)")
_SERIES = re.compile(r"start=(-?\d+), end=(-?\d+)")
_FETCH = re.compile(r"fetch=(\d{1,19})")
#: Steps that give the first rows.
_FIRST = ("Sort", "GlobalLimitExec", "LocalLimitExec", "Coalesce")
#: Of a join; a text that looks like a step may hide one.
_SIDES = 2
_UNBOUND = ("CrossJoinExec", "NestedLoopJoinExec")
#: Joins with an equality: taken to give as many rows as their larger side.
_JOINS = ("HashJoinExec", "SortMergeJoinExec", "SymmetricHashJoinExec")
#: Elements that a list is taken to have where the engine says nothing.
_LIST_ROWS = 1000
#: Rows that a recursive query is taken to make.
_RECURSIVE_ROWS = 10_000


@dataclass(slots=True)
class _Step:
    line: str
    indent: int
    children: list[_Step] = field(default_factory=list)


def refuse_products(explained: str, limit: int) -> None:
    """Refuses a physical plan with a join whose sides multiply to more than ``limit`` rows.

    Args:
        explained: EXPLAIN of the physical plan with statistics, one operator a line.
        limit: pairs.

    Raises:
        ResourceExhausted: names the product and the setting.
    """
    for root in _tree(explained):
        _refuse(root, limit)


def _refuse(step: _Step, limit: int) -> None:
    for child in step.children:
        _refuse(child, limit)
    if not step.line.startswith(_UNBOUND):
        return
    sides = [_rows(child) for child in step.children]
    known = [max(rows, 1) for rows in sides if rows is not None]
    product = math.prod(known)
    unknown = len(known) < max(len(sides), _SIDES)
    if product > limit or unknown:
        pairs = "an unknown number of" if unknown else f"about {product:,}"
        raise ResourceExhausted(
            f"a join without an equality would compare {pairs} pairs of rows, the limit "
            f"is {limit:,} (limits.max_product_rows): join ON a.x = b.x, or filter first"
        )


def _rows(step: _Step) -> int | None:
    """An estimate of a step's rows, the engine's own where it has one; None: nothing is known."""
    head = step.line.partition("statistics=")[0]
    said = _said(step.line, head)
    rows = _derived(step, head) if said is None else said
    fetched = [int(each) for each in _FETCH.findall(head)] if head.startswith(_FIRST) else []
    if not fetched:
        return rows
    return max(fetched) if rows is None else min(rows, max(fetched))


def _said(line: str, head: str) -> int | None:
    """What the engine says of the step itself."""
    if own := _ROWS.findall(line):
        return max(map(int, own))  # a text in the line may look like it: only more are believed
    if (series := _SERIES.search(head)) is not None:
        return abs(int(series[2]) - int(series[1])) + 1
    return _RECURSIVE_ROWS if head.startswith("RecursiveQueryExec") else None


def _derived(step: _Step, head: str) -> int | None:
    """What follows from the steps below."""
    below = [rows for child in step.children if (rows := _rows(child)) is not None]
    if not below or len(below) < len(step.children):
        return None
    if head.startswith(_UNBOUND):
        return math.prod(below)
    if head.startswith("UnnestExec"):
        return sum(below) * _LIST_ROWS
    return max(below) if head.startswith(_JOINS) else sum(below)


def _tree(explained: str) -> list[_Step]:
    roots: list[_Step] = []
    stack: list[_Step] = []
    for line in _lines(explained):
        step = _Step(line.strip(), len(line) - len(line.lstrip()))
        while stack and stack[-1].indent >= step.indent:
            stack.pop()
        (stack[-1].children if stack else roots).append(step)
        stack.append(step)
    return roots


def _lines(explained: str) -> list[str]:
    """A line for each step: one with a newline in a text has several."""
    steps: list[list[str]] = []
    for line in explained.splitlines():
        if _STEP.match(line):
            steps.append([line])
        elif steps:
            steps[-1].append(line)
    return ["".join(each) for each in steps]
