"""Rules 2 to 6 and 8 of docs/architecture.md on a real catalog with faults in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    ServiceUnavailableError,
)
from sqlalchemy.exc import OperationalError
from support_lake import (
    IDENTITY,
    SCHEMA,
    STARTS,
    TOPIC,
    Place,
    Step,
    Writer,
    after,
    all_files_on_disk,
    always,
    assert_exact,
    before,
    break_commits,
    expire_all_but_head,
    foreign_rows,
    meanwhile,
    once,
    rows_of_log,
    sqlite_properties,
)

import catalog.lake
from catalog.errors import (
    CommitUnknown,
    Fenced,
    LakeUnavailable,
    LogLost,
    MarkerLost,
    TableNotFound,
    TopicRecreated,
)
from catalog.heads import marker_property
from catalog.offsets import MARKER_PROPERTY, Offsets, TopicIdentity, marker_from_summary
from catalog.spec import TableName, TableSpec

LOST_ANSWERS = {
    "500": CommitStateUnknownException("500"),
    "503": ServiceUnavailableError("503"),
    "504": CommitStateUnknownException("504"),
    "409": CommitFailedException("409"),
    "reset": requests.ConnectionError("reset by peer"),
    "timeout": requests.ReadTimeout("timed out"),
    "locked": OperationalError("UPDATE", {}, Exception("database is locked")),
    "bug": ValueError("the client stumbles over the answer"),
}


@pytest.fixture(params=["sqlite", pytest.param("rest", marks=pytest.mark.broker)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty, declared table in each kind of catalog."""
    if request.param == "sqlite":
        properties, namespace = sqlite_properties(tmp_path), "market"
    else:
        rest = request.getfixturevalue("iceberg_rest")
        properties, namespace = rest.properties, rest.unique_namespace()
    spec = TableSpec(TableName(namespace, "ticks"), (TOPIC,), sort=("symbol", "at"))
    place = Place(properties, spec)
    place.lake().ensure_table(spec, SCHEMA)
    return place


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """An empty, declared table in a SQLite catalog."""
    spec = TableSpec(TableName("market", "ticks"), (TOPIC,))
    place = Place(sqlite_properties(tmp_path), spec)
    place.lake().ensure_table(spec, SCHEMA)
    return place


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits give up quickly."""
    monkeypatch.setattr(catalog.lake, "COMMIT_TIMEOUT_S", 0.2)


def test_one_snapshot_holds_rows_positions_and_their_copy(place: Place) -> None:
    """Rule 2: rows, marker and property copy with the snapshot's own id are one commit."""
    writer = Writer.claiming(place, "a")
    location = writer.head.metadata_location
    head = writer.append(50)
    table = place.foreign_table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["added-records"] == "100"
    marker = marker_from_summary(snapshot.summary.additional_properties)
    assert marker == writer.marker
    assert table.properties[MARKER_PROPERTY] == marker_property(snapshot.snapshot_id, writer.marker)
    assert table.metadata.metadata_log[-1].metadata_file == location, "one metadata file per commit"
    assert head.snapshot_id == snapshot.snapshot_id
    assert head.metadata_location == table.metadata_location
    assert_exact(place)


def test_empty_progress_is_a_real_snapshot(place: Place) -> None:
    """Rule 3: positions move without rows (aborted and filtered records)."""
    writer = Writer.claiming(place, "a")
    old = writer.head.snapshot_id
    head = writer.commit(None, writer.target(10))
    assert head.snapshot_id != old
    assert head.marker is not None
    assert head.marker.positions == Offsets({(TOPIC, 0): 110, (TOPIC, 1): 10})
    assert place.lake().head(place.name) == head
    assert rows_of_log(place).num_rows == 0


@pytest.mark.parametrize("error", LOST_ANSWERS.values(), ids=LOST_ANSWERS)
@pytest.mark.parametrize("when", [before, after], ids=["before", "after"])
def test_whatever_happens_to_the_answer_the_rows_land_once(
    place: Place, when: Callable[[Exception], Step], error: Exception
) -> None:
    """Rule 6: the recorded positions decide; no file is ever deleted."""
    writer = Writer.claiming(place, "a")
    writer.append(5)
    calls = break_commits(writer.lake, once(when(error)))
    writer.append(7)
    assert len(calls) == (1 if when is after else 2)
    assert assert_exact(place) == writer.marker.positions
    writer.append(3)
    assert assert_exact(place) == Offsets({(TOPIC, 0): 115, (TOPIC, 1): 15})


