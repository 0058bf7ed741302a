"""What `k2 feed` does in a terminal."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flight_server.demo.feed import Feed, FeedReport, FeedSpec, publish_schemas
from flight_server.demo.schemas import Kind
from flight_server.exits import ExitCode
from flight_server.layers import ConfigRefused

#: Seconds between two changes of the progress line.
_SHOW_S = 0.1


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """The command's options. ``start_us`` None: now. ``options``: librdkafka's NAME=VALUE."""

    bootstrap: str
    registry: str
    topics: Mapping[Kind, str]
    rate: float
    count: int | None
    seed: int
    start_us: int | None
    options: tuple[str, ...]


def feed_in_terminal(request: FeedRequest, stop: threading.Event, *, as_json: bool) -> int:
    """Registers the schemas, sends, shows progress on stderr, ends with the report.

    Raises:
        ConfigRefused: an option is not NAME=VALUE.
        RegistryUnavailable: the registry did not take the schemas.
        BrokerUnavailable: no broker answered.
    """
    feed = Feed(
        FeedSpec(
            properties={"bootstrap.servers": request.bootstrap, **_pairs(request.options)},
            topics=request.topics,
            schema_ids=publish_schemas(request.registry, request.topics),
            rate=request.rate,
            count=request.count,
            seed=request.seed,
            start_us=int(time.time() * 1e6) if request.start_us is None else request.start_us,
            run=f"f{request.seed}",
        )
    )
    began = time.monotonic()
    try:
        feed.connect()
        with _progress(request.count) as bar:
            task = bar.add_task("sending", total=request.count)
            shown_at = 0.0

            def show(report: FeedReport) -> None:
                nonlocal shown_at
                if time.monotonic() - shown_at >= _SHOW_S:
                    shown_at = time.monotonic()
                    bar.update(task, completed=sum(report.delivered.values()))

            report = feed.run(stop, show)
            bar.update(task, completed=sum(report.delivered.values()))
    finally:
        feed.close()
    _conclude(report, time.monotonic() - began, as_json=as_json)
    return ExitCode.FAILED if report.failed else ExitCode.OK


def _conclude(report: FeedReport, seconds: float, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(done=True)) + "\n")
        return
    delivered = sum(report.delivered.values())
    sys.stdout.write(f"{delivered:,} delivered in {seconds:.1f} s, {delivered / seconds:,.0f}/s\n")
    if report.failed:
        sys.stderr.write(f"k2: {report.failed:,} messages failed: {report.first_error}\n")


def _progress(count: int | None) -> Progress:
    columns = [TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()]
    if count is not None:
        columns[1:1] = [BarColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _pairs(options: tuple[str, ...]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ConfigRefused(f"--kafka {name!r}: write NAME=VALUE")
    return {name: value for name, _, value in pairs}
