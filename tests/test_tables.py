import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest
import support_deletes as deletes
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import load_catalog
from support_avro import examples
from support_live import (
    IDENTITY,
    NAME,
    SCHEMA,
    SPEC,
    TOPIC,
    Log,
    MemoryHead,
    MemoryLake,
    answer,
    at,
    batch_of,
    keys_of,
    manifest_of,
)

from catalog.errors import (
    CatalogError,
    FileMissing,
    LogEndsEarly,
    LogGap,
    NotReady,
    PoisonRecord,
    SegmentMissing,
    TableNotFound,
    TopicRecreated,
    VersionGone,
)
from catalog.heads import Head
from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.offsets import Marker, Offsets
from catalog.records import LogBounds, RejectCount, Segment
from catalog.reports import LAG_SCHEMA, OFFSETS_SCHEMA, REJECTS_SCHEMA, TABLES_SCHEMA
from catalog.runs import Heads, Runs
from catalog.segments import LiveReader, LiveWriter, merge_due
from catalog.spec import TableName
from catalog.tables import Pin, Tables

PLAIN = TableName("reference", "symbols")


@dataclass
class Ingest:
    """A writer of the test table over a known log, one step at a time, in the order of rule 10."""

    folder: Path
    log: Log
    lake: MemoryLake
    grace_s: float = 0.0
    position: Offsets = field(default_factory=Offsets)
    committed: Offsets = field(default_factory=Offsets)
    live: list[Segment] = field(default_factory=list)
    sequence: int = 0
    clock_s: float = 0.0

    def __post_init__(self) -> None:
        self.writer = LiveWriter(self.folder, NAME, self.grace_s)
        if NAME not in self.lake.heads:
            self.lake.commit(NAME)

    def consume(self, to: Offsets) -> None:
        """Reads on to ``to``."""
        self.live.append(self.writer.write(*self.log.chunk(self.position, to)))
        self.position = self.position.max(to)

    def publish(self, **changes: object) -> None:
        """Publishes what was read and committed, with some fields changed."""
        head = self.lake.heads[NAME]
        self.sequence += 1
        self.writer.publish(
            replace(
                manifest_of(self.live, self.committed, self.committed.max(self.position)),
                snapshot_id=head.snapshot_id,
                metadata_location=head.metadata_location,
                sequence=self.sequence,
                **changes,  # type: ignore[arg-type]  # fields by name, for brevity
            )
        )

    def flush(self, to: Offsets) -> None:
        """Commits the rows below ``to``; segments that lie below it leave the list."""
        self.lake.commit(NAME, self.writer.read(self.live, self.committed, to))
        self.committed = self.committed.max(to)
        self.live = [
            s
            for s in self.live
            if any(p.next > self.committed.at((p.topic, p.partition)) for p in s.parts)
        ]

    def merge(self, first: int = 0, count: int | None = None) -> None:
        """Merges neighbours."""
        group = self.live[first : None if count is None else first + count]
        if group:
            self.live[first : first + len(group)] = [self.writer.merge(group)]

    def trim(self) -> None:
        """Two trims, a second apart."""
        self.clock_s += 1
        self.writer.trim(self.live, self.clock_s)
        self.clock_s += 1
        self.writer.trim(self.live, self.clock_s)


@pytest.fixture
def lake() -> MemoryLake:
    return MemoryLake()


@pytest.fixture
def ingest(tmp_path: Path, lake: MemoryLake) -> Ingest:
    return Ingest(tmp_path, Log.full(2, 100), lake)


def server(ingest: Ingest, refresh_ms: int = 0) -> Tables:
    return Tables(ingest.lake, LiveReader(ingest.folder), [SPEC], refresh_ms=refresh_ms)


def through_ticket(pin: Pin) -> Pin:
    return Pin.from_json(json.loads(json.dumps(pin.to_json())))


# --- pin --------------------------------------------------------------------------------------


def test_a_pin_is_the_published_version(ingest: Ingest) -> None:
    """Rule 10: the manifest counts, although the lake's head is already another one."""
    tables = server(ingest)
    ingest.consume(at(10, 20))
    ingest.publish()
    published = ingest.lake.heads[NAME]
    ingest.flush(at(5, 5))
    pin = tables.pin(NAME)
    assert (pin.kind, pin.snapshot_id) == ("hybrid", published.snapshot_id)
    assert (pin.committed, pin.high) == (Offsets(), at(10, 20))
    assert answer(tables.open(pin)) == ingest.log.between(at(0, 0), at(10, 20))