def test_several_faults_in_a_row_land_once(place: Place) -> None:
    """Rule 6: each attempt asks the table again."""
    writer = Writer.claiming(place, "a")
    faults = [
        before(LOST_ANSWERS["reset"]),
        before(LOST_ANSWERS["409"]),
        after(LOST_ANSWERS["500"]),
    ]
    break_commits(writer.lake, once(*faults))
    writer.append(7)
    assert assert_exact(place) == writer.marker.positions


@pytest.mark.usefixtures("impatient")
def test_an_outcome_that_cannot_be_learnt_is_said_and_found_later(local: Place) -> None:
    """Rule 6: CommitUnknown; the same commit again adds nothing that is there already."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(9), writer.target(9)

    def lose_the_catalog(send: Callable[[], object]) -> object:
        send()
        writer.lake._catalog.load_table = unreachable  # type: ignore[assignment, method-assign]
        raise LOST_ANSWERS["reset"]

    def unreachable(_: object) -> object:
        raise LOST_ANSWERS["reset"]

    break_commits(writer.lake, once(lose_the_catalog))
    with pytest.raises(CommitUnknown):
        writer.commit(staged, new)
    writer.lake = local.lake()
    head = writer.commit(staged, new)
    assert head.marker is not None
    assert head.marker.positions == new.positions
    assert assert_exact(local) == new.positions


@pytest.mark.usefixtures("impatient")
def test_a_catalog_that_never_commits_leaves_the_table_and_the_files_alone(local: Place) -> None:
    """Rule 6: unknown stays unknown while a late request might still land."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(9), writer.target(9)
    files = all_files_on_disk(local)
    break_commits(writer.lake, always(before(LOST_ANSWERS["timeout"])))
    with pytest.raises(CommitUnknown):
        writer.commit(staged, new)
    assert files <= all_files_on_disk(local)
    assert assert_exact(local) == STARTS


