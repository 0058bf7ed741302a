"""``make differential``: random statements, 100,000 of them. Exit code 1 on a difference.

Several processes, each with a seed of its own; the seeds are printed, and with each difference the
smallest statement that shows it and the number of its case, which ``--case`` asks again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import sys
import time
from collections.abc import Sequence

from differential.campaign import Budget, campaign, cases
from differential.tally import Finding, Tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints, and says whether all statements were asked and all agreed."""
    parser = argparse.ArgumentParser(prog="make differential", description=__doc__)
    parser.add_argument("--statements", type=int, default=100_000, help="so many")
    parser.add_argument("--minutes", type=float, default=120.0, help="at most so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", default="", help="one case: seed.house.number")
    flags = parser.parse_args(arguments)
    if flags.case:
        key, _, number = flags.case.rpartition(".")
        found = list(cases(key, Tally(), [int(number)]))
        _print("\n".join(map(str, found)))
        return _say(found)
    first = secrets.randbelow(10**6) if flags.seed is None else flags.seed
    began = time.monotonic()
    share = -(-flags.statements // flags.processes)
    jobs = [(first + n, Budget(share, flags.minutes * 60)) for n in range(flags.processes)]
    _print(f"seeds {first} to {first + flags.processes - 1}")
    context = multiprocessing.get_context("spawn")  # the engine's threads do not survive a fork
    tally, found = Tally(), []
    with context.Pool(flags.processes) as pool:
        for counted, findings in pool.imap_unordered(campaign, jobs):
            tally += counted
            found += findings
    took = time.monotonic() - began
    _print(str(tally))
    _print(
        f"{took:.0f} s: {tally.statements / took:.0f} statements and"
        f" {tally.answers.total() / took:.0f} answers per second;"
        f" {1000 * tally.cpu_s / max(1, tally.statements):.0f} ms of a processor for a statement"
    )
    short = tally.statements < flags.statements
    if short:
        _print(f"{tally.statements} of {flags.statements} statements: the time was up")
    return _say(found) or int(short)


def _say(found: list[Finding]) -> int:
    _print(f"{len(found)} differences")
    return 1 if found else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
