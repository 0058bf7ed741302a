"""Rule 6 on real catalogs and a real store, with real faults on the wire between us and them.

SQLite, PostgreSQL, and a REST catalog over an S3 store; proxies (support_proxy) lose answers, make
them up, reset, repeat, delay and swallow. Whatever happened, a row is in the table once, the
positions say so, and every file that the table names is whole.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from conftest import RestCatalog
from support_lake import (
    SCHEMA,
    STARTS,
    TOPIC,
    Place,
    Writer,
    assert_exact,
    sqlite_properties,
)
from support_proxy import GIVEN_UP, Fault, HttpProxy, Request, Rule, TcpProxy, Times

import catalog.connect
import catalog.lake
import catalog.sqlwatch
from catalog.errors import CommitUnknown, Unavailable
from catalog.lake import Lake, Staged
from catalog.offsets import Offsets
from catalog.spec import TableName, TableSpec

pytestmark = pytest.mark.broker
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Rig:
    """One table, reached through proxies by those under test and directly by those who judge.

    Attributes:
        place: the table, directly.
        proxied: the same table, through the proxies.
        catalog: in front of the catalog.
        store: in front of the object store; None: files.
        is_commit: tells a commit from the catalog's other traffic.
    """

    place: Place
    proxied: Place
    catalog: TcpProxy | HttpProxy
    is_commit: Callable[[Request], bool]
    store: HttpProxy | None = None

    def writer(self) -> Writer:
        """A writer behind the proxies whose first five records are in."""
        writer = Writer.claiming(self.proxied, "a")
        writer.append(5)
        return writer

    def judge(self, writer: Writer) -> None:
        """Exactly the records up to the writer's positions, once each, in whole files."""
        assert assert_exact(self.place) == writer.marker.positions
        assert_whole(self.place)


def assert_whole(place: Place) -> None:
    """Every file that any snapshot names exists, with the size that the table says."""
    table = place.foreign_table()
    sizes: dict[str, int] = {}
    for snapshot in table.metadata.snapshots:
        assert table.io.new_input(snapshot.manifest_list).exists()
        for manifest in snapshot.manifests(table.io):
            sizes[manifest.manifest_path] = manifest.manifest_length
            for entry in manifest.fetch_manifest_entry(table.io):
                sizes[entry.data_file.file_path] = entry.data_file.file_size_in_bytes
    assert sizes == {path: len(table.io.new_input(path)) for path in sizes}


def assert_left(proxy: TcpProxy | HttpProxy, kind: str) -> None:
    """A hole was left by its client's own time limit; the proxy hears of it a moment later."""
    limit = time.monotonic() + PATIENCE_S
    while kind == "hole" and not proxy.hits[GIVEN_UP] and time.monotonic() < limit:
        time.sleep(0.02)
    assert bool(proxy.hits[GIVEN_UP]) == (kind == "hole")


@pytest.fixture
def rest(iceberg_rest: RestCatalog) -> Iterator[Rig]:
    """A REST catalog and an S3 store, each behind a proxy that knows HTTP."""
    front = HttpProxy(urlsplit(iceberg_rest.uri).port or 0)
    store = HttpProxy(urlsplit(iceberg_rest.s3.endpoint).port or 0)
    name = TableName(iceberg_rest.unique_namespace(), "ticks")
    place = _created(Place(iceberg_rest.properties, TableSpec(name, (TOPIC,))))
    through = {**iceberg_rest.properties, "uri": front.uri, "s3.endpoint": store.uri}
    proxied = replace(place, properties=through)
    try:
        yield Rig(place, proxied, front, _is_rest_commit, store)
    finally:
        front.close()
        store.close()