@pytest.mark.usefixtures("impatient")
def test_nothing_is_deleted_when_every_attempt_conflicts(local: Place) -> None:
    """Rule 6: pyiceberg's own loop deletes manifests here; a 409 may lie."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(9), writer.target(9)
    files = all_files_on_disk(local)
    break_commits(writer.lake, always(before(LOST_ANSWERS["409"])))
    with pytest.raises(Fenced, match="start again"):
        writer.commit(staged, new)
    assert files <= all_files_on_disk(local)


def test_a_conflict_that_landed_keeps_its_manifests(local: Place) -> None:
    """Rule 6: a 409 after landing (a proxy that sent the request twice)."""
    writer = Writer.claiming(local, "a")
    break_commits(writer.lake, once(after(LOST_ANSWERS["409"])))
    writer.append(4)
    table = local.foreign_table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    for manifest in snapshot.manifests(table.io):
        assert table.io.new_input(manifest.manifest_path).exists()
    assert assert_exact(local) == writer.marker.positions


def test_a_refusal_is_no_unknown_outcome(local: Place) -> None:
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(9), writer.target(9)
    calls = break_commits(writer.lake, always(before(ForbiddenError("no"))))
    with pytest.raises(LakeUnavailable, match="rights"):
        writer.commit(staged, new)
    assert len(calls) == 1
    assert assert_exact(local) == STARTS


class Late:
    """A request that times out and reaches the catalog later."""

    def __init__(self) -> None:
        self.send: Callable[[], object] | None = None

    def hold(self, send: Callable[[], object]) -> object:
        """The first attempt: stuck in the network."""
        self.send = send
        raise LOST_ANSWERS["timeout"]

    def arrive(self) -> None:
        """The request reaches the catalog now."""
        assert self.send is not None
        self.send()


def test_a_late_request_after_its_successor_is_refused(place: Place) -> None:
    """Rule 5: the requirement names the base; the rows are there once."""
    late = Late()
    writer = Writer.claiming(place, "a")
    break_commits(writer.lake, once(late.hold))
    writer.append(6)
    with pytest.raises(CommitFailedException):
        late.arrive()
    assert assert_exact(place) == writer.marker.positions


def test_a_late_request_before_its_successor_is_found(place: Place) -> None:
    """Rules 5 and 6: the writer is fenced by its own late request and recognises it."""
    late = Late()
    writer = Writer.claiming(place, "a")
    calls = break_commits(writer.lake, once(late.hold, meanwhile(late.arrive)))
    writer.append(6)
    assert len(calls) == 2
    assert assert_exact(place) == writer.marker.positions


def test_what_landed_below_a_new_owner_is_known_to_have_landed(local: Place) -> None:
    """Rule 6: the snapshot id in the history says it, whatever stands above."""
    writer = Writer.claiming(local, "old")

    def lose_answer_and_table(send: Callable[[], object]) -> object:
        send()
        Writer.claiming(local, "new")
        raise LOST_ANSWERS["504"]

    break_commits(writer.lake, once(lose_answer_and_table))
    head = writer.append(6)
    assert head.marker is not None
    assert (head.marker.epoch, head.marker.writer) == (2, "new")
    assert assert_exact(local) == head.marker.positions == Offsets({(TOPIC, 0): 106, (TOPIC, 1): 6})


def test_a_late_request_below_a_new_owner_is_known_to_have_landed(local: Place) -> None:
    """Rule 6: all attempts share one snapshot id."""
    late = Late()
    writer = Writer.claiming(local, "old")

    def arrive_and_lose_the_table() -> None:
        late.arrive()
        Writer.claiming(local, "new")

    break_commits(writer.lake, once(late.hold, meanwhile(arrive_and_lose_the_table)))
    head = writer.append(6)
    assert head.marker is not None
    assert head.marker.writer == "new"
    assert assert_exact(local) == head.marker.positions == Offsets({(TOPIC, 0): 106, (TOPIC, 1): 6})


@pytest.mark.parametrize("when", [before, after], ids=["before", "after"])
def test_empty_progress_that_moves_nothing_lands_once(
    local: Place, when: Callable[[Exception], Step]
) -> None:
    """Rule 6: equal positions before and after say nothing; the snapshot id does."""
    writer = Writer.claiming(local, "a")
    break_commits(writer.lake, once(when(LOST_ANSWERS["500"])))
    writer.commit(None, writer.marker)
    assert len(local.foreign_table().metadata.snapshots) == 2


def test_a_late_request_does_not_overtake_another_tools_commit(place: Place) -> None:
    """Rule 5: whatever came between, the late one no longer fits."""
    late = Late()
    writer = Writer.claiming(place, "a")
    staged, new = writer.stage(6), writer.target(6)
    foreign = meanwhile(lambda: place.foreign_table().append(foreign_rows(3)))
    break_commits(writer.lake, once(late.hold, foreign))
    writer.commit(staged, new)
    with pytest.raises(CommitFailedException):
        late.arrive()
    assert assert_exact(place) == new.positions


def test_a_zombie_is_refused_even_at_equal_positions(place: Place) -> None:
    """Rule 5: a new owner commits its epoch first; the older epoch is out."""
    zombie = Writer.claiming(place, "old")
    zombie.append(5)
    staged, new = zombie.stage(4), zombie.target(4)
    owner = Writer.claiming(place, "new")
    assert owner.marker.positions == zombie.marker.positions
    with pytest.raises(Fenced, match="another writer"):
        zombie.commit(staged, new)
    with pytest.raises(Fenced, match="another writer"):
        zombie.commit(None, zombie.marker)
    owner.append(2)
    assert assert_exact(place) == owner.marker.positions


def test_the_fence_stands_at_the_first_attempt_on_the_newest_base(local: Place) -> None:
    """Rule 5: without a conflict nothing but our comparison stops the rebase."""
    one = Writer.claiming(local, "a")
    other = Writer(local.lake(), local, "a", one.head)
    one.append(5)
    staged, new = other.stage(5), other.target(8)
    with pytest.raises(Fenced, match="other positions"):
        other.commit(staged, new)
    assert assert_exact(local) == one.marker.positions


def test_the_fence_stands_at_every_attempt(place: Place) -> None:
    """Rule 5: the owner changes between the load and the request, so the retry is refused."""
    zombie = Writer.claiming(place, "old")
    staged, new = zombie.stage(4), zombie.target(4)
    calls = break_commits(
        zombie.lake, once(meanwhile(lambda: Writer.claiming(place, "new").append(2)))
    )
    with pytest.raises(Fenced):
        zombie.commit(staged, new)
    assert len(calls) == 1
    assert assert_exact(place) == Offsets({(TOPIC, 0): 102, (TOPIC, 1): 2})


def test_another_tools_append_between_does_not_stop_us(place: Place) -> None:
    """Rules 2 and 5: commits without a marker leave the recorded positions where they are."""
    writer = Writer.claiming(place, "a")
    place.foreign_table().append(foreign_rows(3))
    foreign = meanwhile(lambda: place.foreign_table().append(foreign_rows(4)))
    calls = break_commits(writer.lake, once(foreign))
    writer.append(5)
    assert len(calls) == 2
    assert assert_exact(place) == writer.marker.positions
    assert place.foreign_table().scan().to_arrow().num_rows == 10 + 7


def test_a_compaction_without_a_marker_is_walked_past(place: Place) -> None:
    """Rule 2: the head has no marker, its ancestors do."""
    writer = Writer.claiming(place, "a")
    writer.append(5)
    table = place.foreign_table()
    table.overwrite(table.scan().to_arrow())
    assert place.lake().head(place.name).marker == writer.marker
    writer.append(2)
    assert assert_exact(place) == writer.marker.positions


def test_the_copy_serves_when_its_snapshot_alone_is_the_missing_parent(place: Place) -> None:
    """Rule 2: expiry took the marker's snapshot, directly below the oldest that is left."""
    writer = Writer.claiming(place, "a")
    writer.append(5)
    place.foreign_table().append(foreign_rows(3))
    expire_all_but_head(place)
    assert place.lake().head(place.name).marker == writer.marker
    writer.append(2)
    assert assert_exact(place) == writer.marker.positions


