"""`k2 rejects`: shows a table's dead letters, and replays them.

Commands import what they need when they run: `k2 version` must not load an engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flight_server.child import run
from flight_server.exits import ExitCode

if TYPE_CHECKING:
    from catalog.replay import Replayed
    from catalog.spec import TableSpec
    from flight_server.config import Settings

commands = typer.Typer(no_args_is_help=True, help="Records that could not be decoded.")
Declared = Annotated[str, typer.Argument(help="A declared table: namespace.table.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; k2.toml by default.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on one line of stdout.")]


def _leave(work: Callable[[], int]) -> NoReturn:
    raise typer.Exit(run(work))


@commands.command(name="list")
def list_(
    table: Declared,
    path: Config = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """The dead letters of a table: where they are from, and what was wrong."""

    def show() -> int:
        letters = shown_letters(path, table, limit)
        if as_json:
            print(json.dumps({"table": table, "letters": list(letters)}))
            return ExitCode.OK
        for each in letters:
            place = f"{each['topic']}[{each['partition']}]@{each['offset']}"
            print(f"{each['rejected']}  {place}  {each['error']}: {each['message']}")
        return ExitCode.OK

    _leave(show)


@commands.command(name="replay")
def replay_(table: Declared, path: Config = None, *, as_json: Json = False) -> None:
    """Decodes dead letters again; those that can be become rows, beside a running ingest."""

    def go() -> int:
        done = replay_letters(path, table)
        left = done.letters - done.rows
        if as_json:
            print(json.dumps({"table": table, "rows": done.rows, "left": left}))
        else:
            print(f"{done.rows} of {done.letters} letters are rows now, {left} are left")
        return ExitCode.OK

    _leave(go)


def shown_letters(path: Path | None, table: str, limit: int) -> Iterator[Mapping[str, object]]:
    """The newest letters of a table, as JSON can hold them; without the record's bytes.

    Raises:
        ConfigRefused: no such table is declared.
        CatalogError: the letters cannot be read.
    """
    from catalog.errors import shorten
    from catalog.replay import newest_letters
    from flight_server.config import load
    from flight_server.lakes import open_lake

    settings = load(path)
    with ExitStack() as stack:
        lake = open_lake(settings)
        stack.callback(lake.close)
        for letter in newest_letters(lake, declared_table(settings, table), limit):
            key, value, rejected = letter["_key"], letter["value"], letter["rejected"]
            yield {
                "topic": letter["_topic"],
                "partition": letter["_partition"],
                "offset": letter["_offset"],
                "rejected": rejected.isoformat() if isinstance(rejected, datetime) else None,
                "error": letter["error"],
                "message": letter["message"],
                "schema_id": letter["schema_id"],
                "key": shorten(key.decode(errors="replace")) if isinstance(key, bytes) else None,
                "value_bytes": len(value) if isinstance(value, bytes) else None,
            }


def replay_letters(path: Path | None, table: str) -> Replayed:
    """Decodes a table's letters again with today's schemas; see ``catalog.replay``.

    Raises:
        ConfigRefused: no such table is declared.
        CatalogError: as ``Replay.run``.
    """
    from catalog.registry import open_registry
    from catalog.replay import replay
    from flight_server.config import load
    from flight_server.lakes import open_lake

    settings = load(path)
    spec = declared_table(settings, table)
    registry = settings.registry
    with ExitStack() as stack:
        lake = open_lake(settings)
        stack.callback(lake.close)
        schemas = open_registry(registry.url, registry.properties(), timeout_s=registry.timeout_s)
        stack.callback(schemas.close)
        return replay(lake, spec, schemas)


def declared_table(settings: Settings, table: str) -> TableSpec:
    """The declaration of ``table``, by its whole name or, where that is clear, its last part.

    Raises:
        ConfigRefused: there is none, or more than one.
    """
    from catalog.errors import shorten
    from flight_server.layers import ConfigRefused

    specs = settings.table_specs()
    found = [spec for spec in specs if str(spec.name) == table]
    found = found or [spec for spec in specs if spec.name.table == table]
    if len(found) != 1:
        known = ", ".join(str(spec.name) for spec in specs) or "none"
        raise ConfigRefused(f"table {shorten(table)!r} is not declared; declared are: {known}")
    return found[0]
