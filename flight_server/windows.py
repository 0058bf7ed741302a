"""Windows that look ahead over nulls, which the engine gets wrong.

DataFusion 55.0 gives null for ``lead(x, n) IGNORE NULLS`` with n > 1, and for ``lag(x, -n)``, where
a null stands between the rows that it has looked at and the one that is wanted; and where only the
first rows are shown, it reads as many rows beyond them as n, nulls or not.

Source: apache/datafusion issue 25471; ``tests/test_windows.py``, against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flight_server.protocol.errors import Unimplemented

_STEP = re.compile(r"^ *+WindowAggr: (.*)$", re.MULTILINE)
_OVER_NULLS = "IGNORE NULLS"
_NUMBER = re.compile(r"Int64\((-?\d+)\)")


def require_seen(shown: str) -> None:
    """Refuses windows that look for a row further ahead than the next that is not null.

    Args:
        shown: an optimized plan.

    Raises:
        Unimplemented: there is one.
    """
    for function, offset in _offsets(shown):
        if (offset if function == "lead" else -offset) > 1:
            raise Unimplemented(
                f"{function}(x, {offset}) IGNORE NULLS would lose values behind nulls: write"
                " lead(x) IGNORE NULLS, or lead(x, n) over the rows where x IS NOT NULL"
            )


def look_over_nulls(shown: str) -> bool:
    """Whether some window of a plan may, or looks ahead by a negative offset."""
    return any(_OVER_NULLS in step or "lag(" in step for step in _STEP.findall(shown))


def _offsets(shown: str) -> Iterator[tuple[str, int]]:
    """(lead or lag, its offset) of those that leave out nulls."""
    for step in _STEP.findall(shown):
        for before in step.split(_OVER_NULLS)[:-1]:
            for function in ("lead", "lag"):
                _, found, rest = before.rstrip().rpartition(f"{function}(")
                arguments = _arguments(rest) if found else []
                if len(arguments) > 1 and (number := _NUMBER.fullmatch(arguments[1].strip())):
                    yield function, int(number[1])


def _arguments(rest: str) -> list[str]:
    """What stands between commas of a call that ends where the text does; none: it ends before."""
    depth, arguments = 1, [""]
    for at, each in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(each, 0)
        if depth == 0:
            return arguments if at + 1 == len(rest) else []
        if each == "," and depth == 1:
            arguments.append("")
        else:
            arguments[-1] += each
    return []
