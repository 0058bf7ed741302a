"""SET, USE, SHOW and RESET: what they say, as values. Which options there are is not known here.

``SHOW TABLES`` and the like are the engine's; so are its own settings (``SHOW datafusion.…``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flight_server.protocol.errors import SyntaxRefused, Unimplemented
from flight_server.sqllex import Token, lex, syntax_refused
from flight_server.sqltext import single

__all__ = [
    "ResetAll",
    "SessionStatement",
    "SetOption",
    "ShowOptions",
    "UseSchema",
    "is_session_statement",
    "read_session",
]


@dataclass(frozen=True, slots=True)
class SetOption:
    """``SET name = value``, ``RESET name``: a value of None is the default."""

    name: str
    value: str | int | float | None


@dataclass(frozen=True, slots=True)
class ResetAll:
    """``RESET ALL``."""


@dataclass(frozen=True, slots=True)
class UseSchema:
    """``USE schema``, ``USE catalog.schema``: the parts of the name."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """``SHOW name``; a name of None is ``SHOW ALL``."""

    name: str | None


SessionStatement = SetOption | ResetAll | UseSchema | ShowOptions

#: Longer texts are none of these statements.
_MAX_CHARACTERS = 4096
#: What may stand before the first word; the lexer decides about what passes.
_FIRST_WORD = re.compile(
    r"(?:\s|;|--[^\n]*\n|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*+(?:set|use|show|reset)\b", re.IGNORECASE
)
#: What follows SHOW in the engine's own statements, and in those of other databases about tables.
_SHOWN_BY_ENGINE = frozenset(
    {
        *("catalogs", "columns", "create", "databases", "datafusion", "extended", "fields"),
        *("full", "functions", "indexes", "keys", "processlist", "schemas", "stats", "tables"),
        *("variables", "views"),
    }
)
#: Options whose value may follow without a sign, as standard SQL has it (SET SCHEMA 'x').
_WITHOUT_SIGN = frozenset({"time_zone", "schema", "catalog"})
#: Options whose values are identifiers: not case-sensitive without quotes.
_IDENTIFIERS = frozenset({"schema", "catalog"})
_ALIASES = {"timezone": "time_zone"}
_NO_TRANSACTIONS = "there are no transactions: every statement stands alone"


def is_session_statement(sql: str) -> bool:
    """Whether :func:`read_session` takes it, be it well formed or not; never raises."""
    try:
        return _words(sql) is not None
    except SyntaxRefused:
        return False


def read_session(sql: str) -> SessionStatement | None:
    """What the statement says; None where it is none of these.

    Raises:
        SyntaxRefused: it starts as one of these and goes on in another way.
        InvalidArgument: several statements.
        Unimplemented: it is about transactions.
    """
    tokens = _words(sql)
    if tokens is None:
        return None
    read = {"set": _set, "use": _use, "show": _show, "reset": _reset}[tokens[0].name]
    return read(_Words(sql, single(tokens)[1:]))


def _words(sql: str) -> list[Token] | None:
    if len(sql) > _MAX_CHARACTERS or _FIRST_WORD.match(sql) is None:
        return None
    tokens = lex(sql)
    while tokens and tokens[0].text == ";":
        tokens.pop(0)
    first, second = (*(t.name for t in tokens[:2]), "", "")[:2]
    if first not in {"set", "use", "show", "reset"} or tokens[0].kind != "word":
        return None
    return None if first == "show" and second in _SHOWN_BY_ENGINE else tokens


class _Words:
    """The tokens after the first word, taken from the front; one thread."""

    def __init__(self, sql: str, tokens: Sequence[Token]) -> None:
        self.sql = sql
        self._left = list(tokens)

    def names(self, *words: str) -> bool:
        """Takes ``words`` if they come next."""
        found = [t.name for t in self._left[: len(words)] if t.kind == "word"]
        if found != list(words):
            return False
        del self._left[: len(words)]
        return True

    def sign(self) -> bool:
        """Takes ``=`` or TO if it comes next."""
        return self.names("to") or self._symbol("=")

    def path(self) -> list[Token]:
        """Takes a name of one or more parts."""
        parts = [self._identifier()]
        while self._symbol("."):
            parts.append(self._identifier())
        return parts

    def take(self, wanted: str) -> Token:
        """Takes the next token, which should be ``wanted``."""
        if not self._left:
            raise self.refused(wanted)
        return self._left.pop(0)

    def end(self) -> None:
        """Nothing may follow."""
        if self._left:
            raise self.refused("the end of the statement (longer values stand in quotes)")

    def refused(self, wanted: str) -> SyntaxRefused:
        """Something else than ``wanted`` comes next."""
        at = self._left[0].start if self._left else len(self.sql)
        return syntax_refused(self.sql, at, f"{wanted} is expected here")

    def _symbol(self, text: str) -> bool:
        if not self._left or self._left[0].text != text:
            return False
        del self._left[0]
        return True

    def _identifier(self) -> Token:
        if not self._left or self._left[0].kind not in {"word", "quoted"}:
            raise self.refused("a name")
        return self._left.pop(0)


def _set(words: _Words) -> SetOption:
    if words.names("local"):
        raise Unimplemented(f"SET LOCAL is not offered: {_NO_TRANSACTIONS}")
    words.names("session")
    if words.names("transaction") or words.names("characteristics"):
        raise Unimplemented(f"SET TRANSACTION is not offered: {_NO_TRANSACTIONS}")
    name = _option(words)
    if not words.sign() and name not in _WITHOUT_SIGN:
        raise words.refused("= or TO")
    value = _value(words, name)
    words.end()
    return SetOption(name, value)


def _reset(words: _Words) -> SetOption | ResetAll:
    words.names("session")
    reset = ResetAll() if words.names("all") else SetOption(_option(words), None)
    words.end()
    return reset


def _show(words: _Words) -> ShowOptions:
    words.names("session")
    shown = ShowOptions(None if words.names("all") else _option(words))
    words.end()
    return shown


def _use(words: _Words) -> SetOption | UseSchema:
    if words.names("catalog"):
        used: SetOption | UseSchema = SetOption("catalog", words.path()[0].name)
    else:
        words.names("schema") or words.names("database") or words.names("namespace")
        used = UseSchema(tuple(part.name for part in words.path()))
    words.end()
    return used


def _option(words: _Words) -> str:
    if words.names("time", "zone"):
        return "time_zone"
    name = ".".join(part.name.lower() for part in words.path())
    return _ALIASES.get(name, name)


def _value(words: _Words, name: str) -> str | int | float | None:
    token = words.take("a value")
    sign = token.text if token.text in {"-", "+"} else ""
    token = words.take("a number") if sign else token
    if token.kind == "number":
        text = sign + token.text
        return int(text) if token.text.isdigit() else _decimal(words, token, text)
    if sign or token.kind not in {"string", "quoted", "word"}:
        raise syntax_refused(
            words.sql, token.start, "a value is written as text in quotes, a number or one word"
        )
    if token.kind == "word":
        if token.name == "default" or (token.name == "local" and name == "time_zone"):
            return None
        return token.name if name in _IDENTIFIERS else token.text
    return token.name if token.kind == "quoted" else _text(words, token)


def _decimal(words: _Words, token: Token, text: str) -> float:
    try:
        return float(text)
    except ValueError:  # 0x10
        raise syntax_refused(words.sql, token.start, "this is no decimal number") from None


def _text(words: _Words, token: Token) -> str:
    if not token.text.startswith("'"):
        raise syntax_refused(words.sql, token.start, "write a plain '…' string")
    return token.text[1:-1].replace("''", "'")
