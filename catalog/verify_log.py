"""What Kafka still holds of a table's ranges, record by record, beside what the table holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from catalog.chain import Finding
from catalog.contents import Contents
from catalog.decode import Decoder
from catalog.errors import BrokerUnavailable
from catalog.heads import Head
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.offset_files import DataFile
from catalog.offsets import Marker, Offsets, TopicPartition
from catalog.schemas import OFFSET
from catalog.seen import IN_LOG, IN_TABLE, NAMED, Int64s, Numbers, Range, Window
from catalog.spec import TableName
from catalog.tallies import Tally

#: Records of one poll.
_POLL_ROWS = 50_000
_POLL_S = 0.5
#: Polls in a row that bring nothing before the broker is called away.
_IDLE_POLLS = 60


@dataclass(slots=True)
class _Differences:
    """What the comparison of one partition showed so far.

    Attributes:
        first: the lowest offset that was compared.
        records: records that the log held.
        absent: records of the log that are no rows; extra: rows that the log does not hold.
    """

    first: int
    next: int
    records: int = 0
    absent: int = 0
    extra: int = 0
    named: list[int] = field(default_factory=list)

    def add(self, absent: Int64s, extra: Int64s) -> None:
        """Takes in the offsets of one window."""
        self.absent += len(absent)
        self.extra += len(extra)
        both = [*absent[:NAMED].tolist(), *extra[:NAMED].tolist()]
        self.named += both[: max(0, NAMED - len(self.named))]


class KafkaLog:
    """Reads the log beside the table, window by window. Belongs to one thread.

    Args:
        reader: of the table's topics; the caller closes it.
        decoder: of the table, to compare what rows say, too; None: offsets alone.
        columns: the declared ones, of which the decoder makes values.
    """

    def __init__(
        self, reader: TopicReader, decoder: Decoder | None = None, columns: Sequence[str] = ()
    ) -> None:
        self._reader = reader
        self._decoder = decoder
        self._columns = columns
        self._contents: Contents | None = None
        self._differing: Mapping[TopicPartition, list[tuple[int, int]]] = {}
        self._topics = reader.identities()
        self._begins, self._ends = reader.beginnings(), reader.ends()
        self._seen: dict[TopicPartition, _Differences] = {}
        self._all: Sequence[Range] = ()

    def begin(self, ranges: Sequence[Range], columns: Sequence[str]) -> None:
        """What will be looked at, and the columns that rows and records have in common."""
        self._all = ranges
        if self._decoder is not None:
            shared = [name for name in self._columns if name in columns]
            self._contents = Contents(self._decoder, shared, [r.place for r in ranges])

    def end(self, lake: Lake, name: TableName, head: Head, files: Sequence[DataFile]) -> None:
        """Reads the rows whose records were read, and compares what they say."""
        if self._contents is None:
            return
        held = np.array([self._held(r) for r in self._all], np.int64).reshape(-1, 2)
        self._contents.add_rows(lake, name, head, files, held)
        found = self._contents.differences()
        self._differing = {self._all[at].place: pairs for at, pairs in found.items()}

    def look(self, window: Window) -> None:
        """Reads what the log holds of the window and compares.

        Raises:
            BrokerUnavailable: it stopped answering.
        """
        held = [self._held(r) for r in window.ranges]
        if any(first < next_ for first, next_ in held):
            self._read(window, held)
        for at, (r, (first, next_)) in enumerate(zip(window.ranges, held, strict=True)):
            if r.place not in self._begins:
                continue
            seen = self._seen.setdefault(r.place, _Differences(first, next_))
            seen.next = max(seen.next, next_)
            if first < next_:
                seen.add(window.only(at, IN_LOG, first), window.only(at, IN_TABLE, first))

    def agrees_from(self, place: TopicPartition) -> int | None:
        """From which offset on log and table are the same; None: they differ, or it is unknown."""
        seen = self._seen.get(place)
        return None if seen is None or seen.absent or seen.extra else seen.first

    def findings(self, marker: Marker) -> list[Finding]:
        """What the comparison showed, partition by partition."""
        recorded = {one.topic: one for one in marker.topics}
        others = [t.topic for t in self._topics if recorded.get(t.topic, t) != t]
        if others:
            detail = f"topic {', '.join(others)} is not the one whose records the table holds"
            return [Finding("log", "unproved", detail)]
        return [
            self._finding(place, position, marker.tallies.get(place, Tally(position)))
            for place, position in marker.positions.items()
        ]

    def _finding(self, place: TopicPartition, position: int, tally: Tally) -> Finding:
        what = f"log {place[0]}[{place[1]}]"
        seen = self._seen.get(place)
        if seen is None or seen.first >= position:
            return Finding(what, "noted", "the log holds nothing of it any more")
        where = f"[{seen.first}, {position})"
        named = ", ".join(map(str, seen.named))
        if seen.extra:
            return Finding(what, "broken", f"{seen.extra} rows of {where} are not in it: {named}")
        if seen.absent > tally.rejects:
            detail = f"{seen.absent} of its records in {where} are no rows: {named}"
            return Finding(what, "broken", f"{detail}; {tally.rejects} rejects are recorded")
        if (differing := self._differing.get(place)) is not None:
            stretches = ", ".join(f"[{first}, {next_})" for first, next_ in differing[:NAMED])
            return Finding(what, "broken", f"rows do not say what its records say in {stretches}")
        if self._ends.at(place) < position:
            return Finding(what, "broken", f"it ends at {self._ends.at(place)}, below {position}")
        rejected = f", {seen.absent} are rejects" if seen.absent else ""
        same = "are the table's rows" if self._contents else "have the offsets of the table's rows"
        detail = f"its {seen.records} records in {where} {same}{rejected}"
        return Finding(what, "proved", detail)

    def _held(self, r: Range) -> tuple[int, int]:
        """What the log holds of a range."""
        return (
            max(r.first, self._begins.at(r.place)),
            min(r.next, self._ends.at(r.place)),
        )

    def _read(self, window: Window, held: Sequence[tuple[int, int]]) -> None:
        numbers = Numbers([r.place for r in window.ranges])
        bounds = dict(zip((r.place for r in window.ranges), held, strict=True))
        firsts = {
            place: min(max(bounds.get(place, (end, end))[0], self._begins.at(place)), end)
            for place, end in self._ends.items()
        }
        target = Offsets({p: next_ for p, (first, next_) in bounds.items() if first < next_})
        self._reader.assign(Offsets(firsts))
        idle = 0
        while not self._reader.positions.covers(target):
            chunk = self._reader.poll(_POLL_ROWS, _POLL_S)
            idle = idle + 1 if chunk is None else 0
            if idle > _IDLE_POLLS:
                raise BrokerUnavailable("the broker stopped giving records: try again")
            if chunk is not None and chunk.metadata.num_rows:
                places = numbers.of(chunk.metadata)
                offsets = chunk.metadata.column(OFFSET).to_numpy(zero_copy_only=False)
                self._count(window, places, offsets, held)
                if self._contents is not None:
                    self._contents.add_chunk(chunk, np.array(held, np.int64))

    def _count(
        self, window: Window, places: Int64s, offsets: Int64s, held: Sequence[tuple[int, int]]
    ) -> None:
        """Marks records; one past a window's or a range's end is the next window's."""
        bounds = np.array([*held, (0, 0)], np.int64)[places]
        mine = (places >= 0) & (offsets >= bounds[:, 0]) & (offsets < bounds[:, 1])
        window.add_log(places[mine], offsets[mine])
        for at, count in enumerate(np.bincount(places[mine], minlength=len(held))):
            r = window.ranges[at]
            seen = self._seen.setdefault(r.place, _Differences(*held[at]))
            seen.records += int(count)