def test_a_copy_that_cannot_be_proved_fails_closed(place: Place) -> None:
    """Rule 2: a snapshot between the marker's and the oldest one left may have been anything."""
    writer = Writer.claiming(place, "a")
    writer.append(5)
    for _ in range(2):
        place.foreign_table().append(foreign_rows(3))
    expire_all_but_head(place)
    assert_nobody_gets_in(writer)


def test_an_expiry_that_wipes_out_parents_fails_closed(local: Place) -> None:
    """Rule 2: pyiceberg's own expiry leaves nothing to prove the copy by."""
    writer = Writer.claiming(local, "a")
    writer.append(5)
    table = local.foreign_table()
    table.append(foreign_rows(3))
    table.maintenance.expire_snapshots().by_ids(
        [s.snapshot_id for s in table.metadata.snapshots[:-1]]
    ).commit()
    assert local.foreign_table().metadata.snapshots[0].parent_snapshot_id is None
    assert_nobody_gets_in(writer)


def assert_nobody_gets_in(writer: Writer) -> None:
    place = writer.place
    with pytest.raises(MarkerLost):
        place.lake().head(place.name)
    with pytest.raises(MarkerLost):
        Writer.claiming(place, "b")
    with pytest.raises(MarkerLost):
        writer.commit(None, writer.target(1))


def test_a_truncated_history_without_any_marker_is_claimed_only_by_its_owners_word(
    local: Place,
) -> None:
    """Rule 2: fail closed when even the copy was removed; a foreign table may be adopted."""
    Writer.claiming(local, "a").append(5)
    for _ in range(2):
        local.foreign_table().append(foreign_rows(3))
    expire_all_but_head(local)
    with local.foreign_table().transaction() as transaction:
        transaction.remove_properties(MARKER_PROPERTY)
    with pytest.raises(MarkerLost, match=r"k2\.adopt"):
        Writer.claiming(local, "b")
    with local.foreign_table().transaction() as transaction:
        transaction.set_properties({"k2.adopt": "true"})
    assert Writer.claiming(local, "b").marker.positions == STARTS


def test_positions_never_go_back(local: Place) -> None:
    """Rule 4: refused whatever the other partitions do."""
    writer = Writer.claiming(local, "a")
    writer.append(5)
    positions = Offsets({(TOPIC, 0): 104, (TOPIC, 1): 50})
    with pytest.raises(Fenced, match=r"ticks\[0\] would go back from 105 to 104"):
        writer.commit(None, writer.marker.moved_to(positions))
    assert assert_exact(local) == writer.marker.positions


def test_rows_must_move_the_positions(local: Place) -> None:
    """Rule 4: rows below the recorded positions are in the table already."""
    writer = Writer.claiming(local, "a")
    staged = writer.stage(5)
    with pytest.raises(Fenced, match="in already"):
        writer.commit(staged, writer.marker)
    assert assert_exact(local) == STARTS


