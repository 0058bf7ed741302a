"""Draws literals: values that rows may well hold, and edges of types."""

from __future__ import annotations

import random

from differential.rows import NASTY_TEXTS, WORDS, Kind
from differential.trees import Expr


def literal(kind: Kind, rng: random.Random) -> Expr:  # noqa: C901, PLR0911 - one for each kind
    """A literal that rows may well hold."""
    match kind:
        case "int":
            return _number(kind, rng.choice((rng.randrange(12), rng.randrange(400), -1)))
        case "wide":
            edges = (-(2**63), 2**63 - 1, -(2**31), 2**31 - 1, 2**53 + 1, -1, 0, 1)
            return _number(kind, rng.choice((*edges, rng.randrange(-50, 50), rng.randrange(1200))))
        case "float" | "exact":
            special = rng.choice(("NaN", "Infinity", "-Infinity"))
            if kind == "float" and rng.random() < 0.15:
                return Expr(kind, f"cast('{special}' as double)", value=(float(special), "double"))
            number = rng.choice((0.0, 0.5, -1.0, 1e300, rng.randrange(-40, 40) / 4))
            if kind == "exact":
                number = rng.randrange(-8000, 8000) / 8
            return Expr(kind, f"cast('{number!r}' as double)", value=(number, "double"))
        case "decimal":
            text = rng.choice(("0.00", "0.01", "1.50", "-1.50", f"{rng.randrange(-999, 999)}.25"))
            return Expr(kind, f"cast('{text}' as decimal(18, 8))")
        case "huge":
            edge = "9" * 28 + "." + "9" * 10
            text = rng.choice((edge, f"-{edge}", "0", "0.0000000001", str(rng.randrange(400))))
            return Expr(kind, f"cast('{text}' as decimal(38, 10))")
        case "text":
            text = rng.choice((*WORDS, *WORDS, f"s{rng.randrange(30)}", *NASTY_TEXTS))
            return Expr(kind, quoted(text), value=(text, "varchar"))
        case "bool":
            return Expr(kind, rng.choice(("true", "false", "cast(null as boolean)")))
        case "time" | "zoned":
            return _moment(kind, rng)
        case "date":
            texts = ("1970-01-01", "1969-12-31", "1600-02-29", "2022-01-10", "2024-02-29")
            return Expr(kind, f"date '{rng.choice(texts)}'")


def _number(kind: Kind, number: int) -> Expr:
    return Expr(kind, f"cast('{number}' as bigint)", value=(number, "bigint"))


def quoted(text: str) -> str:
    """A text as SQL, and as a template."""
    return "'" + text.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"


def _moment(kind: Kind, rng: random.Random) -> Expr:
    text = rng.choice(
        (
            *("1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.000001"),
            *("1899-12-31 23:59:59.999999", "2199-01-01 00:00:00", "2024-03-01 00:00:00"),
            f"2022-01-{rng.randrange(7, 14):02} 00:0{rng.randrange(10)}:00",
        )
    )
    if rng.random() < 0.1:
        text = f"{text.partition('.')[0]}.000000001"
        return Expr(kind, f"{_TIME_TYPES[kind]} '{text}'", apart="nanoseconds")
    return Expr(kind, f"{_TIME_TYPES[kind]} '{text}'")


_TIME_TYPES: dict[Kind, str] = {"time": "timestamp", "zoned": "timestamptz"}