@pytest.fixture
def database(postgres: int, tmp_path: Path) -> Iterator[Rig]:
    """A SQL catalog in PostgreSQL behind a proxy that knows bytes."""
    base = f"user=k2 host=127.0.0.1 port={postgres}"
    name = f"lake_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{base} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    front = TcpProxy(postgres)
    warehouse = f"file://{tmp_path}/warehouse"
    uri = "postgresql+psycopg://k2@127.0.0.1:{}/" + name + "?sslmode=disable&gssencmode=disable"
    spec = TableSpec(TableName("market", "ticks"), (TOPIC,))
    place = _created(Place({"uri": uri.format(postgres), "warehouse": warehouse}, spec))
    proxied = replace(
        place, opened=[], properties={"uri": uri.format(front.port), "warehouse": warehouse}
    )
    try:
        yield Rig(place, proxied, front, _is_database_commit)
    finally:
        place.close()
        proxied.close()
        front.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    """A SQL catalog in SQLite, impatient of locks."""
    properties = sqlite_properties(tmp_path)
    properties["uri"] += "?timeout=0.1"
    return _created(Place(properties, TableSpec(TableName("market", "ticks"), (TOPIC,))))


def _created(place: Place) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog.connect, "_ANSWER_S", 20.0)  # the first request to a cold server
        limit = time.monotonic() + PATIENCE_S
        while True:
            try:
                place.lake().ensure_table(place.spec, SCHEMA)
                break
            except Unavailable:  # a busy machine; what the tests are about comes later
                if time.monotonic() > limit:
                    raise
                time.sleep(0.5)
    place.close()
    return place


def _is_rest_commit(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/tables/ticks")


def _is_rest_load(request: Request) -> bool:
    return request.method == "GET" and "/tables/ticks" in request.path


def _is_database_commit(request: Request) -> bool:
    return request.upward and b"COMMIT" in request.raw


def _is_question(request: Request) -> bool:
    return request.upward and b"iceberg_tables" in request.raw


@pytest.fixture
def hasty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a hole is waited out, time limits that a test can wait for (really 10 to 20 s)."""
    if "hole" in request.node.name:
        monkeypatch.setattr(catalog.connect, "_ANSWER_S", 4.0)
        monkeypatch.setattr(catalog.sqlwatch, "USE_S", 2.0)
        monkeypatch.setattr(catalog.connect, "_S3_REQUEST_S", 2.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits give up quickly."""
    monkeypatch.setattr(catalog.lake, "COMMIT_TIMEOUT_S", 0.3)


# --- one fault around a commit --------------------------------------------------------------------

REST_FAULTS = [
    *(Fault("answer", status) for status in (409, 500, 502, 503, 504)),
    *(Fault("refuse", status) for status in (409, 500, 502, 503, 504)),
    *(Fault(kind) for kind in ("reset", "lose", "hole", "twice", "cut")),
    Fault("delay", seconds=0.2),
]
DATABASE_FAULTS = [
    *(Fault(kind) for kind in ("reset", "lose", "hole")),
    Fault("delay", seconds=0.2),
]


def name_of(fault: Fault) -> str:
    """A test's id."""
    return fault.name.replace(" ", "-")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", REST_FAULTS, ids=name_of)
def test_a_rest_commit_lands_once(rest: Rig, fault: Fault) -> None:
    """Rule 6: the positions decide, also what a gateway's invented answer means."""
    _lands_once(rest, fault)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", DATABASE_FAULTS, ids=name_of)
def test_a_database_commit_lands_once(database: Rig, fault: Fault) -> None:
    """Rule 6: whether COMMIT was heard is not known; the positions know."""
    _lands_once(database, fault)


def _lands_once(rig: Rig, fault: Fault) -> None:
    writer = rig.writer()
    rig.catalog.rule = Times(fault, rig.is_commit)
    writer.append(7)
    assert rig.catalog.hits[fault.name] == 1
    assert_left(rig.catalog, fault.kind)
    rig.judge(writer)
    writer.append(3)
    rig.judge(writer)
    assert writer.marker.positions == Offsets({(TOPIC, 0): 115, (TOPIC, 1): 15})


@pytest.mark.parametrize("order", ["before its successor", "after it"])
def test_a_request_that_arrives_late_lands_once(rest: Rig, order: str) -> None:
    """Rules 5 and 6: the request is held on the wire while the next attempt is made."""
    writer = rest.writer()
    front = rest.catalog
    assert isinstance(front, HttpProxy)
    late = Times(Fault("late"), rest.is_commit)
    statuses: list[int] = []

    def rule(request: Request) -> Fault | None:
        if order == "before its successor" and front.hits["late"] and rest.is_commit(request):
            statuses.extend(front.release())
        return late(request)

    front.rule = rule
    writer.append(6)
    statuses.extend(front.release())
    assert statuses == [200 if order == "before its successor" else 409]
    rest.judge(writer)


# --- an outcome that stays unknown ----------------------------------------------------------------


@pytest.mark.usefixtures("hasty", "impatient")
@pytest.mark.parametrize("kind", ["reset", "lose", "hole"])
@pytest.mark.parametrize("which", ["rest", "database"])
def test_an_unknown_outcome_is_said_and_decided_later(
    request: pytest.FixtureRequest, which: str, kind: str
) -> None:
    """Rule 6: the catalog is away from the commit on; the same commit adds what is missing."""
    rig: Rig = request.getfixturevalue(which)
    writer = rig.writer()
    staged, new = writer.stage(9), writer.target(9)
    rig.catalog.rule = _from_commit_on(rig, Fault(kind))  # type: ignore[arg-type] # by the ids
    with pytest.raises(CommitUnknown):
        writer.commit(staged, new)
    rig.catalog.rule = lambda _: None
    writer.commit(staged, new)
    rig.judge(writer)


def _from_commit_on(rig: Rig, fault: Fault) -> Rule:
    """``fault`` to the first commit, and nothing gets through after it."""
    began = threading.Event()

    def rule(request: Request) -> Fault | None:
        if began.is_set():
            return Fault("reset")
        if not rig.is_commit(request):
            return None
        began.set()
        return fault

    return rule


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [Fault("refuse", 503), Fault("reset"), Fault("cut")], ids=name_of)
def test_the_outcome_is_asked_for_until_somebody_answers(rest: Rig, fault: Fault) -> None:
    """Rule 6: the answer is lost, and so are the next three looks at the table."""
    writer = rest.writer()
    lost = Times(Fault("lose"), rest.is_commit)
    blind = Times(fault, lambda r: bool(rest.catalog.hits["lose"]) and _is_rest_load(r), 3)
    rest.catalog.rule = lambda r: lost(r) or blind(r)
    writer.append(7)
    assert rest.catalog.hits[fault.name] == 3
    rest.judge(writer)


