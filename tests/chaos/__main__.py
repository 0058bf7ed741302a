"""``make chaos``: the long campaign. Exit code 1 where an answer was wrong or a goal missed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support_kafka import Broker
from support_stack import S3_KEY, S3_SECRET, Stack

from chaos.campaign import Campaign
from chaos.plan import Outcome, Plan, summary
from chaos.wires import Surroundings


def main() -> int:
    """Runs the campaign that the flags describe."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    for field in dataclasses.fields(Plan):
        kind = type(field.default)
        choices = ("sqlite", "rest", "both") if field.name == "catalog" else None
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=field.default, choices=choices)
    parser.add_argument("--keep", action="store_true", help="keep the folders with logs and data")
    flags = vars(parser.parse_args())
    keep = flags.pop("keep")
    plan, total = Plan(**flags), Outcome()
    with Stack.own() as stack:
        for number in range(plan.first_leg, plan.legs):
            with _leg(plan.leg(number), stack, keep=keep) as campaign:
                _say(f"leg {number + 1} of {plan.legs}: {campaign.plan}")
                total.add(campaign.run())
    sys.stdout.write(f"{summary(total)}\nseed={plan.seed}\n")
    return 1 if total.verdict.faults else 0


@contextlib.contextmanager
def _leg(plan: Plan, stack: Stack, *, keep: bool) -> Iterator[Campaign]:
    """One leg in a folder of its own, which goes unless something was wrong."""
    around = _surroundings(plan, stack)
    folder = Path(tempfile.mkdtemp(prefix="k2-chaos-"))
    campaign = Campaign(plan, around, folder, _say)
    yield campaign
    if campaign.outcome.verdict.faults or keep:
        _say(f"logs and data are in {folder}")
        return
    shutil.rmtree(folder)
    around.broker.delete_topic(campaign.layout.topic)
    if around.rest is not None:
        namespace = campaign.layout.table.partition(".")[0]
        shutil.rmtree(Path(stack.state("s3")["folder"]) / "lake" / "rest" / namespace)


def _surroundings(plan: Plan, stack: Stack) -> Surroundings:
    kafka = stack.state("kafka", jvm="-Xmx1g -XX:+UseSerialGC")
    broker = Broker(kafka["bootstrap"])
    broker.wait_until_answers()
    ports = int(kafka["inner"]), int(kafka["outer"])
    if plan.catalog == "sqlite":
        return Surroundings(broker, ports)
    s3 = stack.state("s3")
    (Path(s3["folder"]) / "lake").mkdir(exist_ok=True)
    warehouse = "s3://lake/rest"
    rest = stack.state("iceberg-rest", warehouse=warehouse, endpoint=s3["endpoint"])
    properties = {
        "type": "rest",
        "uri": rest["uri"],
        "warehouse": warehouse,
        "s3.endpoint": s3["endpoint"],
        "s3.access-key-id": S3_KEY,
        "s3.secret-access-key": S3_SECRET,
        "s3.region": "us-east-1",
        "s3.path-style-access": "true",
    }
    return Surroundings(broker, ports, properties)


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
