"""EXPLAIN as clients may see it: the versions and files behind the plan, and no local path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from catalog.pins import PinKey
from catalog.tables import Pin
from flight_server.hybrid import Report
from flight_server.names import Reference, Resolved
from flight_server.sqltext import with_literals

_FILE = ".parquet"
#: What may stand before a file that is in no list.
_BEFORE = " \t\r(){},"


def versions(
    pins: Mapping[PinKey, Pin],
    found: Mapping[Reference, Resolved],
    reports: Mapping[Reference, Report],
) -> Iterator[tuple[str, str]]:
    """The lines that EXPLAIN shows before the engine's: plan_type, plan."""
    for key, pin in sorted(pins.items()):
        yield "version", _version(pin)
        mine = {at: report for at, report in reports.items() if found[at].key == key}
        for (_, table), report in sorted(mine.items()):
            yield "files", _files(table, report)


def _version(pin: Pin) -> str:
    where = f"{pin.name}: {pin.kind}, snapshot {pin.snapshot_id}"
    spans = [
        f"{topic}[{partition}] committed {pin.committed.at((topic, partition))} high {high}"
        for (topic, partition), high in pin.high.items()
    ]
    return "; ".join([where, *spans])


def _files(table: str, report: Report) -> str:
    text = (
        f"{table}: {report.kept} of {report.files} files kept ({report.rows} rows), "
        f"{report.files - report.kept} pruned, {report.live_rows} live rows"
    )
    return f"{text}, {report.reread} files read with deletes" if report.reread else text


def without_paths(text: str, folders: Iterable[str]) -> str:
    """The engine's text with file paths relative to their table.

    Args:
        text: a plan.
        folders: locations of the tables read, as Iceberg records them.
    """
    for folder in folders:
        _, _, bare = folder.rpartition("://")
        bare = bare.removeprefix("/").rstrip("/") + "/"
        for form in (f"{folder.rstrip('/')}/", f"/{bare}", bare):
            text = text.replace(form, "./")
    return "\n".join(map(_without_folders, text.split("\n")))


def _without_folders(line: str) -> str:
    """A line with the names of files alone, unless they are relative to their table already.

    Each character is looked at a few times, whatever the texts of a statement look like.
    """
    *before, last = line.split(_FILE)
    shown = []
    for each in before:
        folder, slash, name = each.rpartition("/")
        start = _start(folder)
        relative = not slash or each.startswith("./", start)
        shown.append(each if relative else f"{each[:start]}…/{name}")
    return _FILE.join([*shown, last])


def _start(folder: str) -> int:
    """Where the name of a folder begins, of which this is the end.

    It may have spaces and commas in it where it is in a list: the first of one begins at its
    bracket, each further one at the first comma after the file before it.
    """
    opened = max(folder.rfind("["), folder.rfind("]"))
    if opened >= 0 and folder[opened] == "[":
        return opened + 1
    comma = folder.find(", ", opened + 1)
    return comma + 2 if comma >= 0 else 1 + max(map(folder.rfind, (*_BEFORE, "]")))


def explained(
    schema: pa.Schema,
    lines: Sequence[tuple[str, str]],
    batches: Iterable[pa.RecordBatch],
    folders: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    """The whole result of an EXPLAIN, in the planned schema."""
    rows = list(lines)
    for batch in batches:
        kinds, plans = (batch.column(i).to_pylist() for i in range(2))
        shown = (with_literals(without_paths(plan, folders)) for plan in plans)
        rows += zip(kinds, shown, strict=True)
    columns = [pa.array([row[i] for row in rows], schema.field(i).type) for i in range(2)]
    yield pa.RecordBatch.from_arrays(columns, schema=schema)
