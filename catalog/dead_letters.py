"""A table's dead letter table: claimed with it, and committed before it.

The letters of ``[head, new)`` are committed first, through the same fenced commit, under the same
epoch and writer; then the table itself moves to ``new``. So a record is never in neither place.
After a crash in between, letters lie at or past the table's positions: the next owner reads them
before anything else and they stay letters (``catalog.letters.Recorded``), so a record is never in
both.

The marker of a dead letter table holds the positions up to which letters may reach, and, as the
position of the topic :data:`LETTERS`, how many letters were ever recorded. That number moves with
every commit of letters, so the recorded positions tell the outcome of each (rule 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalog.commits import commit
from catalog.faults import reach
from catalog.heads import Head, head_of, required_marker
from catalog.intents import Staged
from catalog.lake import COMMIT_TIMEOUT_S, FileRequest, Lake
from catalog.letter_commits import Follow, writer_of
from catalog.letters import LETTER_SCHEMA, Recorded, Waiting, letter_spec, rows_below
from catalog.offsets import Marker, Offsets
from catalog.rejects import Rejects
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.spec import TableName, TableSpec

#: The "topic" whose position counts letters; no topic of Kafka's can have this name.
LETTERS = ("$letters", 0)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Letters as files, and the marker that stands when they are recorded."""

    target: Offsets
    staged: Staged
    new: Marker


class DeadLetters:
    """Records letters; belongs to the flushing thread.

    Files of a commit that failed, or whose outcome is not known, are kept and sent again.
    """

    def __init__(self, lake: Lake, spec: TableSpec, owned: Marker) -> None:
        """Use :func:`claim_letters`."""
        self._lake = lake
        self._spec = letter_spec(spec)
        self._marker = owned
        self._prepared: _Prepared | None = None

    @property
    def recorded(self) -> int:
        """How many letters were ever recorded."""
        return self._marker.positions.at(LETTERS)

    def record(self, waiting: Waiting, target: Offsets) -> None:
        """Commits the letters below ``target`` that wait; none: no commit.

        Raises:
            Fenced: another ingest owns the dead letter table, or it was changed otherwise.
            Unavailable, CommitUnknown: call again with the same target.
            TableNotFound, MarkerLost, TopicRecreated: as they say.
        """
        self._prepared = self._prepared or self._prepare(waiting, target)
        if self._prepared is None:
            return
        head = self._lake.commit(
            self._spec.name, self._prepared.staged, expected=self._marker, new=self._prepared.new
        )
        waiting.remove_below(self._prepared.target)
        self._marker, self._prepared = required_marker(head, self._spec.name), None
        reach("letters.committed")

    def _prepare(self, waiting: Waiting, target: Offsets) -> _Prepared | None:
        letters = waiting.below(target)
        if letters is None:
            return None
        staged = self._lake.write_files(self._spec.name, [letters], self._spec)
        positions = self._marker.positions.max(target)
        count = self.recorded + letters.num_rows
        new = self._marker.moved_to(positions.with_positions([(LETTERS, count)]))
        return _Prepared(target, staged, new)


def prepare_letters(lake: Lake, spec: TableSpec) -> None:
    """Creates the dead letter table where it is missing; errors as ``Lake.ensure_table``."""
    lake.ensure_table(letter_spec(spec), LETTER_SCHEMA)


def open_rejects(
    lake: Lake, spec: TableSpec, head: Head
) -> tuple[Rejects, Callable[[Offsets], None]]:
    """The rejects of a reading from ``head`` on, and how a flush records those below its end.

    The letters are claimed before they are read: who owned them before adds none any more.

    Args:
        lake: the catalog.
        spec: the table.
        head: of the table, by the owner's claim.

    Raises:
        CatalogError: as :func:`claim_letters` and :func:`recorded_past`.
    """
    positions = Offsets() if head.marker is None else head.marker.positions
    if spec.on_error != "dead_letter":
        return Rejects(spec, recorded_past(lake, spec, positions)), lambda _: None
    letters = claim_letters(lake, spec, head)
    rejects = Rejects(spec, recorded_past(lake, spec, positions))
    rejects.report.letters = letters.recorded

    def record(target: Offsets) -> None:
        letters.record(rejects.waiting, target)
        rejects.report.letters = letters.recorded

    return rejects, record


def claim_letters(lake: Lake, spec: TableSpec, head: Head) -> DeadLetters:
    """Makes the owner of a table the owner of its letters.

    Args:
        lake: the catalog.
        spec: the table.
        head: of the table, by the owner's claim.

    Raises:
        Fenced: a newer owner was here.
        MarkerLost: the table's positions are not provable, or it went back to before a replay.
        TopicRecreated: the letters are of another topic of the same name (rule 9).
        CommitUnknown, LakeUnavailable, TableNotFound: no owner yet.
    """
    owner = required_marker(head, spec.name)
    follow = Follow(owner.written_by(writer_of(owner.writer, head.table_uuid)))
    name = spec.dead_letters
    table = commit(lambda: lake.load(name), follow, timeout_s=COMMIT_TIMEOUT_S)
    return DeadLetters(lake, spec, required_marker(head_of(table), name))


def recorded_past(lake: Lake, spec: TableSpec, positions: Offsets) -> Recorded:
    """The letters that lie at or past a table's positions; whatever its policy is now.

    Raises:
        LakeUnavailable, MarkerLost: as they say.
    """
    if not lake.exists(spec.dead_letters):
        return Recorded()
    head = lake.head(spec.dead_letters)
    if head.marker is None:
        return Recorded()
    behind = [place for place in positions.behind(head.marker.positions) if place != LETTERS]
    if not behind:
        return Recorded()
    least = min(positions.at(place) for place in behind)
    return Recorded(_past(lake, spec.dead_letters, head, (positions, least)))


def _past(
    lake: Lake, name: TableName, head: Head, past: tuple[Offsets, int]
) -> Iterator[pa.RecordBatch]:
    """Places of letters at or past the positions, none of which is below ``past[1]``."""
    positions, least = past
    entries = lake.entries(name, head.snapshot_id, head.metadata_location)
    upper = pc.struct_field(entries["upper"], OFFSET)
    may = entries.filter(pc.fill_null(pc.greater_equal(upper, least), fill_value=True))
    request = FileRequest(
        metadata_location=head.metadata_location,
        snapshot_id=head.snapshot_id or 0,
        paths=tuple(may["path"].to_pylist()),
        columns=(TOPIC, PARTITION, OFFSET),
    )
    for batch in lake.read_files(name, request) if request.paths else ():
        yield batch.filter(pa.array(~rows_below(batch, positions)))
