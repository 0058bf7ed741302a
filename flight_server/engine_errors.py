"""The engine's untyped errors → ours, in one place.

DataFusion raises ValueError while planning, a bare Exception while executing and, where Rust
panicked, a BaseException; all that tells them apart is their text. Texts may hold local paths and
Rust backtraces, so nothing goes out that has not been through :func:`clean`.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from catalog.errors import MAX_VALUE_CHARS, CatalogError, FileMissing, shorten
from flight_server.names import TABLE_FUNCTIONS, Reference, Scope
from flight_server.protocol.errors import (
    DataLost,
    FlightSqlError,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    TryAgain,
    Unimplemented,
)
from flight_server.sqllex import syntax_refused
from flight_server.sqltext import SqlText

_log = logging.getLogger(__name__)

#: Longest text of the engine that is passed on.
_MAX_TEXT = 400

#: What stores' clients say of credentials that are wrong or have ended.
_REFUSED = ("403 Forbidden", "401 Unauthorized", "necessary privileges", "valid authentication")

#: What DataFusion's bindings raise; whatever else comes is a defect of ours.
_ENGINE_RAISES = frozenset({ValueError, Exception, RuntimeError, NotImplementedError, OSError})

#: Functions that other engines have → what to write here (docs/sql.md has them in full).
_MINUTES = "(to_unixtime(b) - to_unixtime(a)) / 60"
REPLACEMENTS = {
    **dict.fromkeys(["max_by", "arg_max"], "first_value(x ORDER BY t DESC NULLS LAST)"),
    **dict.fromkeys(["min_by", "arg_min"], "first_value(x ORDER BY t)"),
    **dict.fromkeys(["date_diff", "datediff", "timestampdiff"], _MINUTES),
    **dict.fromkeys(["date_add", "dateadd"], "t + interval '1 day'"),
    **dict.fromkeys(["if", "iff"], "CASE WHEN c THEN a ELSE b END"),
    **dict.fromkeys(["count_if", "countif"], "count(*) FILTER (WHERE c)"),
    **dict.fromkeys(["year", "month", "day", "hour"], "extract(year FROM t)"),
    **dict.fromkeys(["listagg", "group_concat"], "string_agg(x, ',')"),
    **dict.fromkeys(["quantile", "percentile"], "percentile_cont(0.5) WITHIN GROUP (ORDER BY x)"),
    "time_bucket": "date_bin(interval '5 minutes', t)",
    "epoch_ms": "cast(date_part('epoch', t) * 1000 as bigint)",
    "strftime": "to_char(t, f)",
    "mode": "a sub-query that groups by x, ORDER BY count(*) DESC LIMIT 1",
    "len": "length(x)",
}

# Messages hold texts of the statement: no pattern looks through all that follows at every place.

#: Where the parser stopped; of several, the last is its own.
_AT = re.compile(r" at Line: (?P<line>\d{1,9}+), Column: (?P<column>\d{1,9}+)")
_NO_TABLE = re.compile(r"(?:table|No table named) '([^']*)'")
#: What stands before a column that there is not, and before those that there are.
_NO_COLUMN, _VALID = "No field named ", "Valid fields are "
_NAME = re.compile(r"(?P<name>.+?)\.(?:\s|$)")
_NO_FUNCTION = re.compile(r"Invalid function '(?P<name>[^']*)'")
_PARAMETER = re.compile(r"Placeholder '(?P<id>[^']*)' was not provided")
_NOISE = re.compile(
    r"DataFusion error: |Error during planning: |Optimizer rule '\w++' failed|caused by"
    r"|Execution error: |Arrow error: |SQL error: |Internal error: |Schema error: "
    r"|Substrait error: "
    r"|This issue was likely caused by a bug in DataFusion's code.*"
    r"|[Bb]acktrace:.*",
    re.DOTALL,
)
_PATH = re.compile(r"(?:(?<!\w)\w++://|/|(?<![\w.\-=%@+~]))(?:[\w.\-=%@+~]++/){2,}[\w.\-=%@+~]*+")


@contextmanager
def engine_errors(text: SqlText, scope: Scope) -> Iterator[None]:
    """Only typed errors leave this block; see :func:`wrap`."""
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001  # Rust panics are BaseExceptions; all are re-raised
        wrap(error, text, scope)


def wrap(error: BaseException, text: SqlText, scope: Scope) -> NoReturn:
    """Raises what a client may see in the place of what the engine raised.

    Raises:
        FlightSqlError, CatalogError: always one of them; KeyboardInterrupt and the like as is.
    """
    if isinstance(scope.error, FlightSqlError | CatalogError):
        raise scope.error
    if isinstance(error, FlightSqlError | CatalogError):
        raise error
    panicked = type(error).__name__ == "PanicException"
    if not isinstance(error, Exception) and not panicked:
        raise error
    if panicked and text.plan is not None:  # a place in the plan that is not there
        raise InvalidArgument("the Substrait plan refers to a column or step that it has not")
    if panicked:
        _log.error("engine_panic", exc_info=error)
        raise Internal("the engine failed on this statement: please report it") from error
    if scope.error is not None:
        _log.error("catalog_failed", exc_info=scope.error)
        raise Internal("a table could not be looked up") from scope.error
    if type(error) not in _ENGINE_RAISES:
        _log.error("statement_failed", exc_info=error)
        raise Internal("the server failed on this statement: please report it") from error
    raise translate(str(error), text, scope) from error


def translate(message: str, text: SqlText, scope: Scope) -> FlightSqlError | CatalogError:
    """The typed error for a text of the engine's."""
    for mark, make in _RULES:
        if mark in message:
            return make(message, text, scope)
    _log.error("engine_error reason=%s", shorten(message))
    return Internal(f"the engine failed: {clean(message)}")


