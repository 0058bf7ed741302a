"""``FOR VERSION AS OF`` and ``FOR TIMESTAMP AS OF``, which the engine's parser does not know.

``trades FOR VERSION AS OF 17 AS t`` becomes ``"trades$snapshot_17" AS t``: the name says the
version, and no other token moves, so that places in errors stay true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from flight_server.protocol.errors import InvalidArgument
from flight_server.sqllex import Token, syntax_refused

_VERSION = frozenset({"version", "system_version"})
_TIME = frozenset({"timestamp", "system_time"})
#: Words that may follow a table without being its alias.
_NO_ALIAS = frozenset(
    {"anti", "asof", "cluster", "connect", "cross", "distribute", "except", "fetch", "for"}
    | {"from", "full", "global", "group", "having", "inner", "intersect", "into", "join", "left"}
    | {"limit", "match_recognize", "minus", "natural", "offset", "on", "order", "outer", "pivot"}
    | {"prewhere", "qualify", "returning", "right", "sample", "semi", "set", "sort", "start"}
    | {"straight_join", "tablesample", "union", "unpivot", "using", "values", "view", "where"}
    | {"window", "with"}
)
_NAMED = re.compile(
    r"(?P<base>.+?)\$(?:snapshot_(?P<snapshot>\d{1,19})|ref_(?P<ref>.+)|at_(?P<time>.+))", re.DOTALL
)
_CLAUSE_WORDS = 4


def version_edits(sql: str, tokens: Sequence[Token]) -> Mapping[int, str]:
    """New texts for tokens, by their offset: "" for all words of a clause.

    Raises:
        SyntaxRefused: a clause that is not behind a table's name, or not with a literal.
    """
    edits: dict[int, str] = {}
    for at in _clauses(tokens):
        table = tokens[at - 1] if at else None
        if table is None or table.kind not in {"word", "quoted"}:
            raise syntax_refused(sql, tokens[at].start, "AS OF stands behind a table's name")
        words, suffix = _value(sql, tokens, at)
        edits[table.start] = _quoted(f"{table.name}${suffix}")
        edits |= {token.start: "" for token in tokens[at : at + words]}
        if not _has_alias(tokens, at + words):
            edits[tokens[at + words - 1].start] = f"AS {_quoted(table.name)}"
    return MappingProxyType(edits)


def named_version(name: str, time_zone: str) -> tuple[str, str]:
    """A name's table part, and what ``catalog.asof`` calls the version; "" for the newest.

    Args:
        name: ``trades$snapshot_17``, ``trades$ref_audit``, ``trades$at_2024-03-01 12:00:00``.
        time_zone: of times without one.

    Raises:
        InvalidArgument: a time that cannot be read.
    """
    match = _NAMED.fullmatch(name)
    if match is None:
        return name, ""
    if match["snapshot"]:
        return match["base"], f"snapshot_{int(match['snapshot'])}"
    if match["ref"]:
        return match["base"], f"ref_{match['ref']}"
    return match["base"], f"time_{_micros(match['time'], time_zone)}"


def _clauses(tokens: Sequence[Token]) -> Iterator[int]:
    """Where FOR … AS OF begins."""
    names = [token.name if token.kind == "word" else "" for token in tokens]
    for at in range(len(names) - _CLAUSE_WORDS):
        first, second, *rest = names[at : at + _CLAUSE_WORDS]
        if first == "for" and second in _VERSION | _TIME and rest == ["as", "of"]:
            yield at


def _value(sql: str, tokens: Sequence[Token], at: int) -> tuple[int, str]:
    """How many tokens the clause has, and the suffix that says its version."""
    by_time = tokens[at + 1].name in _TIME
    value = tokens[at + _CLAUSE_WORDS]
    words = _CLAUSE_WORDS + 1
    typed = value.kind == "word" and value.name in {"timestamp", "date"}
    if by_time and typed and at + words < len(tokens):
        value, words = tokens[at + words], words + 1
    if value.kind == "string" and value.text.startswith("'"):
        text = value.text[1:-1].replace("''", "'")
        return words, f"{'at' if by_time else 'ref'}_{text}"
    if not by_time and value.kind == "number" and value.text.isdigit():
        return words, f"snapshot_{value.text}"
    what = "TIMESTAMP '2024-03-01 12:00:00'" if by_time else "a snapshot's id, 'branch' or 'tag'"
    raise syntax_refused(sql, value.start, f"write a literal here: {what}")


def _has_alias(tokens: Sequence[Token], at: int) -> bool:
    if at >= len(tokens):
        return False
    token = tokens[at]
    return token.kind == "quoted" or (token.kind == "word" and token.name not in _NO_ALIAS)


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _micros(text: str, time_zone: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidArgument(
            f"AS OF {text[:64]!r} is no time: write 2024-03-01 12:00:00, with a zone or without"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(time_zone))
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