def test_a_pin_names_positions_and_never_a_segment_file(ingest: Ingest) -> None:
    """Rule 17."""
    ingest.consume(at(10, 20))
    ingest.publish()
    pin = server(ingest).pin(NAME)
    text = json.dumps(pin.to_json())
    assert through_ticket(pin) == pin
    assert ".arrow" not in text
    assert all(segment.file not in text for segment in ingest.live)


def test_a_ticket_of_another_program_version_is_refused() -> None:
    with pytest.raises(VersionGone, match="plan the statement again"):
        Pin.from_json({"n": ["a", "b"]})
    with pytest.raises(VersionGone):
        Pin.from_json({})


def test_one_pin_reads_the_manifest_once(ingest: Ingest) -> None:
    """Rule 16: a version stays itself whatever is published after it."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.consume(at(30, 30))
    ingest.publish()
    assert answer(tables.open(pin)) == ingest.log.between(at(0, 0), at(10, 10))


def test_a_table_that_was_never_published_is_not_ready(ingest: Ingest) -> None:
    tables = server(ingest)
    with pytest.raises(NotReady, match="has not been published yet"):
        tables.pin(NAME)
    assert NotReady.retriable


@pytest.mark.parametrize("kind", [LogGap, TopicRecreated, LogEndsEarly])
def test_a_table_whose_log_is_lost_refuses_its_tail_but_not_its_runs(
    ingest: Ingest, kind: type[CatalogError]
) -> None:
    """Rules 9, 12, 19: the tail is refused with the ingest's own error; the runs stand."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.flush(at(10, 10))
    ingest.publish()
    old = tables.pin(NAME)
    ingest.publish(state="stopped", error_code=kind.code, error=f"{kind.__name__}: it is: lost")
    with pytest.raises(kind, match=r"^it is: lost$"):
        tables.pin(NAME)
    with pytest.raises(kind):
        tables.open(old)
    runs = tables.open(tables.pin(NAME, tail=False), need="runs")
    assert answer(runs) == ingest.log.between(at(0, 0), at(10, 10))


def test_a_table_that_stopped_on_a_bad_record_serves_what_it_has(ingest: Ingest) -> None:
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish(state="stopped", error_code=PoisonRecord.code, error="PoisonRecord: at 10")
    assert answer(tables.open(tables.pin(NAME))) == ingest.log.between(at(0, 0), at(10, 10))


def test_a_published_hole_is_a_gap_error_for_every_statement(ingest: Ingest) -> None:
    """Rule 19: a first live position above C is an error, when pinned and when opened."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = tables.pin(NAME)
    del ingest.live[0]
    ingest.publish()
    with pytest.raises(LogGap, match=r"market.trades\[0\]: no live rows at position 0"):
        tables.pin(NAME)
    with pytest.raises(LogGap):
        tables.open(pin)


# --- sessions (rule 20) -----------------------------------------------------------------------


def test_a_server_behind_the_session_says_so(ingest: Ingest) -> None:
    """Rule 20: a session never goes back."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    assert tables.pin(NAME, at_least=at(10, 10)).high == at(10, 10)
    for deadline_s in (None, 0.0, 0.02):
        with pytest.raises(NotReady, match=r"behind what the session saw .market.trades\[1\]"):
            tables.pin(NAME, at_least=at(10, 11), deadline_s=deadline_s)