# --- looks at the table, and time limits ----------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", ["reset", "lose", "hole"])
@pytest.mark.parametrize("which", ["rest", "database"])
def test_a_look_at_the_table_ends_in_time_and_is_no_unknown_outcome(
    request: pytest.FixtureRequest, which: str, kind: str
) -> None:
    """Nothing was sent, so nothing is unknown; a silent catalog is left by our own time limit."""
    rig: Rig = request.getfixturevalue(which)
    writer = rig.writer()
    staged, new = writer.stage(4), writer.target(4)
    looks = _is_rest_load if which == "rest" else _is_question
    rig.catalog.rule = Times(Fault(kind), looks)  # type: ignore[arg-type] # by the ids
    with pytest.raises(Unavailable):
        writer.commit(staged, new)
    assert_left(rig.catalog, kind)
    writer.commit(staged, new)
    rig.judge(writer)


# --- uploads --------------------------------------------------------------------------------------

UPLOAD_FAULTS = [
    *(Fault(kind) for kind in ("reset", "lose", "cut_upload", "twice", "cut", "hole")),
    *(Fault("refuse", status) for status in (500, 503)),
    Fault("answer", 500),
]
UPLOADS = [(".parquet", fault) for fault in UPLOAD_FAULTS]
UPLOADS += [(".avro", Fault(kind)) for kind in ("lose", "cut_upload", "hole")]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("suffix", "fault"),
    UPLOADS,
    ids=lambda part: part if isinstance(part, str) else name_of(part),
)
def test_an_upload_that_fails_midway_is_never_referenced(
    rest: Rig, suffix: str, fault: Fault
) -> None:
    """Nothing incomplete is named by the table: a data file, a manifest, a manifest list."""
    assert rest.store is not None
    writer = rest.writer()
    rest.store.rule = Times(fault, lambda r: r.method in ("PUT", "POST") and suffix in r.path, 40)
    target = writer.target(7)
    staged: list[Staged] = []
    failed = 0
    while not writer.marker.same_place(target):
        try:
            staged = staged or [writer.stage(7)]
            writer.commit(staged[0], target)
        except Unavailable:
            failed += 1
            rest.store.rule = lambda _: None
    assert rest.store.hits[fault.name]
    assert_left(rest.store, fault.kind)
    assert failed or fault.kind in ("twice", "answer", "lose", "cut")
    rest.judge(writer)


