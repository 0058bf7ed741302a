"""Substrait plans: walked and bounded before the engine makes a plan of its own of them.

The engine's decoder reads the bytes, and what it has read is walked as JSON: so there is no second
decoder that could see something else. A message whose name is not in :data:`KNOWN` is refused, be
it one that reads files, writes, is an extension, or is newer than this list. What the engine then
makes of the plan passes the same walls as SQL (``analysis.require_reading``, the catalog).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datafusion import SessionContext
from datafusion.plan import LogicalPlan
from datafusion.substrait import Consumer, Plan, Serde

from flight_server.protocol.errors import (
    InvalidArgument,
    ResourceExhausted,
    Unimplemented,
    cut,
)
from flight_server.sqlrules import GROWING, JOINING, MAX_GROWTH, REPLACING, SERIES
from flight_server.sqltext import Bounds, SqlText

#: The version of the format that the engine's decoder knows.
VERSION = "0.85.0"
#: A plan says in about four bytes what SQL says in one.
_BYTES_PER_SQL_BYTE = 4
#: Most rows that a plan brings with it.
MAX_ROWS = 10_000
#: Functions that put texts or lists behind one another: forty around one another, each given the
#: same twice, make a terabyte of a character.
_JOINING = JOINING | {"str_concat", "array"}
#: What a function that replaces text is taken to make of a character, at least.
_LEAST_GROWTH = 64

#: Steps of a plan that reads.
RELATIONS = frozenset(
    {"read", "filter", "fetch", "aggregate", "sort", "join", "project", "set", "cross"}
)
#: Expressions whose number is bounded, as that of operators is in SQL.
_COUNTED = RELATIONS | {
    *("scalarFunction", "windowFunction", "measure", "cast", "subquery", "nested"),
    *("ifThen", "switchExpression", "singularOrList", "multiOrList"),
}
_WORDS = """
version majorNumber minorNumber patchNumber gitHash producer
extensionUris extensionUrns extensionUriAnchor extensionUrnAnchor uri urn
extensions extensionFunction extensionUriReference extensionUrnReference functionAnchor name
relations rel root input names
common direct emit outputMapping hint stats rowCount recordSize constraint outputNames
baseSchema bestEffortFilter projection maintainSingularStruct namedTable virtualTable
values expressions condition offset offsetExpr count countExpr
groupings groupingExpressions expressionReferences measures sorts expr direction
left right expression postJoinFilter type inputs op
literal selection value fields functionReference arguments args options outputType enum
preference phase invocation partitions boundsType lowerBound upperBound preceding following
currentRow unbounded ifs if then else match scalar inPredicate needles haystack setPredicate
predicateOp tuples setComparison reductionOp comparisonOp failureBehavior specified
directReference rootReference outerReference stepsOut maskedReference structField field child
listElement mapKey select structItems
bool boolean i8 i16 i32 i64 fp32 fp64 string binary timestamp timestampTz date time
intervalYear intervalDay intervalCompound intervalYearToMonth intervalDayToSecond uuid
fixedChar varchar varChar fixedBinary decimal precisionTime precisionTimestamp
precisionTimestampTz struct list map null nullable nullability typeVariationReference types
key keyValues length precision scale years months days seconds subseconds microseconds
emptyList emptyMap
"""
#: Every name that a plan may hold, in the JSON form of the format's messages. Left out on purpose:
#: files (localFiles, icebergTable), writes (write, update, ddl), extensions (extensionLeaf,
#: extensionSingle, extensionMulti, extensionTable, advancedExtension, types of users), what refers
#: to other parts (reference, lambda) or to values from outside (dynamicParameter), and physical
#: steps (hashJoin, exchange, …).
KNOWN = _COUNTED | frozenset(_WORDS.split())


@dataclass(slots=True)
class _Seen:
    """What a plan holds, as the walk found it."""

    steps: int = 0
    rows: int = 0
    tables: list[str] = field(default_factory=list)
    functions: list[tuple[int, str]] = field(default_factory=list)
    calls: list[tuple[int, int]] = field(default_factory=list)
    longest_literal: int = 0


def read_plan(plan: bytes, shown: str, bounds: Bounds) -> SqlText:
    """A plan that reads tables of the catalog and nothing else, in the place of a text.

    Args:
        plan: the serialised plan.
        shown: what stands for it in messages.
        bounds: those of SQL; a plan may have four times as many bytes.

    Raises:
        InvalidArgument: the bytes are no plan, or one with several relations.
        ResourceExhausted: it is larger than ``bounds``, or makes values that are.
        Unimplemented: it writes, reads files, or holds anything else that is not known.
    """
    if (size := len(plan)) > (limit := bounds.max_bytes * _BYTES_PER_SQL_BYTE):
        raise ResourceExhausted(
            f"the Substrait plan has {size} bytes, the limit is {limit} "
            f"({_BYTES_PER_SQL_BYTE} × limits.max_sql_bytes)"
        )
    seen, decoded = _Seen(), _decoded(plan)
    _walk(decoded, seen)
    if seen.steps > bounds.max_operators:
        raise ResourceExhausted(
            f"the Substrait plan has {seen.steps} steps and operators, the limit is "
            f"{bounds.max_operators} (limits.max_operators)"
        )
    if seen.rows > MAX_ROWS:
        raise ResourceExhausted(f"a Substrait plan may bring {MAX_ROWS} rows: it has {seen.rows}")
    _refuse_growth(seen)
    functions = (name for _, name in seen.functions)
    words = frozenset(name.lower() for name in (*seen.tables, *functions))
    return SqlText(shown, "", 0, "query", "", words, plan=_encoded(decoded))


def logical_plan(context: SessionContext, plan: bytes) -> LogicalPlan:
    """What the engine makes of the ``SqlText.plan`` of :func:`read_plan`."""
    return Consumer.from_substrait_plan(context, Serde.deserialize_bytes(plan))


def _decoded(plan: bytes) -> dict[str, Any]:
    """The plan as JSON.

    Raises:
        InvalidArgument: there is none, or it is nested beyond what a decoder takes.
    """
    refused = InvalidArgument(  # the decoder follows a hundred messages into one another
        f"these {len(plan)} bytes are no Substrait plan of version {VERSION}, or nested too deep"
    )
    try:
        found = json.loads(Serde.deserialize_bytes(plan).to_json())
    except (Exception, RecursionError) as error:  # the binding raises bare ones
        raise refused from error
    relations = _list(found, "relations")
    if len(relations) != 1 or "root" not in relations[0]:
        raise InvalidArgument(
            "a Substrait plan has exactly one relation, a root that names columns"
        )
    return dict(found)


def _encoded(root: dict[str, Any]) -> bytes:
    """The plan with a filter, be it only TRUE, in every read of a table.

    Without one the engine puts the plan of a view in the view's place, and then cannot choose from
    its columns; our tables are views once a statement is executed. With one, it reads them as
    tables, into whose views it pushes filters and columns down all the same.
    """
    for node in _nodes(root):
        if isinstance(read := node.get("read"), dict):
            read.setdefault("filter", {"literal": {"boolean": True}})
    try:
        return Plan.from_json(json.dumps(root)).encode()
    except Exception as error:  # the binding raises bare ones
        raise InvalidArgument("the Substrait plan is nested too deep: about 30 levels") from error


def _walk(root: dict[str, Any], seen: _Seen) -> None:
    for node in _nodes(root):
        unknown = node.keys() - KNOWN
        if unknown:
            raise Unimplemented(
                f"Substrait plans with {cut(min(unknown), 100)!r} are not offered: plans read "
                "tables of the catalog (namedTable), and have no extensions or parameters"
            )
        seen.steps += len(node.keys() & _COUNTED) + len(_list(node, "ifs"))
        seen.steps += max(0, len(_list(node, "arguments")) - 2)  # and(a, b, c) is a chain
        seen.rows += sum(len(_list(node.get("virtualTable"), k)) for k in ("values", "expressions"))
        seen.tables += _list(node.get("namedTable"), "names")
        if isinstance(declared := node.get("extensionFunction"), dict):
            # repeat:str_i64 is the function repeat
            name = str(declared.get("name", "")).partition(":")[0].lower()
            seen.functions.append((declared.get("functionAnchor", 0), name))
        if "literal" in node:
            seen.longest_literal = max(seen.longest_literal, len(str(node["literal"])))
        if isinstance(called := node.get("scalarFunction"), dict):
            seen.calls.append((called.get("functionReference", 0), len(_list(called, "arguments"))))


def _nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every message of a plan; without recursion."""
    left: list[Any] = [root]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)


