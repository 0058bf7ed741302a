"""The tokens of a statement, by the rules of DataFusion's generic dialect to the letter.

Where two lexers disagree, a chain of operators hides in what one of them takes for a comment or a
string. (sqlglot's tokenizer takes ``{# … #}`` for a comment, DataFusion does not: hence a lexer of
our own; a test compares it with the engine's.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from flight_server.protocol.errors import SyntaxRefused

__all__ = ["Token", "lex", "syntax_refused"]


class Token(NamedTuple):
    """One token; comments and white space are none.

    ``kind``: word, quoted (an identifier in quotes), string, number, parameter, or operator for
    everything else, brackets and commas included.
    """

    kind: str
    text: str
    start: int

    @property
    def name(self) -> str:
        """The identifier or keyword as it is compared: unquoted, words in lower case."""
        if self.kind == "quoted":
            quote = self.text[0]
            return self.text[1:-1].replace(quote * 2, quote)
        return self.text.lower()


_LEXEMES = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<string>'[^']*(?:''[^']*)*')
    |(?P<quoted>"[^"]*(?:""[^"]*)*"|`[^`]*(?:``[^`]*)*`)
    |(?P<dollar>\$\w*\$)
    |(?P<parameter>\$\w+|\?[0-9]*)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[\w@\#][\w@$\#]*)
    |(?P<operator>::|\|\||<=>|<>|!=|<=|>=|=>|==|[^\w\s])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
#: Literal prefixes that the engine parses but does not support; their quoting rules differ.
_FOREIGN_PREFIXES = frozenset({"n", "b", "r", "q", "nq"})


def lex(sql: str) -> list[Token]:
    """The tokens of ``sql``.

    Raises:
        SyntaxRefused: an unterminated string, comment or quoted name; an unsupported literal.
    """
    tokens: list[Token] = []
    at = 0
    while at < len(sql):
        match = _LEXEMES.match(sql, at)
        if match is None or match.lastgroup is None:
            raise syntax_refused(sql, at, "a character that cannot be read")
        kind, text, start = match.lastgroup, match.group(), at
        at = match.end()
        if kind == "space":
            continue
        if kind == "comment":
            at = _after_comment(sql, start)
            continue
        if kind == "dollar":
            kind, at = "string", _after_dollar_string(sql, start, text)
        elif kind == "word" and sql[at : at + 1] in {"'", '"', "&"}:
            kind, at = _prefixed(sql, start, at)
        elif kind == "operator" and text in {"'", '"', "`"}:
            raise syntax_refused(sql, start, f"{text} is opened here and never closed")
        tokens.append(Token(kind, sql[start:at], start))
    return tokens


def syntax_refused(sql: str, offset: int, reason: str) -> SyntaxRefused:
    """A syntax error with line and column (both from 1) and a caret under the place."""
    offset = max(0, min(offset, len(sql)))
    line = sql.count("\n", 0, offset) + 1
    first = sql.rfind("\n", 0, offset) + 1
    column = offset - first + 1
    end = sql.find("\n", offset)
    shown_from = max(first, offset - 60)
    shown = sql[shown_from : min(len(sql) if end < 0 else end, offset + 20)].replace("\t", " ")
    return SyntaxRefused(
        f"syntax error at line {line}, column {column}: {reason}\n"
        f"  {shown}\n  {' ' * (offset - shown_from)}^"
    )


def _after_comment(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise syntax_refused(sql, start, "a comment is opened here and never closed")


def _after_dollar_string(sql: str, start: int, tag: str) -> int:
    """The end of a $tag$…$tag$ string, whose first inner ``$`` must begin the closing tag."""
    first = start + len(tag)
    end = sql.find(tag, first)
    if end < 0 or (tag != "$$" and "$" in sql[first:end]):
        raise syntax_refused(sql, start, f"the string {tag} is never closed, or holds a $")
    return end + len(tag)


def _prefixed(sql: str, start: int, at: int) -> tuple[str, int]:
    """A word that a quote follows at once: an E'' or X'' string, or a plain word."""
    prefix, quote = sql[start:at].lower(), sql[at]
    if quote == "'" and prefix == "e":
        match = _ESCAPED.match(sql, at)
        if match is None:
            raise syntax_refused(sql, start, "' is opened here and never closed")
        return "string", match.end()
    unicode_string = prefix == "u" and sql[at : at + 2] in {"&'", '&"'}
    if unicode_string or (quote != "&" and prefix in _FOREIGN_PREFIXES):
        raise syntax_refused(sql, start, f"{prefix.upper()}{quote}…: write a plain '…' string")
    return "word", at