def test_a_server_behind_the_session_waits_for_the_publication(ingest: Ingest) -> None:
    """Rule 20: within the deadline."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    waits = threading.Event()

    def later() -> None:
        waits.wait()
        ingest.consume(at(20, 20))
        ingest.publish()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        waits.set()
        assert tables.pin(NAME, at_least=at(20, 15), deadline_s=30).high == at(20, 20)
    finally:
        thread.join()


# --- open (rule 17) ---------------------------------------------------------------------------


def test_a_ticket_of_a_server_that_is_ahead_is_waited_for(ingest: Ingest, tmp_path: Path) -> None:
    """Rules 17 and 20: another machine pinned what this one reads a moment later."""
    here = Ingest(tmp_path / "here", ingest.log, ingest.lake)
    for each in (ingest, here):
        each.consume(at(10, 10))
        each.publish()
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = through_ticket(server(ingest).pin(NAME))
    tables = server(here)
    with pytest.raises(NotReady, match="behind the ticket"):
        tables.open(pin, deadline_s=0.01)

    def later() -> None:
        here.consume(at(25, 25))
        here.publish()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert answer(tables.open(pin, deadline_s=30)) == ingest.log.between(at(0, 0), at(20, 20))
    finally:
        thread.join()


def test_a_ticket_is_answered_with_the_same_rows_after_merges_and_flushes(ingest: Ingest) -> None:
    """Rule 17: E never changes; S or a later S' with C' <= E."""
    tables = server(ingest)
    for step in range(1, 5):
        ingest.consume(at(step * 10, step * 10))
    ingest.publish()
    pin = through_ticket(tables.pin(NAME))
    rows = ingest.log.between(at(0, 0), at(40, 40))
    assert answer(tables.open(pin)) == rows
    ingest.merge()
    ingest.consume(at(50, 60))
    ingest.publish()
    assert answer(tables.open(pin)) == rows
    ingest.flush(at(15, 25))
    ingest.publish()
    ingest.trim()
    for replica in (tables, server(ingest)):
        version = replica.open(pin)
        assert answer(version) == rows
        assert version.pin.high == pin.high
        assert version.live_rows == sum(batch.num_rows for batch in version.live)


def test_a_replica_answers_from_a_later_snapshot(ingest: Ingest) -> None:
    """Rule 17: the segments of [C, C') are gone, S' holds their rows."""
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = server(ingest).pin(NAME)
    ingest.flush(at(10, 10))
    ingest.publish()
    ingest.trim()
    version = server(ingest).open(pin)
    assert version.pin.committed == at(10, 10)
    assert answer(version) == ingest.log.between(at(0, 0), at(20, 20))


def test_a_later_snapshot_with_replayed_rows_answers_no_earlier_ticket(ingest: Ingest) -> None:
    """Rule 17: as above, but S' holds rows below C' that S lacks: never other rows."""
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = through_ticket(server(ingest).pin(NAME))
    ingest.flush(at(10, 10))
    ingest.publish(replays=1)
    ingest.trim()
    with pytest.raises(VersionGone):
        server(ingest).open(pin)
    later = through_ticket(server(ingest).pin(NAME))
    assert later.replays == 1
    server(ingest).open(later)


def test_a_later_snapshot_never_moves_a_tickets_end(ingest: Ingest) -> None:
    """Rule 17: what came after the pin stays out, although S' and its tail hold it."""
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = server(ingest).pin(NAME)
    ingest.flush(at(10, 10))
    ingest.consume(at(25, 30))
    ingest.publish()
    ingest.trim()
    version = server(ingest).open(pin)
    assert (version.pin.committed, version.pin.high) == (at(10, 10), at(20, 20))
    assert answer(version) == ingest.log.between(at(0, 0), at(20, 20))


def test_a_flush_beyond_the_ticket_leaves_it_gone_on_a_server_that_never_saw_it(
    ingest: Ingest,
) -> None:
    """Rule 17: C' > E and [C, E) trimmed: VersionGone, retriable, never other rows."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    before = answer(tables.open(pin))
    ingest.consume(at(20, 20))
    ingest.flush(at(20, 10))
    ingest.publish()
    ingest.trim()
    with pytest.raises(VersionGone, match="plan the statement again"):
        server(ingest).open(pin)
    assert VersionGone.retriable
    assert answer(tables.open(pin)) == before, "where its segments are mapped, it is answered"


def test_within_the_grace_a_ticket_is_answered_from_files_that_were_never_mapped(
    tmp_path: Path, lake: MemoryLake
) -> None:
    """Rules 14 and 17: a server that pinned and did not open yet."""
    ingest = Ingest(tmp_path, Log.full(2, 100), lake, grace_s=100)
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.consume(at(20, 20))
    ingest.flush(at(20, 20))
    ingest.publish()
    ingest.trim()
    assert answer(tables.open(pin)) == ingest.log.between(at(0, 0), at(10, 10))


def test_runs_and_tail_apart_are_those_of_the_pinned_snapshot(ingest: Ingest) -> None:
    """Rule 17: ``$runs`` and ``$live`` depend on C, so a later snapshot does not answer them."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = tables.pin(NAME)
    split = tables.open(pin, need="split")
    assert keys_of(split.entries.to_batches()) == []
    ingest.flush(at(10, 10))
    ingest.publish()
    ingest.trim()
    assert sorted(keys_of(tables.open(pin, need="split").live)) == answer(split)
    fresh = server(ingest)
    with pytest.raises(VersionGone):
        fresh.open(pin, need="split")
    assert keys_of(fresh.open(pin, need="runs").entries.to_batches()) == []
    assert fresh.open(pin, need="runs").live == ()


def test_an_expired_snapshot_is_gone_although_a_later_one_is_there(ingest: Ingest) -> None:
    """Rule 17: without S nobody can tell what others did to its rows before S'."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.flush(at(5, 5))
    ingest.publish()
    ingest.lake.gone.add(pin.snapshot_id or 0)
    with pytest.raises(VersionGone):
        tables.open(pin)


def test_a_later_snapshot_with_foreign_changes_answers_no_earlier_ticket(ingest: Ingest) -> None:
    """Rule 17: as for a replica above, but somebody else deleted rows below C in between."""
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    pin = through_ticket(server(ingest).pin(NAME))
    foreign = ingest.lake.commit(NAME).snapshot_id
    ingest.flush(at(10, 10))
    ingest.publish()
    ingest.trim()
    assert answer(server(ingest).open(pin)) == ingest.log.between(at(0, 0), at(20, 20))
    ingest.lake.foreign.add(foreign or 0)
    with pytest.raises(VersionGone):
        server(ingest).open(pin)


def test_a_missing_data_manifest_is_a_typed_error(ingest: Ingest) -> None:
    """Rule 18."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.lake.missing_files.add(pin.snapshot_id or 0)
    with pytest.raises(FileMissing):
        tables.open(pin)


def test_a_ticket_from_a_server_ahead_is_not_ready_here(
    ingest: Ingest, tmp_path: Path, lake: MemoryLake
) -> None:
    follower = Ingest(tmp_path / "follower", ingest.log, lake)
    follower.consume(at(5, 5))
    follower.publish()
    ingest.consume(at(10, 10))
    ingest.publish()
    with pytest.raises(NotReady, match="behind the ticket"):
        server(follower).open(server(ingest).pin(NAME))
    follower.consume(at(30, 10))
    follower.publish()
    version = server(follower).open(server(ingest).pin(NAME))
    assert answer(version) == ingest.log.between(at(0, 0), at(10, 10))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"table_uuid": "another"}, VersionGone),
        ({"topics": (replace(IDENTITY, topic_id="id-2"),)}, TopicRecreated),
        ({"topics": (replace(IDENTITY, cluster_id="c-2"),)}, TopicRecreated),
        ({"topics": (replace(IDENTITY, topic="another"),)}, VersionGone),
        ({"arrow_schema": SCHEMA.remove(1)}, VersionGone),
    ],
)
def test_a_ticket_of_another_table_topic_or_schema_is_never_answered(
    ingest: Ingest, change: dict[str, object], error: type[CatalogError]
) -> None:
    """Rules 9 and 17: a name is not an identity."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.publish(**change)
    with pytest.raises(error):
        tables.open(pin)


def test_a_topic_that_was_added_does_not_hurt_older_tickets(ingest: Ingest) -> None:
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.publish(topics=(IDENTITY, replace(IDENTITY, topic="zz")))
    assert answer(tables.open(pin)) == ingest.log.between(at(0, 0), at(10, 10))


def test_a_listed_segment_that_is_gone_is_an_error_not_a_loop(
    ingest: Ingest, tmp_path: Path
) -> None:
    """Rule 18: under an unchanged manifest."""
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.publish()
    pin = tables.pin(NAME)
    (tmp_path / ingest.live[0].file).unlink()
    with pytest.raises(SegmentMissing):
        tables.open(pin)


def test_a_segment_that_goes_while_a_new_manifest_comes_is_read_from_the_new_one(
    ingest: Ingest,
) -> None:
    """Rule 18: the manifest has changed, so it is read again, and the rows are the same."""
    ingest.consume(at(10, 10))
    ingest.consume(at(20, 20))
    ingest.publish()
    reader = _Interrupted(ingest.folder)
    tables = Tables(ingest.lake, reader, [SPEC], refresh_ms=0)
    pin = tables.pin(NAME)

    def between_reading_and_opening() -> None:
        ingest.merge()
        ingest.publish()
        ingest.trim()

    reader.before_open = between_reading_and_opening
    assert answer(tables.open(pin)) == ingest.log.between(at(0, 0), at(20, 20))
    assert reader.opened == 2


def test_a_folder_that_changes_for_ever_ends_in_a_typed_error(ingest: Ingest) -> None:
    """Rule 18: bounded."""
    ingest.consume(at(10, 10))
    ingest.publish()
    reader = _Interrupted(ingest.folder)
    tables = Tables(ingest.lake, reader, [SPEC], refresh_ms=0)
    pin = tables.pin(NAME)

    def every_time() -> None:
        ingest.merge()
        ingest.publish()
        ingest.trim()
        reader.before_open = every_time

    reader.before_open = every_time
    with pytest.raises(VersionGone, match="changed faster"):
        tables.open(pin)


class _Interrupted(LiveReader):
    """A reader with a place where something can happen between two of its steps."""

    before_open: Callable[[], None] | None = None
    opened = 0

    def batches(
        self,
        segments: object,
        first: Offsets,
        next: Offsets,  # noqa: A002  # overridden as it is
    ) -> list[pa.RecordBatch]:
        self.opened += 1
        act, self.before_open = self.before_open, None
        if act:
            act()
        return super().batches(segments, first, next)  # type: ignore[arg-type]  # passed through


# --- plain tables -----------------------------------------------------------------------------


def test_a_plain_table_is_its_head_at_most_refresh_old(ingest: Ingest, lake: MemoryLake) -> None:
    """Checked at first touch in a statement, remembered for refresh_ms."""
    lake.commit(PLAIN, [batch_of([(TOPIC, 0, 1)])])
    always, cached = server(ingest, 0), server(ingest, 3_600_000)
    old = always.pin(PLAIN)
    assert (old.kind, old.topics, old.high) == ("plain", (), Offsets())
    assert cached.pin(PLAIN) == old
    lake.commit(PLAIN, [batch_of([(TOPIC, 0, 2)])])
    assert always.pin(PLAIN).snapshot_id != old.snapshot_id
    assert cached.pin(PLAIN) == old
    version = always.open(through_ticket(old))
    assert keys_of(version.entries.to_batches()) == [(TOPIC, 0, 1)]
    assert (version.live, version.schema) == ((), SCHEMA)
    with pytest.raises(TableNotFound):
        always.pin(TableName("reference", "nothing"))


def test_names_that_clients_make_up_leave_nothing_behind(lake: MemoryLake) -> None:
    """A loop over names that no table has must not fill the server's memory."""

    class Asked(Heads):
        def __len__(self) -> int:
            return len(self._asking) + len(self._found)

    lake.commit(PLAIN)
    heads = Asked(lake, 60.0)
    heads.get(PLAIN)
    kept = len(heads)
    for number in range(100):
        with pytest.raises(TableNotFound):
            heads.get(TableName("ns", f"made_up_{number}"))
    assert len(heads) == kept
    assert heads.known(PLAIN) is not None


