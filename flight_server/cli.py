"""`k2`: the command line. Every command is a few lines over a module that does the work.

Commands import what they need when they run: `k2 version` must not load an engine.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, NoReturn

import typer

from flight_server import rejects_commands, upkeep
from flight_server.child import run
from flight_server.exits import MEANINGS, ExitCode
from flight_server.lean import without_data_frames
from flight_server.lifeline import stop_on_signals, watch
from flight_server.logs import log_to_stderr

_CODES = "\n\n".join(f"{int(code)}: {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="k2",
    help="One SQL endpoint over Apache Iceberg history and the live Kafka tail.",
    epilog=f"Exit codes:\n\n{_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; k2.toml by default.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on one line of stdout.")]
app.add_typer(rejects_commands.commands, name="rejects")


class Form(StrEnum):
    """Formats of `k2 sql`."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"
    arrow = "arrow"


def _leave(work: Callable[[], int]) -> NoReturn:
    """Ends the command with the exit code of ``work``; typed errors become one message."""
    raise typer.Exit(run(work))


def _leave_when_stopped(work: Callable[[threading.Event], int]) -> NoReturn:
    """The same for what runs until SIGINT or SIGTERM.

    The signals are taken over before anything else: a KeyboardInterrupt would be lost in the
    constructors of C extensions.
    """
    stop = stop_on_signals()
    without_data_frames()
    _leave(lambda: work(stop))


@app.command()
def version(*, as_json: Json = False) -> None:
    """Versions of K2 Flight, of Python and of the libraries it is proven with."""
    from flight_server.versions import versions

    shown = versions()
    if as_json:
        print(json.dumps(shown))
    else:
        print("\n".join(f"{name} {number}" for name, number in shown.items()))


@app.command()
def config(
    path: Config = None,
    *,
    reference: Annotated[
        bool, typer.Option("--reference", help="Every key with default and meaning, as Markdown.")
    ] = False,
) -> None:
    """The effective configuration as TOML, secrets masked."""

    def show() -> int:
        from flight_server import settings_page
        from flight_server.config import load

        text = settings_page.reference() if reference else settings_page.effective(load(path))
        print(text, end="")
        return ExitCode.OK

    _leave(show)


@app.command()
def serve(
    path: Config = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Flight port; 0 takes a free one.")] = None,
    no_ingest: Annotated[
        bool, typer.Option("--no-ingest", help="Only the server; the ingest runs elsewhere.")
    ] = False,
) -> None:
    """The Flight SQL server and, unless --no-ingest, the ingest, under a supervisor."""

    def start(stop: threading.Event) -> int:
        from flight_server.config import load
        from flight_server.supervisor import child_specs
        from flight_server.supervisor import serve as supervise
        from flight_server.versions import check_versions

        check_versions()
        flags = {"K2_SERVER__HOST": host, "K2_SERVER__PORT": None if port is None else str(port)}
        environ = {name: value for name, value in flags.items() if value is not None}
        settings = load(path, {**os.environ, **environ})
        ingest = not no_ingest and bool(settings.table)
        log_to_stderr(settings.server.log_level)
        children = child_specs(
            str(path.absolute()) if path else None, ingest=ingest, environ=environ
        )
        watch()
        return supervise(children, stop)

    _leave_when_stopped(start)


@app.command()
def ingest(path: Config = None) -> None:
    """Only the ingest: Kafka into the live tables and Iceberg, in this process."""

    def start(stop: threading.Event) -> int:
        from flight_server.ingest_app import ingest_until

        log_to_stderr()
        return ingest_until(stop, str(path.absolute()) if path else None)

    _leave_when_stopped(start)


@app.command()
def sql(  # noqa: PLR0913  # one parameter per option
    statement: Annotated[
        str | None, typer.Argument(help="Statements; none: standard input, or a prompt.")
    ] = None,
    *,
    server: Annotated[
        str,
        typer.Option(
            "--server", "--uri", "-s", envvar="K2_SQL_SERVER", help="host:port or grpc[+tls]://…"
        ),
    ] = "127.0.0.1:32010",
    user: Annotated[str | None, typer.Option(envvar="K2_SQL_USER")] = None,
    password: Annotated[str | None, typer.Option(envvar="K2_SQL_PASSWORD")] = None,
    token: Annotated[str | None, typer.Option(envvar="K2_SQL_TOKEN", help="Bearer token.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.")
    ] = False,
    form: Annotated[
        Form | None, typer.Option("--format", "-f", help="table on a terminal, else csv.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A value for ? or $1, in order.")
    ] = None,
) -> None:
    """Runs SQL on any Flight SQL server: one shot, from standard input, or at a prompt."""

    def start() -> int:
        without_data_frames()
        from flight_server.sqlclient import Address, ClientError, ServerUnreachable

        address = Address.parse(
            server, user=user, password=password, token=token, insecure=insecure
        )
        text = statement if statement is not None or sys.stdin.isatty() else sys.stdin.read()
        try:
            return _run_sql(address, text, param or [], (form, output))
        except ServerUnreachable as error:
            print(f"k2: {error}", file=sys.stderr)
            return ExitCode.UNAVAILABLE
        except ClientError as error:
            print(f"k2: {error}", file=sys.stderr)
            return ExitCode.FAILED

    _leave(start)