def clean(message: str) -> str:
    """The engine's text without prefixes, paths and backtraces, in one line."""
    plain = _PATH.sub("…", _NOISE.sub("", message)).strip()
    plain = " ".join(plain.split())
    return plain if len(plain) <= _MAX_TEXT else plain[: _MAX_TEXT - 1] + "…"


def _syntax(message: str, text: SqlText, _: Scope) -> FlightSqlError:
    if "RecursionLimitExceeded" in message:
        return ResourceExhausted("the statement is nested too deep for the parser: about 50 levels")
    inner = message.partition('Error("')[2].rpartition('")')[0] or clean(message)
    places = list(_AT.finditer(inner))
    if not places:
        return syntax_refused(text.sql, len(text.sql), inner)
    match = places[-1]
    offset = _offset(text.rewritten, int(match["line"]), int(match["column"]))
    reason = inner[: match.start()].lstrip('"')
    reason = reason.replace("Expected: ", "expected ").replace("found: ", "found ")
    return syntax_refused(text.sql, text.origin(offset), reason)


def _offset(sql: str, line: int, column: int) -> int:
    before = sql.split("\n", line - 1)[: line - 1]
    return sum(len(each) + 1 for each in before) + max(column - 1, 0)


def _no_table(message: str, _: SqlText, scope: Scope) -> FlightSqlError:
    match = _NO_TABLE.search(message)
    named = match[1] if match else ""
    asked = [at for at in scope.missing if named.endswith(f".{at[1]}")]
    at = asked[-1] if asked else _reference(named, scope)
    if not at[1]:  # what the engine makes of a table function that it does not know
        return NotFound(f"the table functions are {', '.join(sorted(TABLE_FUNCTIONS))}: no others")
    return NotFound(f"there is no table {'.'.join(at)}{_did_you_mean(scope.nearest(at))}")


def _reference(named: str, scope: Scope) -> Reference:
    parts = named.split(".")
    return scope.reference(parts[-2] if len(parts) > 1 else None, parts[-1])


def _did_you_mean(names: Sequence[str]) -> str:
    return f"; the nearest are {', '.join(names)}" if names else ""


def _no_column(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    match = _NAME.match(message.partition(_NO_COLUMN)[2])
    name = match["name"] if match else "?"
    valid = message.partition(_VALID)[2].rstrip()
    fields = valid.removesuffix(".").split(", ") if valid.endswith(".") else []
    name, fields = shorten(name), [field for field in fields if len(field) <= MAX_VALUE_CHARS]
    if not fields:
        return NotFound(f"there is no column {name}")
    plain = {field.rpartition(".")[2].strip('"'): field for field in fields}
    wanted = name.rpartition(".")[2].strip('"')
    near = [plain[each] for each in difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)]
    quoted = [plain[each] for each in plain if each.lower() == wanted.lower() and each != wanted]
    if quoted:
        return NotFound(
            f'there is no column {name}; write "{quoted[0].rpartition(".")[2].strip(chr(34))}" '
            "in double quotes: names without them are lower case"
        )
    shown = near or fields[:10]
    return NotFound(f"there is no column {name}{_did_you_mean([shorten(each) for each in shown])}")


