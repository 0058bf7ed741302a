"""`k2 verify`: proves from the table alone that it holds exactly the records that it says it holds.

Memory does not grow with the table: a byte per offset, in windows of a bounded size, and one batch
of three columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from pyiceberg.table.metadata import TableMetadata

from catalog.chain import Finding, State, check_chain, first_positions
from catalog.errors import FileMissing, Unsupported
from catalog.heads import Head
from catalog.lake import Lake
from catalog.offset_files import DataFile, FileDamaged, OffsetFiles, data_files
from catalog.offsets import NOBODY, Marker, TopicPartition
from catalog.seen import NAMED, WINDOW_OFFSETS, Bools, Count, Int64s, Range, Window, windows
from catalog.spec import TableName
from catalog.tallies import Tallies, Tally

#: Findings of one kind that a report names; the rest is counted.
_MOST_NAMED = 20


class Log(Protocol):
    """Kafka, to compare with; see :mod:`catalog.verify_log`."""

    def begin(self, ranges: Sequence[Range], columns: Sequence[str]) -> None:
        """What will be looked at, and the columns that all rows have."""

    def end(self, lake: Lake, name: TableName, head: Head, files: Sequence[DataFile]) -> None:
        """After the last window: compares what rows say."""

    def look(self, window: Window) -> None:
        """Adds what the log still holds of the window, and compares."""

    def findings(self, marker: Marker) -> list[Finding]:
        """What the comparison showed."""

    def agrees_from(self, place: TopicPartition) -> int | None:
        """From which offset on log and table are the same; None: they differ, or it is unknown."""


@dataclass(frozen=True, slots=True)
class PartitionProof:
    """What is known of one partition.

    Attributes:
        first, next: the table holds the records of ``[first, next)``.
        rows: that many rows.
        gaps: positions that hold no row: control records, aborted records, rejects, lost ones.
        rejects: records that the table's policy left out.
        lost: ranges that the log no longer held, acknowledged by `k2 repair`.
        doubled: rows whose offset another row has, too.
    """

    topic: str
    partition: int
    first: int
    next: int
    rows: int
    gaps: int
    rejects: int
    lost: tuple[tuple[int, int], ...]
    doubled: int
    state: State


@dataclass(frozen=True, slots=True)
class Report:
    """What a table's examination showed, at one snapshot."""

    table: str
    snapshot_id: int | None
    files: int
    rows: int
    bytes: int
    partitions: tuple[PartitionProof, ...]
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst finding; ``noted`` is as good as ``proved``."""
        found = {finding.state for finding in self.findings}
        if "broken" in found:
            return "broken"
        return "unproved" if "unproved" in found else "proved"

    def to_json(self) -> dict[str, object]:
        """The report as one object."""
        return {"state": self.state, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Options:
    """How a table is examined.

    Attributes:
        head: the version; None: the newest.
        progress: is told how many rows of how many are read.
        window_offsets: bytes of memory for what was seen; tests make it small.
    """

    head: Head | None = None
    progress: Callable[[int, int], None] | None = None
    window_offsets: int = WINDOW_OFFSETS


class _Look:
    """One examination under way. Belongs to one thread."""

    def __init__(
        self,
        files: Sequence[DataFile],
        reader: OffsetFiles,
        ranges: Sequence[Range],
        options: Options,
    ) -> None:
        self.counts = {r.place: Count() for r in ranges}
        self._files, self._reader, self._ranges, self._options = files, reader, ranges, options
        # The last range is nobody's: of rows that no position names.
        self._firsts = np.array([*(r.first for r in ranges), 0], np.int64)
        self._nexts = np.array([*(r.next for r in ranges), 0], np.int64)
        self._wrong: list[Finding] = []
        self._strays = 0
        self._named_strays: list[str] = []
        self._bad: set[str] = set()
        self._begun: set[str] = set()
        self._rows, self._of_rows = 0, sum(file.rows for file in files)

    def run(self, log: Log | None) -> None:
        """All windows; every file is read in those that it meets, and once at least."""
        turns = list(windows(self._ranges, self._options.window_offsets))
        for number, turn in enumerate(turns, start=1):
            window = Window(turn, self.counts)
            for file in self._files:
                owed = number == len(turns) and file.path not in self._begun
                meets = any(file.meets(r.first, r.next) for r in turn)
                if (owed or meets) and file.path not in self._bad:
                    self._take(file, window)
            if log is not None:
                log.look(window)

    @property
    def damaged(self) -> bool:
        """Whether a file could not be read."""
        return bool(self._bad)

    def said(self) -> list[Finding]:
        """What the files showed."""
        wrong = _few(self._wrong)
        if self._strays:
            named = ", ".join(self._named_strays)
            detail = f"{self._strays} rows lie outside every recorded range: {named}"
            wrong.append(Finding("files", "broken", detail))
        detail = f"{len(self._files)} files are there, with the recorded sizes and row counts"
        return wrong or [Finding("files", "proved", detail)]

    def _take(self, file: DataFile, window: Window) -> None:
        fresh = file.path not in self._begun
        self._begun.add(file.path)
        try:
            for places, offsets in self._reader.rows(file):
                known = (offsets >= self._firsts[places]) & (offsets < self._nexts[places])
                if fresh:
                    self._first_time(places, offsets, ~known)
                whole = known.all()
                window.add_rows(*((places, offsets) if whole else (places[known], offsets[known])))
        except (FileMissing, FileDamaged) as error:
            self._bad.add(file.path)
            self._wrong.append(Finding("files", "broken", str(error)))
        except Unsupported as error:
            self._bad.add(file.path)
            self._wrong.append(Finding("files", "unproved", str(error)))

    def _first_time(self, places: Int64s, offsets: Int64s, strays: Bools) -> None:
        self._rows += len(offsets)
        if self._options.progress is not None:
            self._options.progress(self._rows, self._of_rows)
        self._strays += int(np.count_nonzero(strays))
        for row in np.flatnonzero(strays)[: NAMED - len(self._named_strays)]:
            known = places[row] >= 0
            name = _name(self._ranges[places[row]].place) if known else "another topic's"
            self._named_strays.append(f"{name} offset {offsets[row]}")


def verify(
    lake: Lake, name: TableName, *, log: Log | None = None, options: Options | None = None
) -> Report:
    """Examines a table at its head.

    Args:
        lake: the catalog.
        name: the table.
        log: compares with Kafka, too.
        options: None: the defaults.

    Raises:
        TableNotFound, LakeUnavailable: nothing can be said.
        MarkerLost: the head's positions cannot be found; nothing can be proved.
    """
    options = options or Options()
    head = options.head or lake.head(name)
    files = data_files(lake.entries(name, head.snapshot_id, head.metadata_location))
    metadata = lake.version(name, head.metadata_location).metadata
    findings = check_chain(metadata)
    if head.marker is None:
        findings.append(Finding("snapshots", "unproved", "no snapshot records Kafka positions"))
    marker = head.marker or NOBODY
    tallies = marker.tallies.begun_at(marker.positions, ())
    lowest = _lowest(metadata, files, tallies)
    ranges = [
        Range(p, lowest[p], max(marker.positions.at(p), lowest[p]), tallies[p].first)
        for p in tallies
    ]
    look = _Look(files, OffsetFiles(lake, name, head, [*tallies]), ranges, options)
    if log is not None:
        log.begin(ranges, _common_columns(metadata))
    look.run(log)
    if log is not None and not look.damaged:
        log.end(lake, name, head, files)
    proofs = [_prove(r, look.counts[r.place], tallies[r.place], log) for r in ranges]
    findings += [*look.said(), *(found for _, each in proofs for found in each)]
    findings += [] if log is None else log.findings(marker)
    return Report(
        table=str(name),
        snapshot_id=head.snapshot_id,
        files=len(files),
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        partitions=tuple(proof for proof, _ in proofs),
        findings=tuple(findings),
    )


def _common_columns(metadata: TableMetadata) -> list[str]:
    """What every schema of the table has: a file without a column has no value to compare."""
    named = [[field.name for field in schema.fields] for schema in metadata.schemas]
    return [name for name in named[-1] if all(name in names for names in named)]


def _lowest(
    metadata: TableMetadata, files: Sequence[DataFile], tallies: Tallies
) -> dict[TopicPartition, int]:
    """From where on the table may hold rows; below a tally only where that says so."""
    starts = first_positions(metadata) if any(t.older for t in tallies.values()) else None
    least = min((file.low or 0 for file in files), default=0)
    return {
        p: min(t.first, least if starts is None else starts.at(p)) if t.older else t.first
        for p, t in tallies.items()
    }


def _prove(
    r: Range, count: Count, tally: Tally, log: Log | None
) -> tuple[PartitionProof, list[Finding]]:
    """Compares what was seen of a partition with what its snapshot records."""
    rows = count.rows + count.older_rows
    findings = list(_disagreements(r, count, tally))
    agrees = None if log is None else log.agrees_from(r.place)
    known = count.older_rows == r.counted - r.first or (agrees is not None and agrees <= r.first)
    if not findings and tally.older and not known:
        reason = f"{count.older_rows} rows below {r.counted} were committed without a checksum"
        findings = [Finding(_name(r.place), "unproved", f"counted only: {reason}")]
    state = findings[0].state if findings else "proved"
    if state == "proved":
        detail = f"{rows} rows are the recorded ones of [{r.first}, {r.next}), each once"
        findings.append(Finding(_name(r.place), "proved", detail))
    if tally.lost:
        shown = ", ".join(f"[{first}, {next_})" for first, next_ in tally.lost[:_MOST_NAMED])
        detail = f"lost, acknowledged: {shown} were gone from the log before they were read"
        findings.append(Finding(_name(r.place), "noted", detail))
    gaps = r.next - r.first - rows + count.doubled
    topic, partition = r.place
    return (
        PartitionProof(
            *(topic, partition, r.first, r.next, rows, gaps, tally.rejects, tally.lost),
            count.doubled,
            state,
        ),
        findings,
    )


def _disagreements(r: Range, count: Count, tally: Tally) -> Iterator[Finding]:
    what = _name(r.place)
    if count.doubled:
        named = ", ".join(map(str, count.named_doubles))
        yield Finding(what, "broken", f"{count.doubled} rows are there twice, as offset {named}")
    if count.rows != tally.rows:
        way = "missing" if count.rows < tally.rows else "too many"
        detail = f"{abs(count.rows - tally.rows)} rows are {way} in [{tally.first}, {r.next})"
        yield Finding(what, "broken", f"{detail}: {tally.rows} are recorded")
    elif count.sum != tally.sum:
        detail = f"the offsets of [{tally.first}, {r.next}) are not the recorded ones"
        yield Finding(what, "broken", f"{detail}, though as many")


def _few(findings: Sequence[Finding]) -> list[Finding]:
    more = len(findings) - _MOST_NAMED
    kept = list(findings[:_MOST_NAMED])
    return [*kept, Finding("files", "broken", f"{more} more files")] if more > 0 else kept


def _name(place: TopicPartition) -> str:
    return f"{place[0]}[{place[1]}]"
