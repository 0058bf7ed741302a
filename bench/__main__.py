"""``make bench``: all lanes, or those named; ``--quick`` makes everything ten times smaller."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from support_kafka import Broker
from support_stack import Stack

from bench.figures import Figure, amount
from bench.lanes import LANES
from bench.results import run_of, write, write_page
from bench.stage import SEED, Stage, peaks, say


def main() -> int:
    """Runs the lanes, each on its own: 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("lanes", nargs="*", help=f"of {', '.join(LANES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything; on no page")
    parser.add_argument("--page", action="store_true", help="measure nothing: draw the page anew")
    flags = parser.parse_args()
    if unknown := [name for name in flags.lanes if name not in LANES]:
        parser.error(f"no such lane: {', '.join(unknown)}; there are {', '.join(LANES)}")
    if flags.page:
        write_page(LANES)
        return 0
    began = time.monotonic()
    with Stack.own() as stack:
        broker = Broker(stack.state("kafka", jvm="-Xmx1g -XX:+UseG1GC")["bootstrap"])
        broker.wait_until_answers()
        named = flags.lanes or list(LANES)
        failed = [name for name in named if not run(name, broker, stack, quick=flags.quick)]
    say(f"bench: {time.monotonic() - began:.0f} s" + "".join(f"; {name} FAILED" for name in failed))
    return 1 if failed else 0


def run(name: str, broker: Broker, stack: Stack, *, quick: bool) -> bool:
    """One lane, its JSON and the page; False where it failed: its earlier figures stay."""
    folder = Path(tempfile.mkdtemp(prefix=f"k2-bench-{name}-"))
    began = time.monotonic()
    peaks.clear()
    try:
        figures = LANES[name](Stage(broker, folder, 10 if quick else 1, stack))
    except Exception:  # noqa: BLE001 - whatever one lane meets, the others are measured
        say(f"{name}: FAILED\n{traceback.format_exc()}")
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    figures += [
        Figure(f"{name}: most memory of the {role}", size, "bytes")
        for role, size in peaks.items()
        if size
    ]
    show(figures)
    path = write(run_of(name, figures, seconds, quick=quick, seed=SEED))
    if not quick:
        write_page(LANES)
    say(f"{name}: {seconds:.0f} s, written: {path.relative_to(Path.cwd())}")
    return True


def show(figures: list[Figure]) -> None:
    """Prints figures as they come."""
    for figure in figures:
        ratio = "" if figure.ratio is None else f"  {figure.ratio:.2f} × {figure.yardstick}"
        mark = {None: f"  {figure.note}", True: "  met", False: "  MISSED"}[figure.met]
        amounts = f"{amount(figure.value, figure.unit):>16}  {figure.name}{ratio}"
        print(f"{amounts}  {figure.goal}{mark}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