# --- SQLite ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_commits_nothing_and_then_once(sqlite: Place) -> None:
    """Rule 6: another process holds the write lock for longer than a commit waits."""
    writer = Writer.claiming(sqlite, "a")
    staged, new = writer.stage(9), writer.target(9)
    path = sqlite.properties["uri"].removeprefix("sqlite:///").partition("?")[0]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(CommitUnknown):
            writer.commit(staged, new)
        other.execute("rollback")
    assert assert_exact(sqlite) == STARTS
    writer.commit(staged, new)
    assert assert_exact(sqlite) == writer.marker.positions
    assert_whole(sqlite)


def test_a_lock_that_ends_in_time_is_waited_for(sqlite: Place) -> None:
    """Rule 6: the first attempts meet the lock, a later one lands."""
    writer = Writer.claiming(sqlite, "a")
    path = sqlite.properties["uri"].removeprefix("sqlite:///").partition("?")[0]
    refused = threading.Event()
    watch(writer.lake, refused)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")

    def unlock() -> None:
        refused.wait(PATIENCE_S)
        other.execute("rollback")
        other.close()

    thread = threading.Thread(target=unlock)
    thread.start()
    writer.append(7)
    thread.join()
    assert refused.is_set()
    assert assert_exact(sqlite) == writer.marker.positions


def watch(lake: Lake, failed: threading.Event) -> None:
    """Sets ``failed`` when the real catalog's commit has failed once."""
    real = lake._catalog.commit_table

    def commit_table(*args: object) -> object:
        try:
            return real(*args)  # type: ignore[arg-type]
        except Exception:
            failed.set()
            raise

    lake._catalog.commit_table = commit_table  # type: ignore[assignment, method-assign]


# --- kills ----------------------------------------------------------------------------------------

KILLED = """
import json, sys
from support_lake import Place, Writer
from catalog.spec import TableName, TableSpec
name = TableName(sys.argv[2], "ticks")
Writer.claiming(Place(json.loads(sys.argv[1]), TableSpec(name, ("ticks",))), "killed").append(5)
"""


@pytest.mark.parametrize(
    ("point", "landed"),
    [("flush.files_written:1", 0), ("commit.before_send:2", 0), ("commit.landed:2", 5)],
)
@pytest.mark.parametrize("which", ["rest", "database"])
def test_a_killed_commit_is_all_or_nothing(
    request: pytest.FixtureRequest, which: str, point: str, landed: int
) -> None:
    """Rules 2 and 6, as in test_commits.py for SQLite: the heir goes on from what is recorded."""
    place = request.getfixturevalue(which).place
    tests = Path(__file__).parent
    arguments = [json.dumps(place.properties), place.name.namespace]
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "K2_KILL_POINT": point, "PYTHONPATH": f"{tests}:{tests.parent}"},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    heir = Writer.claiming(place, "heir")
    assert heir.marker.epoch == 2
    assert heir.marker.positions.at((TOPIC, 1)) == landed
    heir.append(3)
    assert assert_exact(place) == heir.marker.positions
    assert_whole(place)