def _list(node: object, name: str) -> list[Any]:
    found = node.get(name) if isinstance(node, dict) else None
    return found if isinstance(found, list) else []


def _refuse_growth(seen: _Seen) -> None:
    """Bounds the functions that make large values: ``sqlrules`` says why.

    Calls that replace or join text are all taken to be around one another, with the longest
    literal, and with the same text as every argument.

    Raises:
        Unimplemented: names the function, or says how many calls there are.
    """
    names = {name for _, name in seen.functions}
    for name in sorted(names & (GROWING.keys() | SERIES)):
        raise Unimplemented(f"{name}(…) is not offered in Substrait plans: send SQL")
    replaced = min(max(_LEAST_GROWTH, seen.longest_literal), MAX_GROWTH + 1)
    growing = {anchor: replaced for anchor, name in seen.functions if name in REPLACING}
    joining = {anchor for anchor, name in seen.functions if name in _JOINING}
    factors = [
        *(growing[anchor] for anchor, _ in seen.calls if anchor in growing),
        *(max(1, count) for anchor, count in seen.calls if anchor in joining),
    ]
    if math.prod(factors) > MAX_GROWTH:
        raise Unimplemented(
            f"Substrait plans with {len(factors)} calls that replace or join text or lists, or "
            "with so long a literal for them, are not offered: send SQL"
        )
