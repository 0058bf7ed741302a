"""`k2 verify` and `k2 repair`: what they print. The work is done in catalog/."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flight_server.child import run
from flight_server.exits import ExitCode
from flight_server.lean import without_data_frames

if TYPE_CHECKING:
    from catalog.spec import TableName
    from catalog.verify import Report
    from catalog.verify_log import KafkaLog
    from flight_server.config import Settings

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; k2.toml by default.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on one line of stdout.")]
Table = Annotated[str, typer.Argument(help="namespace.table", metavar="TABLE")]

_MARKS = {"proved": ("✓", "green"), "broken": ("✗", "red"), "unproved": ("?", "yellow")}
_EXITS = {"proved": ExitCode.OK, "broken": ExitCode.FAILED, "unproved": ExitCode.UNPROVED}


def verify(
    table: Table,
    path: Config = None,
    *,
    log: Annotated[
        bool, typer.Option("--log", help="Compare with what Kafka still holds, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Proves that a table holds exactly the records that it says it holds."""

    def prove() -> int:
        without_data_frames()
        from catalog.errors import MarkerLost
        from catalog.spec import TableName
        from catalog.verify import Options
        from catalog.verify import verify as examine
        from flight_server.config import load
        from flight_server.lakes import open_lake

        settings, name = load(path), TableName.parse(table)
        with ExitStack() as stack:
            lake = open_lake(settings)
            stack.callback(lake.close)
            compared = stack.enter_context(opened_log(settings, name)) if log else None
            progress = stack.enter_context(_bar(f"verify {name}"))
            try:
                report = examine(lake, name, log=compared, options=Options(progress=progress))
            except MarkerLost as error:
                print(f"k2: {error}", file=sys.stderr)
                return ExitCode.UNPROVED
        if as_json:
            print(json.dumps(report.to_json()))
        else:
            _show(report)
        return _EXITS[report.state]

    raise typer.Exit(run(prove))


@contextmanager
def opened_log(settings: Settings, name: TableName) -> Iterator[KafkaLog]:
    """The topics of a declared table.

    Raises:
        ConfigRefused: the settings declare no such table.
        BrokerUnavailable, SpecRefused: no broker, or no topic.
    """
    from catalog.declaring import declared_now
    from catalog.decode import Decoder
    from catalog.registry import open_registry
    from catalog.verify_log import KafkaLog
    from flight_server.lakes import open_reader, spec_of

    spec, where = spec_of(settings, name), settings.registry
    with (
        closing(open_registry(where.url, where.properties(), timeout_s=where.timeout_s)) as known,
        closing(open_reader(settings, spec)) as reader,
    ):
        declared = declared_now(spec, known)
        yield KafkaLog(reader, Decoder(declared, known, spec), declared.arrow.names)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def moved(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield moved


def _show(report: Report) -> None:
    for finding in report.findings:
        mark, colour = _MARKS.get(finding.state, ("-", None))
        typer.secho(f"{mark} {finding.what}: {finding.detail}", fg=colour)
    at = f"at snapshot {report.snapshot_id}"
    print(f"{report.state}: {report.table} {at}, {report.rows:,} rows in {report.files:,} files")


def repair(  # noqa: PLR0913  # one parameter per option
    table: Table,
    path: Config = None,
    *,
    skip_lost_records: Annotated[
        bool,
        typer.Option(
            "--skip-lost-records", help="Go on after records that Kafka no longer holds (LogGap)."
        ),
    ] = False,
    marker_from_rows: Annotated[
        bool,
        typer.Option(
            "--marker-from-rows", help="Find lost positions again in the rows (MarkerLost)."
        ),
    ] = False,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC:PARTITION=NEXT",
            help="As --marker-from-rows, with this position; repeatable.",
        ),
    ] = None,
    same_topic: Annotated[
        bool,
        typer.Option(
            "--same-topic", help="A topic has another id and the same records (TopicRecreated)."
        ),
    ] = False,
    why: Annotated[str, typer.Option(help="Kept in the table with the repair.")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Commit it; without, it is only shown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Says what is wrong between a table and its log; settles it by a choice."""
    choices = {
        "skip-lost-records": skip_lost_records,
        "marker-from-rows": marker_from_rows and not positions,
        "positions": bool(positions),
        "same-topic": same_topic,
    }
    chosen, given = _chosen(choices), _positions(positions or [])

    def settle() -> int:
        without_data_frames()
        from flight_server import mending

        request = mending.Request(table, path, chosen, given, why, yes)
        result = mending.mend(request)
        if as_json:
            print(json.dumps(result.to_json()))
        else:
            print("\n".join(result.lines()))
        return ExitCode.FAILED if result.found else ExitCode.OK

    raise typer.Exit(run(settle))


def _chosen(choices: Mapping[str, bool]) -> str | None:
    chosen = [choice for choice, wanted in choices.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"choose one of {' and '.join(f'--{each}' for each in chosen)}")
    return chosen[0] if chosen else None


def _positions(texts: list[str]) -> dict[tuple[str, int], int]:
    """``topic:partition=next``, each."""
    found = {}
    for text in texts:
        match = re.fullmatch(r"(.+):(\d+)=(\d+)", text)
        if match is None:
            raise typer.BadParameter(f"{text!r} is not of the form TOPIC:PARTITION=NEXT")
        found[match[1], int(match[2])] = int(match[3])
    return found
