"""Sub-queries that the engine misreads, refused.

DataFusion 55.0 takes the value of a sub-query for not null where its column cannot be null, though
there may be no row; keeps rows that the HAVING of a sub-query without groups drops; makes of EXISTS
over an aggregate a join that needs a match; leaves OFFSET out of a sub-query that refers to what is
outside; and draws random() anew in a condition over a sub-query's column.

Sub-queries' own plans cannot be walked (the bindings hide them): the plan's text is judged.

Source: apache/datafusion issues 24960, 25283, 25415 and 25457; ``tests/test_misread.py``,
against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flight_server.plantext import items, mentions
from flight_server.protocol.errors import Unimplemented

_INSIDE = re.compile(r"(?P<how>\b(?:EXISTS|IN|ANY|ALL) )?\(<subquery>\)")
_OUTER = "outer_ref("
_SKIPS = re.compile(r"^ *+Limit: skip=[1-9]", re.MULTILINE)
#: Steps that give a row though they are given none, …
_ONE_ROW = (
    *("Aggregate: groupBy=[[]]", "Aggregate: groupBy=[[GROUPING SETS", "Aggregate: groupBy=[[CUBE"),
    *("Aggregate: groupBy=[[ROLLUP", "EmptyRelation: rows=1"),
)
#: … and those that stand above one without making another row of it.
_ABOVE = ("Projection: ", "SubqueryAlias: ", "Filter: ", "Sort: ", "Distinct:", "Limit: ")
#: Of these, what may leave out that row.
_FEWER = ("Filter: ", "Limit: ")
#: What would tell a null from a value.
_NULLABLE = re.compile(
    r"IS (?:NOT )?(?:NULL|TRUE|FALSE|UNKNOWN|DISTINCT)|\bCASE\b"
    r"|\b(?:coalesce|nullif|nvl2?|ifnull)\("
)
#: How plans show it.
_VALUE = "(<subquery>)"
#: What is made by chance.
_VOLATILE = re.compile(r"\b(?:random|uuid)\(\)")
_NAMED = re.compile(r" AS (\w++)\]*+$")
_MAKES = re.compile(r" *+(?:Projection|Aggregate|WindowAggr): ")
_JUDGES = re.compile(r"Filter: |\w++ Join: ")


@dataclass(frozen=True, slots=True)
class _Query:
    """A sub-query.

    Attributes:
        how: EXISTS, IN, ANY or ALL; "": its value is asked for, or it stands in FROM.
        step: in which it stands; "": in FROM.
        schema: of its rows, as the plan shows it.
        steps: its own, the first one first.
        correlated: it refers to what is outside.
        skips: so does something in it that leaves out the first rows.
    """

    how: str
    step: str
    schema: str
    steps: Sequence[str]
    correlated: bool
    skips: bool

    def above_aggregate(self) -> Sequence[str] | None:
        """Its steps above one that always gives a row; None: it has none."""
        for at, step in enumerate(self.steps):
            if step.startswith(_ONE_ROW):
                return self.steps[:at]
            if not step.startswith(_ABOVE):
                return None
        return None


def require_sound(plain: str, typed: str) -> None:
    """Refuses sub-queries that the engine would misread.

    Args:
        plain: a plan as the statement says it, by ``display_indent``.
        typed: the same by ``display_indent_schema``.

    Raises:
        Unimplemented: there is one.
    """
    told: dict[str, bool] = {}
    for query in _queries(plain, typed):
        above = query.above_aggregate()
        filtered = above is not None and any(step.startswith("Filter: ") for step in above)
        if query.correlated and query.skips:
            raise Unimplemented(
                "OFFSET in a sub-query that refers to what is outside would be left out: write"
                " (SELECT count(*) …) > n"
            )
        harmless = query.how == "IN" and not any("count(" in step for step in query.steps)
        judged = query.how and not harmless
        if query.correlated and above is not None and (judged or filtered):
            raise Unimplemented(
                "a sub-query that refers to what is outside, and aggregates without GROUP BY, is"
                " a value only, without HAVING: write (SELECT count(*) FROM … WHERE b.x = a.x) > 2"
            )
        sure = above is not None and not any(step.startswith(_FEWER) for step in above)
        if query.how or sure or not query.step or ";N]" in query.schema:
            continue
        if query.step not in told:
            told[query.step] = _is_told_from_null(query.step, plain)
        if told[query.step]:
            raise Unimplemented(
                "that the sub-query of a value finds no row would be lost, as its column cannot be"
                " null: write (SELECT max(x) …)"
            )


def require_drawn_once(shown: str) -> None:
    """Refuses conditions over values that would be drawn by chance once more.

    Args:
        shown: a plan as the statement says it, by ``display_indent``.

    Raises:
        Unimplemented: there is one.
    """
    drawn = _names_of_chance(shown)
    steps = (line.lstrip() for line in shown.split("\n")) if drawn else ()
    if any(_JUDGES.match(step) and mentions(step, drawn) for step in steps):
        raise Unimplemented(
            "a condition over a sub-query's random() or uuid() would draw anew: write the condition"
            " where the value is made, random() < 0.5, or filter what the client gets"
        )


def _names_of_chance(shown: str) -> frozenset[str]:
    """The names of columns that are made by chance, or of such columns."""
    found: frozenset[str] = frozenset()
    for line in reversed(shown.split("\n")) if _VOLATILE.search(shown) else ():  # inner ones first
        for item in items(line) if _MAKES.match(line) else ():
            if _VOLATILE.search(item) or mentions(item, found):
                found |= {named[1] for named in _NAMED.finditer(item)}
    return found


def _is_told_from_null(step: str, plain: str) -> bool:
    """Whether a null is told from a sub-query's value in a step, or above it; or two are compared.

    Brackets are not always shown: what stands between two AND is taken together.
    """
    if step.startswith("Projection: ") and _NULLABLE.search(plain[: plain.find(step)]):
        return True
    parts = (part for item in items(step) for part in item.split(" AND "))
    told = (part for part in parts if _VALUE in part)
    return any(_NULLABLE.search(part) or part.count(_VALUE) > 1 for part in told)


def _queries(plain: str, typed: str) -> Iterator[_Query]:
    """Every sub-query, those inside others among them."""
    lines = plain.split("\n")
    schemas = [
        shown[len(line) :].strip() for line, shown in zip(lines, typed.split("\n"), strict=False)
    ]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    parents: list[int] = []
    waiting: dict[int, list[str]] = {}
    for at, line in enumerate(lines):
        while parents and indents[parents[-1]] >= indents[at]:
            parents.pop()
        step = line.strip()
        if step.startswith("Subquery:"):
            parent = parents[-1] if parents else at
            hows = waiting.get(parent) or [""]
            expressed = bool(waiting.get(parent))
            end = next((n for n in range(at + 1, len(lines)) if indents[n] <= indents[at]), None)
            body = lines[at + 1 : end]
            text = "\n".join(body)
            yield _Query(
                hows.pop(0).strip(),
                lines[parent].strip() if expressed else "",
                schemas[at],
                [each.strip() for each in body],
                _OUTER in text,
                bool(_SKIPS.search(text)),
            )
        else:
            waiting[at] = [found["how"] or "" for found in _INSIDE.finditer(step)]
        parents.append(at)