def test_many_threads_ask_the_catalog_once(ingest: Ingest, lake: MemoryLake) -> None:
    """All others wait for the one answer."""
    lake.commit(PLAIN)
    slow = _Slow(lake.heads, lake.rows)
    tables = Tables(slow, LiveReader(ingest.folder), [SPEC], refresh_ms=3_600_000)
    threads = [threading.Thread(target=tables.pin, args=(PLAIN,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.asked == ["head"]


class _Slow(MemoryLake):
    """A catalog that is asked by everybody before it answers anybody."""

    def head(self, name: TableName) -> MemoryHead:  # as in catalog.runs.Runs
        """As a catalog across a network."""
        found = super().head(name)
        time.sleep(0.1)
        return found


def test_names_are_the_declared_tables_and_all_others(ingest: Ingest, lake: MemoryLake) -> None:
    lake.commit(PLAIN)
    tables = server(ingest, 3_600_000)
    lake.asked.clear()
    assert tables.names() == (NAME, PLAIN)
    assert tables.names() == (NAME, PLAIN)
    assert lake.asked == ["listing"]


# --- schemas and reports ----------------------------------------------------------------------


def test_a_pins_schema_stays_although_the_table_is_declared_anew(ingest: Ingest) -> None:
    tables = server(ingest)
    ingest.publish()
    pin = tables.pin(NAME)
    ingest.publish(arrow_schema=SCHEMA.remove(0))
    assert tables.schema(pin).equals(SCHEMA)
    with pytest.raises(VersionGone, match="another schema"):
        server(ingest).schema(pin)


def test_a_table_is_described_before_its_first_publication(
    ingest: Ingest, lake: MemoryLake
) -> None:
    tables = server(ingest)
    assert tables.describe(NAME).equals(SCHEMA)
    lake.heads.clear()
    with pytest.raises(NotReady):
        tables.describe(NAME)
    with pytest.raises(TableNotFound):
        tables.describe(PLAIN)
    ingest.lake.commit(NAME)
    ingest.publish(arrow_schema=SCHEMA.remove(0))
    assert tables.describe(NAME).equals(SCHEMA.remove(0))


def test_offsets_are_the_pins(ingest: Ingest) -> None:
    tables = server(ingest)
    ingest.consume(at(10, 10))
    ingest.flush(at(5, 0))
    ingest.publish(watermarks=at(12, 13, 4))
    pin = tables.pin(NAME)
    ingest.consume(at(20, 20))
    ingest.publish(watermarks=at(12, 13, 4))
    found = tables.metadata_table(pin, "offsets")
    assert found.schema.equals(OFFSETS_SCHEMA)
    assert found.select(["partition", "committed", "high", "watermark"]).to_pylist() == [
        {"partition": 0, "committed": 5, "high": 10, "watermark": 12},
        {"partition": 1, "committed": 0, "high": 10, "watermark": 13},
        {"partition": 2, "committed": 0, "high": 0, "watermark": 4},
    ]
    assert tables.metadata_table(pin, "snapshots").num_rows == 2
    assert tables.metadata_table(pin, "files")["path"].to_pylist() == ["data/1.parquet"]


def test_lag_shows_every_partition_and_why_a_table_stands(ingest: Ingest) -> None:
    tables = server(ingest)
    (row,) = tables.lag().to_pylist()
    assert (row["state"], row["topic"], row["partition"]) == ("not_ready", TOPIC, None)
    ingest.consume(at(10, 20))
    ingest.publish(watermarks=at(15, 20), state="paused", error="x: y")
    found = tables.lag()
    assert found.schema.equals(LAG_SCHEMA)
    one, two = found.to_pylist()
    assert (one["lag_rows"], two["lag_rows"]) == (5, 0)
    assert (one["live_rows"], two["live_rows"]) == (10, 20)
    assert one["live_bytes"] + two["live_bytes"] <= ingest.live[0].bytes
    assert (one["state"], one["error"], one["topic_id"]) == ("paused", "x: y", "id-1")
    assert one["age_ms"] > 0


def test_lag_shows_what_holds_a_table_up(ingest: Ingest) -> None:
    """Rule 14: the level, its reason, an open transaction and what retention threatens."""
    tables = server(ingest)
    ingest.consume(at(10, 20))
    now_us = time.time_ns() // 1000
    log = (
        LogBounds(TOPIC, 0, 0, 10, 15, held_us=now_us - 2_000_000),
        LogBounds(TOPIC, 1, 4, 20, 20, close=True),
        LogBounds(TOPIC, 2, 9, 9, 9),
    )
    size = sum(segment.bytes for segment in ingest.live)
    ingest.publish(
        watermarks=at(15, 20, 9), log=log, reason="because", live_max_bytes=4 * size, state="paused"
    )
    one, two, three = tables.lag().to_pylist()
    assert (one["stable"], one["held_rows"], one["uncommitted_share"]) == (10, 5, None)
    assert one["held_ms"] >= 2000
    assert (two["log_start"], two["held_rows"], two["held_ms"]) == (4, 0, None)
    assert two["uncommitted_share"] == 20 / 16
    assert "4 positions were deleted before history had them" in two["warning"]
    assert three["uncommitted_share"] is None
    assert {row["reason"] for row in (one, two, three)} == {"because"}
    assert {row["live_share"] for row in (one, two, three)} == {0.25}
    ingest.flush(at(5, 10))
    ingest.publish(log=log)
    two = tables.lag().to_pylist()[1]
    assert two["warning"].startswith("history lacks 62% of what the log still holds")
    assert two["live_share"] is None


def test_rejects_are_shown_for_every_partition(ingest: Ingest) -> None:
    """Nothing rejected shows as zero; a table that was never published as null."""
    tables = server(ingest)
    (row,) = tables.rejects().to_pylist()
    assert (row["topic"], row["partition"], row["rejected"]) == (TOPIC, None, None)
    ingest.consume(at(10, 20))
    count = RejectCount(TOPIC, 1, 3, 2, 19, "malformed", "why", 1_000_000)
    ingest.publish(rejects=(count,), letters=7)
    found = tables.rejects()
    assert found.schema.equals(REJECTS_SCHEMA)
    none, some = found.to_pylist()
    assert (none["partition"], none["rejected"], none["last_error"]) == (0, 0, None)
    assert (some["rejected"], some["tombstones"], some["last_offset"]) == (3, 2, 19)
    assert (some["last_error"], some["last_message"], some["on_error"]) == (
        "malformed",
        "why",
        "stop",
    )
    assert some["last_rejected"].timestamp() == 1
    assert (some["dead_letters"], some["dead_letter_table"]) == (7, f"{NAME}_dead_letters")


def test_the_overview_lists_hybrid_and_plain_tables(ingest: Ingest, lake: MemoryLake) -> None:
    lake.commit(PLAIN)
    tables = server(ingest)
    assert [r["state"] for r in tables.overview().to_pylist()] == ["not_ready", None]
    ingest.consume(at(10, 20))
    ingest.publish()
    tables.pin(PLAIN)
    found = tables.overview()
    assert found.schema.equals(TABLES_SCHEMA)
    hybrid, plain = found.to_pylist()
    assert (hybrid["catalog"], hybrid["schema"], hybrid["name"]) == (
        "lake",
        "market_data",
        "trades",
    )
    assert (hybrid["kind"], hybrid["topics"], hybrid["state"]) == ("hybrid", [TOPIC], "running")
    assert (hybrid["segments"], hybrid["live_rows"]) == (1, 30)
    assert (plain["kind"], plain["snapshot_id"]) == ("plain", lake.heads[PLAIN].snapshot_id)


# --- any history ------------------------------------------------------------------------------


class History:
    """Any history of one table: each step is something that an ingest does, in any order."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.rng = rng
        self.log = Log.random(rng, partitions=rng.randint(1, 3), length=50)
        self.ingest = Ingest(folder, self.log, MemoryLake(), grace_s=rng.choice([0, 3]))
        self.ingest.publish()
        self.steps = (self.read, self.read, self.publish, self.merge, self.flush, self.restart)

    def between(self, first: Offsets, next_: Offsets) -> Offsets:
        """Positions somewhere between two others."""
        return Offsets({tp: self.rng.randint(first.at(tp), next_.at(tp)) for tp in self.log.ends})

    def read(self) -> None:
        """A poll of a few records per partition."""
        position = self.ingest.position
        near = {tp: min(end, position.at(tp) + 8) for tp, end in self.log.ends.items()}
        self.ingest.consume(self.between(position, Offsets(near)))

    def publish(self) -> None:
        """Rule 12: not below the old end."""
        old = self.ingest.writer.previous()
        if old is None or self.ingest.position.covers(old.high):
            self.ingest.publish()

    def merge(self) -> None:
        """Any neighbours."""
        if self.ingest.live:
            first = self.rng.randrange(len(self.ingest.live))
            self.ingest.merge(first, self.rng.randint(1, 4))

    def flush(self) -> None:
        """Up to any position that was read."""
        self.ingest.flush(self.between(self.ingest.committed, self.ingest.position))

    def restart(self) -> None:
        """A new process: the tail is read again from the committed positions."""
        self.ingest.writer = LiveWriter(self.ingest.folder, NAME, self.ingest.grace_s)
        self.ingest.live, self.ingest.position = [], self.ingest.committed

    def step(self) -> None:
        """One of the steps, mostly published, sometimes trimmed."""
        self.rng.choice(self.steps)()
        if self.rng.random() < 0.7:
            self.publish()
        if self.rng.random() < 0.3:
            self.ingest.trim()


@given(seed=st.integers(0, 10**9))
@examples(25)
def test_any_pin_is_answered_exactly_or_with_a_typed_error(seed: int, tmp_path: Path) -> None:
    """The invariant: consume, merge, flush, trim and restart in any order; two servers."""
    rng = random.Random(seed)
    history = History(rng, tmp_path / f"{seed}-{time.perf_counter_ns()}")
    servers = [server(history.ingest), server(history.ingest)]
    pins: list[Pin] = []
    for _ in range(40):
        history.step()
        pins.append(through_ticket(rng.choice(servers).pin(NAME)))
        newest = servers[0].open(pins[-1])
        assert answer(newest) == history.log.between(Offsets(), pins[-1].high)
        for pin in rng.sample(pins, min(2, len(pins))):
            try:
                version = rng.choice(servers).open(pin)
            except (VersionGone, NotReady):
                continue
            assert version.pin.high == pin.high
            assert answer(version) == history.log.between(Offsets(), pin.high)


@dataclass
class Crowd:
    """One busy writer, some readers; what they found."""

    ingest: Ingest
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    exact: int = 0
    again: int = 0

    def write(self) -> None:
        """Publish, merge, flush and trim as fast as it goes, to the log's end."""
        ingest, rng = self.ingest, random.Random(1)
        try:
            while not ingest.position.same_as(ingest.log.ends):
                ahead = {
                    tp: min(end, ingest.position.at(tp) + rng.randint(0, 20))
                    for tp, end in ingest.log.ends.items()
                }
                ingest.consume(Offsets(ahead))
                ingest.publish()
                while due := merge_due(ingest.live):
                    ingest.merge(ingest.live.index(due[0]), len(due))
                if rng.random() < 0.1:
                    ingest.flush(ingest.position)
                ingest.publish()
                ingest.trim()
        except BaseException as error:
            self.failures.append(repr(error))
            raise
        finally:
            self.stop.set()

    def read(self, number: int) -> None:
        """Pins, opens, and opens an older pin again; a session's positions never go back."""
        rng, tables = random.Random(number), server(self.ingest)
        kept: list[Pin] = [tables.pin(NAME)]
        while not self.stop.is_set():
            pin = tables.pin(NAME, at_least=kept[-1].high)
            kept = [*kept[-20:], pin]
            self.exact += self.opened(tables, pin)
            self.again += self.opened(tables, rng.choice(kept))

    def opened(self, tables: Tables, pin: Pin) -> bool:
        """Whether the pin was answered; what is wrong with the answer is kept."""
        try:
            version = tables.open(pin)
        except VersionGone:
            return False
        if not is_prefix([*version.entries.to_batches(), *version.live], pin.high):
            self.failures.append(f"not the prefix {pin.high}")
            self.stop.set()
        return True


def is_prefix(batches: list[pa.RecordBatch], high: Offsets) -> bool:
    """Whether the rows of a full log are exactly those below ``high``."""
    rows = pa.Table.from_batches(batches, SCHEMA)
    expected = {(p, o) for (_, p), end in high.items() for o in range(end)}
    found = list(zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True))
    return len(found) == len(expected) and set(found) == expected


def test_readers_beside_a_busy_writer_get_exact_prefixes(tmp_path: Path) -> None:
    """The invariant under load, with no grace at all; tickets are read again."""
    ingest = Ingest(tmp_path, Log.full(2, 3000), MemoryLake())
    ingest.publish()
    crowd = Crowd(ingest)
    threads = [threading.Thread(target=crowd.write)]
    threads += [threading.Thread(target=crowd.read, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not crowd.failures
    assert crowd.exact > 20
    assert crowd.again > 5


# --- the real lake ----------------------------------------------------------------------------


def _on(made: Manifest, head: Head) -> Manifest:
    """The manifest on another head."""
    place = {"snapshot_id": head.snapshot_id, "metadata_location": head.metadata_location}
    return replace(made, **place)  # type: ignore[arg-type]  # fields by name, for brevity


def _delete_a_row(properties: dict[str, str], path: str) -> None:
    """What an erasure by another tool does."""
    table = load_catalog("lake", **properties).load_table(str(NAME))
    deletes.commit(table, [deletes.by_position(table, [(path, 0)])])


def test_versions_over_a_real_iceberg_table(tmp_path: Path) -> None:
    """The same seam over SQLite and local files: pin, flush, open again, expire nothing."""
    (tmp_path / "warehouse").mkdir()
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }
    lake = Lake.open("lake", properties, timeout_s=10)
    runs: Runs = lake
    try:
        head = lake.ensure_table(SPEC, SCHEMA)
        head = lake.claim(NAME, (IDENTITY,), "w", 7, Offsets())
        assert head.marker is not None
        log = Log.full(2, 60)
        writer = LiveWriter(tmp_path / "live", NAME, 0)
        live = [
            writer.write(*log.chunk(at(0, 0), at(20, 20))),
            writer.write(*log.chunk(at(20, 20), at(60, 60))),
        ]
        uuid = head.table_uuid
        made = replace(manifest_of(live, Offsets(), at(60, 60)), table_uuid=uuid)
        writer.publish(_on(made, head))
        tables = Tables(runs, LiveReader(tmp_path / "live"), [SPEC], refresh_ms=0)
        pin = tables.pin(NAME)
        version = tables.open(pin)
        assert (version.entries.num_rows, version.live_rows) == (0, 120)

        marker: Marker = head.marker
        staged = lake.write_files(NAME, writer.read(live, Offsets(), at(20, 20)), SPEC)
        head = lake.commit(NAME, staged, expected=marker, new=marker.moved_to(at(20, 20)))
        newer = replace(made, committed=at(20, 20), segments=(live[1],))
        writer.publish(_on(newer, head))
        writer.trim((), 0)
        writer.trim((), 1)
        replica = Tables(runs, LiveReader(tmp_path / "live"), [SPEC], refresh_ms=0)
        later = replica.open(through_ticket(pin))
        assert sum(later.entries["record_count"].to_pylist()) == 40
        assert sorted(keys_of(later.live)) == log.between(at(20, 20), at(60, 60))
        assert replica.names() == (NAME,)
        (files,) = replica.metadata_table(replica.pin(NAME), "files").to_pylist()
        assert files["path"].startswith("data/")
        assert replica.metadata_table(replica.pin(NAME), "snapshots").num_rows >= 2

        as_plain = Tables(runs, LiveReader(tmp_path / "nowhere"), [], refresh_ms=0)
        plain = as_plain.open(as_plain.pin(NAME))
        assert plain.pin.kind == "plain"
        assert plain.schema.names == SCHEMA.names
        assert sum(plain.entries["record_count"].to_pylist()) == 40
        with pytest.raises(VersionGone):
            as_plain.open(replace(plain.pin, snapshot_id=1))

        _delete_a_row(properties, later.entries["path"][0].as_py())
        writer.publish(_on(newer, lake.head(NAME)))
        with pytest.raises(VersionGone):  # S holds the row, the newest S' does not
            replica.open(through_ticket(pin))
        assert replica.open(through_ticket(replica.pin(NAME))).live_rows == 80
    finally:
        lake.close()
