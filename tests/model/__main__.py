"""``make model``: larger bounds, and what breaks without each rule. Exit code 1 on a surprise.

A large scenario of more than :data:`MOST` states is explored up to that many, the shortest orders
of events first, and its line says so.
"""

from __future__ import annotations

import sys
import time

from model.explore import Explored
from model.machine import run
from model.rules import LARGER, REMOVALS, SCENARIOS

#: States of one scenario: about a minute and 700 MiB.
MOST = 400_000


def main(names: list[str]) -> int:
    """Explores the scenarios (or those that are named) and the removals; prints every trace."""
    bad = 0
    for kind, scenarios in (("small", SCENARIOS), ("large", LARGER)):
        for name in scenarios:
            if names and name not in names:
                continue
            began = time.monotonic()
            found = run(scenarios[name], most=MOST)
            _say(f"{kind} {name}", found, began)
            bad += found.wrong is not None or (kind == "small" and not found.whole)
    for removal in REMOVALS if not names else ():
        began = time.monotonic()
        with removal.applied() as scenario:
            found = run(scenario)
        _say(f"without: {removal.what}", found, began)
        bad += found.wrong is None
    sys.stdout.write(f"{bad} surprises\n")
    return 1 if bad else 0


def _say(name: str, found: Explored, began: float) -> None:
    sys.stdout.write(f"{name} ({time.monotonic() - began:.1f} s): {found}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