def _no_function(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    match = _NO_FUNCTION.search(message)
    name = match["name"] if match else "?"
    if name.lower() in REPLACEMENTS:
        return NotFound(f"there is no function {name}: write {REPLACEMENTS[name.lower()]}")
    found = re.search(r"Did you mean '([^']*)'", message)
    near = difflib.get_close_matches(name.lower(), [found[1]] if found else [], cutoff=0.7)
    return NotFound(f"there is no function {shorten(name)}{_did_you_mean(near)}")


def _overflow(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    return InvalidArgument(
        f"the numbers of a calculation became too large ({clean(message)[:120]}): cast an operand "
        "to double, or to a decimal with fewer places, e.g. "
        "sum(CAST(price AS double) * CAST(quantity AS double)) or "
        "sum(price * CAST(quantity AS decimal(20, 4))); compare doubles with 1.5e0, not 1.5"
    )


def _memory(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    if "max_temp_directory_size" in message or "disk usage" in message:
        return ResourceExhausted(
            "the statement spilled more than limits.spill_bytes: filter or aggregate earlier"
        )
    return ResourceExhausted(
        "the statement needs more memory than is left of limits.memory_bytes, in a step that "
        "cannot spill (a hash join, a large ORDER BY … LIMIT): filter or aggregate earlier"
    )


def _missing_file(_: str, __: SqlText, scope: Scope) -> CatalogError:
    names = ", ".join(sorted({str(name) for name, _ in scope.pins}))
    return FileMissing(f"a data file of the version of {names} that this statement reads is gone")


def _parameter(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    match = _PARAMETER.search(message)
    return InvalidArgument(f"parameter {match['id'] if match else '?'} is not bound")


def _duplicate(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    """The engine calls ``max(x)`` and ``max(cast(x AS …))`` alike."""
    return InvalidArgument(
        f"{clean(message)}: a cast has no name of its own, give it one in a sub-query:"
        " write CAST(x AS date) AS y there"
    )


def _not_offered(message: str, _: SqlText, __: Scope) -> FlightSqlError:
    """Without the syntax tree that the engine prints."""
    plain = clean(message).removeprefix("This feature is not implemented: ")
    return Unimplemented(
        f"{re.split(r' [{(]|: ', plain)[0]}: not offered; docs/sql.md says what to write instead"
    )


def _plain(kind: type[FlightSqlError]) -> Callable[[str, SqlText, Scope], FlightSqlError]:
    def make(message: str, _: SqlText, __: Scope) -> FlightSqlError:
        return kind(clean(message))

    return make


def _fixed(error: FlightSqlError) -> Callable[[str, SqlText, Scope], FlightSqlError]:
    def make(message: str, _: SqlText, __: Scope) -> FlightSqlError:
        _log.error("engine_error reason=%s", shorten(message))
        return type(error)(str(error))

    return make


_CORRELATED = _fixed(
    Unimplemented(
        "this form of correlated sub-query (or LATERAL) is not offered: write a join, or a window "
        "function"
    )
)


def _store_failed(text: str, _text: SqlText, _scope: Scope) -> FlightSqlError:
    if any(mark in text for mark in _REFUSED):
        return TryAgain("the store of the data files refused the credentials")
    return TryAgain("the store of the data files did not answer")


_READS_ONLY = _fixed(Unimplemented("this server reads: statements that write are not offered"))

#: The first mark that a text holds decides.
_RULES: tuple[tuple[str, Callable[[str, SqlText, Scope], FlightSqlError | CatalogError]], ...] = (
    ("ParserError(", _syntax),
    ("TokenizerError(", _syntax),
    ("RecursionLimitExceeded", _syntax),
    ("DDL not supported", _READS_ONLY),
    ("DML not supported", _READS_ONLY),
    ("Statement not supported", _READS_ONLY),
    ("OuterReferenceColumn", _CORRELATED),
    ("Resources exhausted", _memory),
    ("max_temp_directory_size", _memory),
    ("not found in object store", _missing_file),
    ("Object at location", _missing_file),
    ("No such file or directory", _missing_file),
    ("Object Store error", _store_failed),
    ("ObjectStore(", _store_failed),
    ("Parquet error", _fixed(DataLost("a data file cannot be read: it is damaged"))),
    ("ParquetError(", _fixed(DataLost("a data file cannot be read: it is damaged"))),
    ("IO error", _fixed(TryAgain("the server's disk failed while the statement ran"))),
    ("was not provided a value", _parameter),
    ("Invalid function", _no_function),
    ("No field named", _no_column),
    ("' not found", _no_table),
    ("No table named", _no_table),
    ("overflow", _overflow),
    ("Overflow", _overflow),
    ("too large to store in a Decimal", _overflow),
    ("exceed max scale", _overflow),
    ("failed to match any signature", _plain(InvalidArgument)),
    ("not implemented", _not_offered),
    ("not supported", _not_offered),
    (
        "does not match with the projection expression",
        _fixed(
            Unimplemented(
                "columns of one name meet in these joins where the engine fails: write b LEFT JOIN"
                " a for a RIGHT JOIN b, or give them names of their own in a sub-query"
            )
        ),
    ),
    ("Internal error", _fixed(Internal("the engine failed on this statement: please report it"))),
    ("Schema contains duplicate", _duplicate),
    ("Error during planning", _plain(InvalidArgument)),
    ("Schema error", _plain(InvalidArgument)),
    ("SQL error", _plain(InvalidArgument)),
    ("Substrait error", _plain(InvalidArgument)),
    ("Execution error", _plain(InvalidArgument)),
    ("regex", _plain(InvalidArgument)),
    ("Arrow error", _plain(InvalidArgument)),
    ("Invalid or Unsupported Configuration", _plain(InvalidArgument)),
)
