"""``make chaos``: the long campaign. Exit code 1 where an answer was wrong or a goal missed."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

from support_kafka import Broker
from support_stack import Stack

from chaos.campaign import Campaign, Plan, summary


def main() -> int:
    """Runs the campaign that the flags describe."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    for field in dataclasses.fields(Plan):
        kind = float if field.name == "pause_s" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    flags = vars(parser.parse_args())
    keep = flags.pop("keep")
    folder = Path(tempfile.mkdtemp(prefix="k2-chaos-"))
    with Stack.own() as stack:
        broker = Broker(stack.state("kafka", jvm="-Xmx1g -XX:+UseSerialGC")["bootstrap"])
        broker.wait_until_answers()
        campaign = Campaign(Plan(**flags), broker, folder, _say)
        outcome = campaign.run()
    sys.stdout.write(summary(outcome) + "\n")
    if outcome.verdict.faults or keep:
        _say(f"logs and data are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if outcome.verdict.faults else 0


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
