"""Dead letters decoded again: those that have become readable turn into rows of their table.

Two tables cannot be committed at once, so each round makes two commits and a number says how far it
came. ``replays`` in the table's marker counts the rounds whose rows are in it, the one in the dead
letter table's marker those whose letters are off it:

1. the rows, appended to the table; its positions, epoch and writer stay what they are;
2. the letters, taken off the dead letter table.

Ended in between, the first number is one ahead, and the next replay begins by looking which letters
are rows and taking them off. A letter is replayed only below the table's positions: what lies above
is read by the ingest again after a crash. A running ingest sees commits of somebody else that leave
its marker alone, and follows them. Every version before the first commit lacks the rows, every one
after it has them: a ticket that was made before is not answered from a snapshot after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from catalog.commits import commit
from catalog.declaring import continuing_decoder, declared_now
from catalog.decode import Decoder
from catalog.errors import MarkerLost, SpecRefused, TableNotFound
from catalog.faults import reach
from catalog.files import files_at
from catalog.heads import Head, head_of, required_marker, snapshot_at
from catalog.lake import COMMIT_TIMEOUT_S, FileRequest, Lake
from catalog.letter_commits import ReplayRows, TakeOff, table_of
from catalog.letters import LETTER_SCHEMA, VALUE, Recorded, letter_spec, places_of, rows_below
from catalog.offsets import Offsets
from catalog.records import Chunk
from catalog.registry import SchemaRegistry
from catalog.schemas import HEADERS, KEY, OFFSET, PARTITION, TIMESTAMP, TOPIC
from catalog.spec import TableName, TableSpec
from catalog.tallies import tallies_of

#: Bytes of files that one round takes; letters are decompressed in memory, three to ten times that.
_ROUND_BYTES = 16 * 1024 * 1024
_PLACE = (TOPIC, PARTITION, OFFSET)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did.

    Attributes:
        letters: that were looked at.
        rows: of them that are rows now, those of an unfinished replay before it included.
    """

    letters: int
    rows: int


class Replay:
    """A table and its letters; one replay at a time comes through, others are refused.

    Args:
        lake: the catalog.
        spec: the table.
        decoder: of the schema that the table is declared by today.
    """

    def __init__(self, lake: Lake, spec: TableSpec, decoder: Decoder) -> None:
        self._lake, self._spec, self._decoder = lake, spec, decoder
        self._letters = letter_spec(spec)

    def run(self) -> Replayed:
        """Replays every letter that decodes now. Ended anywhere, running it again goes on.

        Raises:
            TableNotFound: the table or its dead letter table does not exist.
            MarkerLost: the two do not belong together any more; says why.
            Fenced: another replay, or a change of the tables, came first: run it again.
            SchemaChanged, SpecRefused: letters decode to what the table cannot hold; restart the
                ingest, which adds columns, then replay.
            Unavailable, CommitUnknown: run it again.
        """
        head, letters = self._heads()
        finished = self._finish(letters) if letters.replays < head.replays else 0
        looked = rows = 0
        for paths in self._rounds():
            seen, done = self._round(paths)
            looked, rows = looked + seen, rows + done
        return Replayed(looked + finished, rows + finished)

    def _heads(self) -> tuple[_Side, _Side]:
        head, letters = (self._side(name) for name in (self._spec.name, self._letters.name))
        if table_of(required_marker(letters.head, self._letters.name)) != head.head.table_uuid:
            raise MarkerLost(
                f"{self._letters.name} holds letters of an earlier table of this name: start the "
                f"ingest of {self._spec.name} once with on_error = dead_letter"
            )
        if letters.replays > head.replays:
            raise MarkerLost(
                f"{self._spec.name} went back to before replay {letters.replays} of its letters: "
                f"roll {self._letters.name} back, too"
            )
        return head, letters

    def _side(self, name: TableName) -> _Side:
        head = self._lake.head(name)
        return _Side(head, required_marker(head, name).replays)

    def _rounds(self) -> Iterator[tuple[str, ...]]:
        """The files of letters in groups, as they are now."""
        entries = self._entries(self._lake.head(self._letters.name), self._letters.name)
        group: list[str] = []
        size = 0
        for entry in entries.select(["path", "file_size_bytes"]).to_pylist():
            if group and size + entry["file_size_bytes"] > _ROUND_BYTES:
                yield tuple(group)
                group, size = [], 0
            group.append(entry["path"])
            size += entry["file_size_bytes"]
        if group:
            yield tuple(group)

    def _round(self, paths: tuple[str, ...]) -> tuple[int, int]:
        """Replays the letters of some files; how many they were, and how many are rows now."""
        head, side = self._heads()
        letters = self._read(self._letters.name, side.head, paths, tuple(LETTER_SCHEMA.names))
        positions = required_marker(head.head, self._spec.name).positions
        below = rows_below(letters, positions)
        open_letters = letters.filter(pa.array(below))
        decoded = self._decoder.decode(_chunk(open_letters, self._spec))
        if not decoded.batch.num_rows:
            return letters.num_rows, 0
        rows = self._lake.write_files(
            self._spec.name, [decoded.batch], self._spec, self._decoder.declaration
        )
        if rows.growth is not None and rows.growth.schema is not None:
            raise SpecRefused(
                f"{self._spec.name} lacks columns of the declared schema: restart its ingest, "
                f"which adds them, then replay"
            )
        highest = Offsets(
            {
                place: int(pc.max(open_letters.column(OFFSET).filter(pa.array(mine))).as_py()) + 1
                for place, mine in places_of(open_letters).items()
            }
        )
        self._commit(self._spec.name, ReplayRows(rows, head.replays, highest))
        reach("replay.rows_committed")
        self._take_off(side, paths, letters, Recorded([decoded.batch]), head.replays + 1)
        return letters.num_rows, decoded.batch.num_rows

    def _finish(self, side: _Side) -> int:
        """Takes letters off that an unfinished replay made rows of; how many."""
        paths = tuple(self._entries(side.head, self._letters.name)["path"].to_pylist())
        places = self._read(self._letters.name, side.head, paths, _PLACE)
        rows = self._rows_among(places) if places.num_rows else Recorded()
        hit = rows.among(places)
        if hit is None:  # they are off already, or their table was compacted: only count
            paths = ()
        letters = self._read(self._letters.name, side.head, paths, tuple(LETTER_SCHEMA.names))
        self._take_off(side, paths, letters, rows, side.replays + 1)
        return 0 if hit is None else int(hit.sum())

    def _rows_among(self, places: pa.RecordBatch) -> Recorded:
        """The table's rows that are of the records at ``places``."""
        head = self._lake.head(self._spec.name)
        entries = self._entries(head, self._spec.name)
        low, high = (f(places.column(OFFSET)).as_py() for f in (pc.min, pc.max))
        lower, upper = (pc.struct_field(entries[side], OFFSET) for side in ("lower", "upper"))
        may = pc.and_kleene(pc.less_equal(lower, high), pc.greater_equal(upper, low))
        found = entries.filter(pc.fill_null(may, fill_value=True))["path"].to_pylist()
        wanted = Recorded([places])
        request = _request(head, tuple(found), _PLACE)
        return Recorded(
            batch.filter(pa.array(hit))
            for batch in (self._lake.read_files(self._spec.name, request) if found else ())
            if (hit := wanted.among(batch)) is not None
        )

    def _take_off(
        self,
        side: _Side,
        paths: tuple[str, ...],
        letters: pa.RecordBatch,
        rows: Recorded,
        replays: int,
    ) -> None:
        """Writes the files of ``letters`` anew without those that are rows."""
        hit = rows.among(letters)
        rest = letters if hit is None else letters.filter(pa.array(~hit))
        staged = self._lake.write_files(self._letters.name, [rest], self._letters)
        table = self._lake.load(self._letters.name)
        snapshot = snapshot_at(table.metadata, side.head.snapshot_id)
        removed = () if snapshot is None else tuple(files_at(snapshot, table.io, paths))
        held = tallies_of(pa.Table.from_batches([letters]), *_PLACE)
        self._commit(self._letters.name, TakeOff(replace(staged, removed=removed), replays, held))
        reach("replay.letters_taken_off")

    def _commit(self, name: TableName, intent: ReplayRows | TakeOff) -> Head:
        return head_of(commit(lambda: self._lake.load(name), intent, timeout_s=COMMIT_TIMEOUT_S))

    def _entries(self, head: Head, name: TableName) -> pa.Table:
        return self._lake.entries(name, head.snapshot_id, head.metadata_location)

    def _read(
        self, name: TableName, head: Head, paths: tuple[str, ...], columns: tuple[str, ...]
    ) -> pa.RecordBatch:
        schema = pa.schema([LETTER_SCHEMA.field(column) for column in columns])
        request = _request(head, paths, columns)
        batches = self._lake.read_files(name, request) if paths else iter(())
        table = pa.Table.from_batches(batches, schema).combine_chunks()
        return next(iter(table.to_batches()), pa.RecordBatch.from_pylist([], schema=schema))