def _run_sql(
    address: object, text: str | None, parameters: list[str], where: tuple[Form | None, Path | None]
) -> int:
    from flight_server.rowformat import BINARY, Format
    from flight_server.sqlclient import Address, Client, parse_parameter, split_statements
    from flight_server.sqlshell import Output, Shell, open_output, run_statement, say_on_stderr

    if not isinstance(address, Address):
        raise TypeError(address)
    form, file = where
    terminal = file is None and sys.stdout.isatty()
    chosen: Format = (form or (Form.table if terminal else Form.csv)).value
    if chosen in BINARY and (terminal or text is None):
        print(f"k2: {chosen} needs --output, or a pipe", file=sys.stderr)
        return ExitCode.USAGE
    with ExitStack() as stack:
        sink: BinaryIO = stack.enter_context(open_output(file)) if file else sys.stdout.buffer
        client = stack.enter_context(Client(address))
        output = Output(sink, chosen, say_on_stderr)
        if text is None:
            Shell(client, output).run()
        for statement in split_statements(text or ""):
            run_statement(client, statement, [parse_parameter(p) for p in parameters], output)
    return ExitCode.OK


@app.command()
def feed(  # noqa: PLR0913  # one parameter per option
    bootstrap: Annotated[str, typer.Option(help="The broker, host:port.")],
    *,
    registry: Annotated[
        str, typer.Option(help="http(s)://… or file:./folder, for the schemas.")
    ] = "file:./schemas",
    trades: Annotated[str, typer.Option(help="Topic of the trades.")] = "market.equities.trades.k2",
    quotes: Annotated[str, typer.Option(help="Topic of the quotes.")] = "market.equities.quotes.k2",
    rate: Annotated[
        float, typer.Option(min=0, help="Messages per second in all; 0: as fast as it goes.")
    ] = 10_000,
    count: Annotated[int | None, typer.Option(min=1, help="Messages in all; none: no end.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same market.")] = 1,
    start: Annotated[
        int | None, typer.Option(help="First event time, microseconds since 1970; now by default.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--kafka", help="librdkafka's NAME=VALUE, repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A seeded synthetic market, trades and quotes, into any Kafka."""

    def produce(stop: threading.Event) -> int:
        from flight_server.demo.commands import FeedRequest, feed_in_terminal

        return feed_in_terminal(
            FeedRequest(
                bootstrap=bootstrap,
                registry=registry,
                topics={"trades": trades, "quotes": quotes},
                rate=rate,
                count=count,
                seed=seed,
                start_us=start,
                options=tuple(option or ()),
            ),
            stop,
            as_json=as_json,
        )

    _leave_when_stopped(produce)


@app.command()
def doctor(path: Config = None, *, as_json: Json = False) -> None:
    """Looks at versions, configuration, folders, broker, registry, catalog and store."""

    def examine_all() -> int:
        without_data_frames()
        from flight_server.doctor import examine

        findings = []
        for finding in examine(path):
            findings.append(finding)
            if not as_json:
                mark = {"ok": "✓", "wrong": "✗", "skipped": "-"}[finding.state]
                typer.secho(
                    f"{mark} {finding.what}: {finding.detail}",
                    fg={"ok": "green", "wrong": "red", "skipped": None}[finding.state],
                )
        healthy = all(finding.state != "wrong" for finding in findings)
        if as_json:
            print(json.dumps({"ok": healthy, "findings": [each.to_json() for each in findings]}))
        return ExitCode.OK if healthy else ExitCode.FAILED

    _leave(examine_all)


app.command()(upkeep.verify)
app.command()(upkeep.repair)


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def _seconds(text: str) -> float:
    """``30s``, ``5m``, ``1h`` or ``30`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is no duration: write 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


@app.command(name="hash")
def hash_(
    user: Annotated[str | None, typer.Argument(help="Makes a line of server.users_file.")] = None,
) -> None:
    """The hash of a password, for server.users or server.users_file."""

    def make() -> int:
        from flight_server.auth import hash_password

        if sys.stdin.isatty():
            password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        else:
            password = sys.stdin.readline().rstrip("\n")
        if not password:
            print("k2: the password is empty: give one on standard input", file=sys.stderr)
            return ExitCode.USAGE
        print(f"{user}:{hash_password(password)}" if user else hash_password(password))
        return ExitCode.OK

    _leave(make)


@app.command()
def demo(  # noqa: PLR0913  # one parameter per option
    folder: Annotated[Path, typer.Option(help="Everything of the demo.")] = Path("demo-data"),
    *,
    clean: Annotated[bool, typer.Option("--clean", help="Empty the folder first.")] = False,
    rate: Annotated[float, typer.Option(min=1, max=50_000, help="Messages per second.")] = 10_000,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", parser=_seconds, metavar="TIME", help="Stop the feed after so long: 30s, 5m."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="Flight port; the next free one where it is taken.")
    ] = 32010,
    seed: Annotated[int, typer.Option(help="Same seed, same market.")] = 1,
    as_json: Json = False,
) -> None:
    """The whole house in one folder, without any service: feed, broker, ingest, server, SQL."""

    def show(stop: threading.Event) -> int:
        from flight_server.demo.script import DemoSpec, run_demo

        spec = DemoSpec(
            folder=folder,
            clean=clean,
            rate=rate,
            for_s=seconds,
            port=port,
            seed=seed,
            as_json=as_json,
        )
        return run_demo(spec, stop)

    _leave_when_stopped(show)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