def test_a_commit_names_the_topics_that_the_table_knows(local: Place) -> None:
    """Rule 9: another identity under an old name is refused at the commit, too."""
    writer = Writer.claiming(local, "a")
    new = replace(writer.target(1), topics=(TopicIdentity(TOPIC, "cluster", "other-id"),))
    with pytest.raises(TopicRecreated):
        writer.commit(None, new)


def bump_gc(place: Place) -> None:
    """What orphan removal does (rule 8 b): an empty snapshot with the next gc number."""
    table = place.foreign_table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    summary = {k: v for k, v in snapshot.summary.additional_properties.items() if "k2." in k}
    summary["k2.gc"] = str(int(summary["k2.gc"]) + 1)
    table.append(SCHEMA.empty_table(), snapshot_properties=summary)


@pytest.mark.parametrize("at_retry", [False, True], ids=["first attempt", "retry"])
def test_files_are_given_up_when_orphan_removal_ran(local: Place, *, at_retry: bool) -> None:
    """Rule 8: the gc number is compared at every attempt, the first included."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(5), writer.target(5)
    if at_retry:
        break_commits(writer.lake, once(meanwhile(lambda: bump_gc(local))))
    else:
        bump_gc(local)
    with pytest.raises(Fenced, match="gc number 1"):
        writer.commit(staged, new)
    writer.append(5)
    assert assert_exact(local) == new.positions
    assert writer.marker.gc == 1


def test_commits_carry_the_gc_number_on(local: Place) -> None:
    """Rule 8: an empty commit after a removal must not turn the number back."""
    writer = Writer.claiming(local, "a")
    bump_gc(local)
    assert writer.commit(None, writer.target(1)).marker == place_marker(local)
    assert writer.marker.gc == 1
    assert Writer.claiming(local, "b").marker.gc == 1


def place_marker(place: Place) -> object:
    return place.lake().head(place.name).marker


def test_a_claim_takes_the_next_epoch_and_keeps_the_positions(place: Place) -> None:
    """Rule 5: only the first claim records where the log begins."""
    first = Writer.claiming(place, "a")
    assert (first.marker.epoch, first.marker.writer) == (1, "a")
    assert first.marker.positions == STARTS
    first.append(5)
    later = Offsets({(TOPIC, 0): 104, (TOPIC, 1): 2, (TOPIC, 2): 50})
    head = place.lake().claim(place.name, IDENTITY, "b", 2, later)
    assert head.marker is not None
    assert (head.marker.epoch, head.marker.writer, head.marker.schema_id) == (2, "b", 2)
    assert head.marker.positions == first.marker.positions
    assert assert_exact(place) == first.marker.positions


def test_a_claim_adds_topics_with_their_starts(local: Place) -> None:
    """Rule 1: a topic that is declared later begins where its log begins."""
    Writer.claiming(local, "a").append(5)
    both = (*IDENTITY, TopicIdentity("more", "cluster", "id-2"))
    starts = Offsets({(TOPIC, 0): 103, ("more", 0): 40})
    marker = local.lake().claim(local.name, both, "b", 1, starts).marker
    assert marker is not None
    assert marker.positions == Offsets({(TOPIC, 0): 105, (TOPIC, 1): 5, ("more", 0): 40})
    assert set(marker.topics) == set(both)


def test_a_topic_no_longer_declared_is_remembered(local: Place) -> None:
    """Rule 9: declaring it again must find the same topic."""
    Writer.claiming(local, "a")
    other = (TopicIdentity("more", "cluster", "id-2"),)
    marker = local.lake().claim(local.name, other, "b", 1, Offsets()).marker
    assert marker is not None
    assert set(marker.topics) == {*IDENTITY, *other}
    with pytest.raises(TopicRecreated, match=TOPIC):
        local.lake().claim(local.name, (TopicIdentity(TOPIC, "cluster", "x"),), "c", 1, Offsets())


@pytest.mark.parametrize(
    "identity",
    [TopicIdentity(TOPIC, "cluster", "new-id"), TopicIdentity(TOPIC, "other", "topic-id")],
    ids=["topic id", "cluster id"],
)
def test_a_recreated_topic_cannot_be_claimed(local: Place, identity: TopicIdentity) -> None:
    """Rule 9: its offsets mean other records."""
    writer = Writer.claiming(local, "a")
    with pytest.raises(TopicRecreated, match=TOPIC) as raised:
        local.lake().claim(local.name, (identity,), "a", 1, STARTS)
    assert isinstance(raised.value, LogLost)
    assert local.lake().head(local.name) == writer.head


@pytest.mark.parametrize("error", [LOST_ANSWERS["500"], LOST_ANSWERS["409"]], ids=["500", "409"])
@pytest.mark.parametrize("when", [before, after], ids=["before", "after"])
def test_a_claim_lands_once(
    local: Place, when: Callable[[Exception], Step], error: Exception
) -> None:
    """Rule 6 holds for claims: one epoch, not two."""
    lake = local.lake()
    break_commits(lake, once(when(error)))
    assert Writer.claiming(local, "a", lake).marker.epoch == 1
    table = local.foreign_table()
    assert len(table.metadata.snapshots) == 1


def test_two_claims_at_once_take_two_epochs(place: Place) -> None:
    """Rule 5: the later of the two owns the table."""
    loser = place.lake()
    break_commits(loser, once(meanwhile(lambda: Writer.claiming(place, "first"))))
    second = Writer.claiming(place, "second", loser)
    assert (second.marker.epoch, second.marker.writer) == (2, "second")
    assert place.lake().head(place.name).marker == second.marker


def test_racing_writers_of_one_epoch_commit_each_record_once(local: Place) -> None:
    """Rules 4 and 5: four threads push the same prefix; every record is in once."""
    Writer.claiming(local, "a")
    errors: list[BaseException] = []

    def push() -> None:
        try:
            lake = local.lake()
            for _ in range(4):
                mine = Writer(lake, local, "a", lake.head(local.name))
                with suppress(Fenced):
                    mine.append(3)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    positions = assert_exact(local)
    assert positions.at((TOPIC, 1)) >= 3


def test_a_table_created_again_under_its_name_is_another_table(local: Place) -> None:
    """Files and positions of the dropped table mean nothing in the new one."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(5), writer.target(5)
    local.foreign().drop_table(str(local.name))
    with pytest.raises(TableNotFound):
        writer.commit(staged, new)
    local.lake().ensure_table(local.spec, SCHEMA)
    with pytest.raises(Fenced, match="claim it first"):
        writer.commit(staged, new)
    Writer.claiming(local, "a")
    with pytest.raises(Fenced, match="replaced"):
        writer.commit(staged, new)
    assert assert_exact(local) == STARTS