def replay(lake: Lake, spec: TableSpec, registry: SchemaRegistry) -> Replayed:
    """Decodes a table's letters again, by the declaration that its rows follow.

    Raises:
        SchemaRefused, SchemaUnknown, SchemaChanged, SchemaConflict: there is no such declaration.
        CatalogError: as :meth:`Replay.run`.
    """
    declared = declared_now(spec, registry)
    places = _Places(lake, registry)
    decoder = continuing_decoder(declared, lake.head(spec.name), spec, places, None)
    return Replay(lake, spec, decoder).run()


@dataclass(frozen=True, slots=True)
class _Places:
    """Where tables and schemas are."""

    lake: Lake
    registry: SchemaRegistry


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two tables, and the replays that its marker counts."""

    head: Head
    replays: int


def newest_letters(lake: Lake, spec: TableSpec, limit: int) -> Iterator[Mapping[str, object]]:
    """The letters recorded last come first; at most ``limit``; rows of ``LETTER_SCHEMA``.

    Raises:
        TableNotFound: nothing was ever recorded.
    """
    if not lake.exists(spec.dead_letters):
        raise TableNotFound(f"there is no dead letter table {spec.dead_letters}")
    head = lake.head(spec.dead_letters)
    entries = lake.entries(spec.dead_letters, head.snapshot_id, head.metadata_location)
    for path in entries["path"].to_pylist():
        request = _request(head, (path,), tuple(LETTER_SCHEMA.names))
        for batch in lake.read_files(spec.dead_letters, request):
            yield from batch.slice(0, limit).to_pylist()
            limit -= min(limit, batch.num_rows)
            if not limit:
                return


def _request(head: Head, paths: tuple[str, ...], columns: tuple[str, ...]) -> FileRequest:
    return FileRequest(
        metadata_location=head.metadata_location,
        snapshot_id=head.snapshot_id or 0,
        paths=paths,
        columns=tuple(columns),
    )


def _chunk(letters: pa.RecordBatch, spec: TableSpec) -> Chunk:
    """Letters as what a poll gives."""
    names = [TOPIC, PARTITION, OFFSET, TIMESTAMP]
    names += [KEY] * spec.key + [HEADERS] * spec.headers
    return Chunk(letters.column(VALUE).to_pylist(), letters.select(names), ())
