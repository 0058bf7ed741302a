"""Parameters of a statement: which types the engine infers, and values bound to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import pyarrow as pa
from datafusion import SessionContext

from flight_server.protocol.errors import InvalidArgument, ResourceExhausted
from flight_server.sqllex import Token, lex
from flight_server.sqltext import SqlText
from flight_server.wire import wire_type

#: Of parameters of which the engine leaves some out: each of more would be one planning more.
MOST_ASKED = 100
#: What plans may hold of bound values, and what is not worth to be counted.
MAX_SHOWN_BYTES, _FEW_BYTES = 64 * 1024 * 1024, 64 * 1024
_PREPARE = "EXPLAIN PREPARE parameters AS "
#: After a type's first word: the type is another one than that word says.
_TYPE_GOES_ON = frozenset({"[", "with", "without", "varying", "precision"})


def parameter_schema(context: SessionContext, text: SqlText) -> pa.Schema:
    """One field per parameter, named ``$1``, ``$2``, …; type null where none can be inferred.

    The statement's names must be in scope; it has been planned before, so it is sound.
    """
    types = _inferred(context, text.rewritten)
    if len(types) != text.parameters > MOST_ASKED:
        types = [pa.null()] * text.parameters
    elif len(types) != text.parameters:
        # The engine leaves out what it cannot infer, so positions shift: ask one by one.
        each = [_inferred(context, _only(text.rewritten, n + 1)) for n in range(text.parameters)]
        types = [found[0] if found else pa.null() for found in each]
    return pa.schema([pa.field(f"${n}", wire_type(t)) for n, t in enumerate(types, start=1)])


def _inferred(context: SessionContext, sql: str) -> list[pa.DataType]:
    sql = re.sub(r"^\s*explain\b(?:\s+(?:analyze|verbose)\b)*", "", sql, flags=re.IGNORECASE)
    prepared = context.sql(_PREPARE + sql).logical_plan().inputs()[0]
    return [field.type for field in prepared.to_variant().fields()]


def _only(sql: str, number: int) -> str:
    """The statement with ``$number`` as ``$1`` and every other parameter under a name."""
    pieces: list[str] = []
    at = 0
    for token in lex(sql):
        if token.kind == "parameter":
            mine = token.text == f"${number}"
            pieces += [sql[at : token.start], "$1" if mine else f"$other{token.text[1:]}"]
            at = token.start + len(token.text)
    return "".join([*pieces, sql[at:]])


def described(context: SessionContext, text: SqlText, schema: pa.Schema) -> pa.Schema:
    """What clients are told: where no type can be inferred, that of a CAST around the parameter.

    A value is bound as it comes, and the CAST makes of it what it can; but some clients (JDBC)
    cannot bind without a type. Moments are told in milliseconds: the JDBC driver sends those,
    whatever the unit (arrow-java #838).
    """
    if pa.null() not in schema.types:
        return schema
    casts = _casts(text.rewritten)
    told = {name: _in_milliseconds(_cast_type(context, kind)) for name, kind in casts.items()}
    return pa.schema(
        [f.with_type(told.get(f.name, f.type)) if pa.types.is_null(f.type) else f for f in schema]
    )


def _casts(sql: str) -> dict[str, str]:
    """Parameter → the type in the first ``CAST($n AS type)`` or ``$n::type``, as it is written."""
    found: dict[str, str] = {}
    tokens = lex(sql)
    for i, token in enumerate(tokens):
        if token.kind != "parameter" or token.text in found or i + 2 >= len(tokens):
            continue
        follows, called = tokens[i + 1], tokens[i - 2].name if i > 1 else ""
        if follows.text == "::":
            end = _type_end(tokens, i + 2)
            if end < len(tokens) and tokens[end].name in _TYPE_GOES_ON:
                continue
        elif follows.name == "as" and called in {"cast", "try_cast"} and tokens[i - 1].text == "(":
            end = _closing(tokens, i + 2)
        else:
            continue
        last = tokens[end - 1]
        found[token.text] = sql[tokens[i + 2].start : last.start + len(last.text)]
    return found


def _closing(tokens: Sequence[Token], first: int) -> int:
    """Where the bracket closes that is open before ``first``."""
    depth = 0
    for at, token in enumerate(tokens[first:], start=first):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth < 0:
            return at
    return len(tokens)


def _type_end(tokens: Sequence[Token], first: int) -> int:
    """Where a type ends that nothing encloses: a word, and its sizes in brackets."""
    sized = first + 1 < len(tokens) and tokens[first + 1].text == "("
    return _closing(tokens, first + 2) + 1 if sized else first + 1


def _cast_type(context: SessionContext, written: str) -> pa.DataType:
    """The type that the engine takes the words for."""
    frame = context.sql(f"SELECT CAST(NULL AS {written})")  # it has been planned
    return wire_type(frame.schema().field(0).type)


def _in_milliseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ms", kind.tz)
    return pa.time32("ms") if pa.types.is_time(kind) else kind


def require_small(text: SqlText, parameters: pa.RecordBatch | None) -> None:
    """Bounds what plans hold of bound values: each as often as it stands in the text.

    Raises:
        ResourceExhausted: more than :data:`MAX_SHOWN_BYTES`.
    """
    if parameters is None or parameters.nbytes <= _FEW_BYTES:
        return
    uses = Counter(token.text for token in lex(text.rewritten) if token.kind == "parameter")
    columns = enumerate(parameters.columns, start=1)
    size = sum(uses[f"${number}"] * column.nbytes for number, column in columns)
    if size > MAX_SHOWN_BYTES:
        raise ResourceExhausted(
            f"the bound values come to {size} bytes, each counted wherever it stands, the limit is"
            f" {MAX_SHOWN_BYTES}: name it once, FROM (SELECT $1 AS x) p"
        )


def bound(
    schema: pa.Schema, parameters: pa.RecordBatch | None, row: int = 0
) -> dict[str, pa.Scalar]:
    """One row of parameters as the engine wants it: position → value of the inferred type.

    Raises:
        InvalidArgument: too few or too many, or a value that its type cannot hold.
    """
    given = 0 if parameters is None else parameters.num_columns
    if given != len(schema):
        raise InvalidArgument(f"the statement has {len(schema)} parameters, {given} are bound")
    if parameters is None:
        return {}
    return {str(i + 1): _value(parameters.column(i)[row], field) for i, field in enumerate(schema)}


def _value(value: pa.Scalar, field: pa.Field) -> pa.Scalar:
    if pa.types.is_null(field.type) or value.type == field.type:
        return value
    if not value.is_valid:
        return pa.scalar(None, field.type)
    try:
        return value.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return _number(value, field)


def _number(value: pa.Scalar, field: pa.Field) -> pa.Scalar:
    """A number where Arrow has no exact cast; the engine compares it by its own type then."""
    if _is_number(value.type) and _is_number(field.type):
        if pa.types.is_decimal(field.type):
            try:
                return pa.scalar(Decimal(str(value.as_py())), field.type)
            except (pa.ArrowInvalid, InvalidOperation):
                return value
        return value
    raise InvalidArgument(
        f"parameter {field.name} is of type {field.type}, and {value.type} {_shown(value)} "
        "is no such value"
    )


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _shown(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    # a moment after the year 9999, a lost zone, a type without a Python value
    except (ValueError, ArithmeticError, LookupError, NotImplementedError):
        return "(a value that cannot be shown)"
    return text if len(text) <= 64 else text[:63] + "…"  # noqa: PLR2004  # a glance is enough


def sets(parameters: pa.RecordBatch | None, limit: int) -> int:
    """How many times the statement is executed.

    Raises:
        InvalidArgument: no row of parameters, or more than ``limit``.
    """
    if parameters is None or parameters.num_columns == 0:
        return 1
    if not 1 <= parameters.num_rows <= limit:
        raise InvalidArgument(
            f"{parameters.num_rows} sets of parameters are bound: a query takes 1 to {limit}"
        )
    return int(parameters.num_rows)