def test_files_of_an_old_partition_spec_are_not_committed_under_a_new_one(local: Place) -> None:
    """Their partition values would be read as another field's."""
    writer = Writer.claiming(local, "a")
    staged, new = writer.stage(5), writer.target(5)
    with local.foreign_table().update_spec() as update:
        update.add_identity("symbol")
    with pytest.raises(Fenced, match="partition spec"):
        writer.commit(staged, new)
    writer.append(5)
    assert assert_exact(local) == new.positions


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support_lake import Place, Writer, sqlite_properties
from catalog.spec import TableName, TableSpec
spec = TableSpec(TableName("market", "ticks"), ("ticks",))
place = Place(sqlite_properties(Path(sys.argv[2])), spec)
writer = Writer.claiming(place, "killed")
writer.append(5)
"""


@pytest.mark.parametrize(
    ("point", "landed"),
    [("flush.files_written:1", 0), ("commit.before_send:2", 0), ("commit.landed:2", 5)],
)
def test_a_process_killed_in_a_commit_leaves_all_or_nothing(
    local: Place, tmp_path: Path, point: str, landed: int
) -> None:
    """Rules 2 and 6: whoever comes next goes on from what is recorded."""
    tests = Path(__file__).parent
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tests), str(tmp_path)],
        env={**os.environ, "K2_KILL_POINT": point, "PYTHONPATH": str(tests.parent)},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    heir = Writer.claiming(local, "heir")
    assert heir.marker.epoch == 2
    assert heir.marker.positions.at((TOPIC, 1)) == landed
    heir.append(3)
    assert assert_exact(local) == heir.marker.positions


def test_another_writer_of_the_same_epoch_is_refused(local: Place) -> None:
    """Rule 5: a table that was rolled back gives an epoch twice; the writer tells them apart."""
    owner = Writer.claiming(local, "mine")
    other = replace(owner.marker, writer="theirs")
    with pytest.raises(Fenced, match="another writer"):
        owner.lake.commit(local.spec.name, None, expected=other, new=other)
