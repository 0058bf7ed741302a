"""``make bench``: all lanes, or those named; ``--quick`` makes everything ten times smaller."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from support_kafka import Broker
from support_stack import Stack

from bench import (
    files_lane,
    freshness_lane,
    ingest_lane,
    latency_lane,
    memory_lane,
    metadata_lane,
    poison_lane,
    query_lanes,
    recovery_lane,
    tpch_lane,
    verify_lane,
)
from bench.figures import Figure, amount, write
from bench.stage import Stage, say

LANES: Mapping[str, Callable[[Stage], list[Figure]]] = {
    "ingest": ingest_lane.lane,
    "freshness": freshness_lane.lane,
    "queries": query_lanes.lanes,
    "tpch": tpch_lane.lane,
    "latency": latency_lane.lane,
    "metadata": metadata_lane.lane,
    "memory": memory_lane.lane,
    "files": files_lane.lane,
    "verify": verify_lane.lane,
    "poison": poison_lane.lane,
    "recovery": recovery_lane.lane,
}


def main() -> int:
    """Runs the lanes and writes what came out."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("lanes", nargs="*", choices=[*LANES, []], help="default: all")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="k2-bench-"))
    figures: list[Figure] = []
    try:
        with Stack.own() as stack:
            broker = Broker(stack.state("kafka", jvm="-Xmx1g -XX:+UseG1GC")["bootstrap"])
            broker.wait_until_answers()
            for name in flags.lanes or LANES:
                found = LANES[name](Stage(broker, folder, flags.quick, stack))
                show(found)
                figures += found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    partial = bool(flags.lanes)
    path = write(figures, quick=flags.quick or partial)
    say(f"written: {path.relative_to(Path.cwd())}")
    return 0


def show(figures: list[Figure]) -> None:
    """Prints figures as they come."""
    for figure in figures:
        ratio = "" if figure.ratio is None else f"  {figure.ratio:.2f} × {figure.yardstick}"
        mark = {None: "", True: "  met", False: "  MISSED"}[figure.met]
        amounts = f"{amount(figure.value, figure.unit):>16}  {figure.name}{ratio}"
        print(f"{amounts}  {figure.goal}{mark}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
