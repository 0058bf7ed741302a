"""The real backend: tickets hold pins, errors are mapped in full, sessions never go back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from support_backend import NUMBERS_ROWS, TICKS, Site
from support_lake import STARTS, log_rows

import catalog.errors
from catalog.errors import CatalogError
from catalog.offsets import Offsets
from flight_server.backend import EngineBackend
from flight_server.options import Settings
from flight_server.payloads import Payload, payload_of, read_payload
from flight_server.plans import Options
from flight_server.plans import Statement as EngineStatement
from flight_server.protocol import Call, Principal, Rows, Sealer, Statement
from flight_server.protocol.errors import (
    SENT_AS,
    Cancelled,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SyntaxRefused,
    TryAgain,
    Unimplemented,
)
from flight_server.sessions import SessionStore
from flight_server.shares import Share
from flight_server.wire_errors import BY_CODE, to_wire_error

ALL = "select * from ticks"


def make_site(folder: Path) -> Site:
    """Ten records of each partition in history, five in the tail."""
    site = Site(folder)
    site.consume(10)
    site.flush()
    site.consume(5)
    site.publish()
    return site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site of the test's own."""
    with closing(make_site(tmp_path)) as site:
        yield site


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that nobody changes."""
    with closing(make_site(tmp_path_factory.mktemp("quiet"))) as site:
        yield site


def new_call(name: str = "alice") -> Call:
    """A call whose session is of its own and kept."""
    sessions = SessionStore(Sealer([b"k" * 32]))
    _, cookie = sessions.resolve(None, name)
    session, _ = sessions.resolve(cookie, name)
    return Call(Principal(name), session)


def read(rows: Rows) -> pa.Table:
    try:
        return pa.Table.from_batches(list(rows), rows.schema)
    finally:
        rows.close()


def answer(backend: EngineBackend, sql: str, call: Call | None = None) -> pa.Table:
    call = call or new_call()
    return read(backend.open(backend.plan(Statement(sql), call).payload, call))


def log_of(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: (row["_partition"], row["_offset"]))


# --- errors --------------------------------------------------------------------------------------


def _classes(root: type[CatalogError]) -> list[type[CatalogError]]:
    found = [root]
    for child in root.__subclasses__():
        found += _classes(child)
    return [c for c in found if c.__module__ == catalog.errors.__name__]


@pytest.mark.parametrize("kind", _classes(CatalogError), ids=lambda kind: kind.__name__)
def test_every_catalog_error_has_a_wire_error_of_its_status(kind: type[CatalogError]) -> None:
    """The table is total; the text starts with the class that users look up."""
    mapped = to_wire_error(kind("what happened"))
    assert mapped.code == kind.code
    assert mapped.code in SENT_AS
    assert str(mapped) == f"{kind.__name__}: what happened"
    assert mapped.retriable == kind.retriable


def test_the_table_has_no_status_to_spare() -> None:
    assert set(BY_CODE) == {kind.code for kind in _classes(CatalogError)}


@pytest.mark.parametrize(
    ("sql", "error", "text"),
    [
        ("select * frm ticks", SyntaxRefused, "line 1"),
        ("select * from tics", NotFound, "ticks"),
        ("select prize from ticks", NotFound, "price"),
        ("insert into ticks select * from ticks", Unimplemented, "INSERT"),
        ("select 1; select 2", InvalidArgument, "one by one"),
    ],
)
def test_statements_that_are_wrong_fail_while_planning(
    site: Site, sql: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        site.backend().plan(Statement(sql), new_call())
    (record,) = site.log.records()
    assert (record.state, record.statement, record.user) == ("failed", sql, "alice")


def test_an_unpublished_table_is_a_retriable_error_and_is_listed_without_columns(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    backend = site.backend()
    with pytest.raises(TryAgain, match=r"NotReady: market_data\.ticks"):
        backend.plan(Statement(ALL), new_call())
    listed = {entry.name: entry for entry in backend.tables(new_call())}
    assert {"numbers", "ticks"} <= set(listed)
    assert listed["numbers"].columns().equals(NUMBERS_ROWS.schema)
    listed["ticks"].columns().serialize()
    site.close()


# --- plans and tickets ---------------------------------------------------------------------------


def test_an_answer_holds_history_and_tail_once_each(quiet: Site) -> None:
    table = answer(quiet.backend(), ALL)
    assert log_of(table) == log_of(log_rows(STARTS, quiet.position))


def test_the_stream_has_exactly_the_planned_schema(quiet: Site) -> None:
    backend, call = quiet.backend(), new_call()
    for sql in (ALL, "select count(*) from ticks", "select symbol, max(at) from ticks group by 1"):
        planned = backend.plan(Statement(sql), call)
        assert read(backend.open(planned.payload, call)).schema == planned.schema


def test_planning_executes_nothing(quiet: Site) -> None:
    """The error of a row comes with the rows, not with the plan."""
    backend, call = quiet.backend(), new_call()
    planned = backend.plan(Statement("select 1 / (_offset - 100) from ticks"), call)
    with pytest.raises(InvalidArgument):
        read(backend.open(planned.payload, call))


def test_a_ticket_gives_the_same_rows_whatever_happens_to_the_table(site: Site) -> None:
    """Rules 16 and 17: the ticket names S, C and E; later flushes and manifests change nothing."""
    backend, call = site.backend(), new_call()
    ticket = backend.plan(Statement(ALL), call).payload
    first = log_of(read(backend.open(ticket, call)))
    site.consume(7)
    site.publish()
    assert log_of(read(backend.open(ticket, call))) == first
    site.flush()
    site.publish()
    assert log_of(read(backend.open(ticket, call))) == first
    assert len(answer(backend, ALL)) == len(first) + 14


def test_another_server_redeems_the_ticket(site: Site) -> None:
    """Rule 17: any process answers it; nothing of it is parked in the one that planned."""
    ticket = site.backend().plan(Statement(ALL), new_call()).payload
    other = site.make_engine()
    table = read(site.backend(other).open(ticket, new_call()))
    assert log_of(table) == log_of(log_rows(STARTS, site.position))
    other.close()


def test_a_ticket_holds_no_segment_file(quiet: Site) -> None:
    """Rule 17: positions and identities, never file names of the live folder."""
    ticket = quiet.backend().plan(Statement(ALL), new_call()).payload
    assert quiet.live
    for segment in quiet.live:
        assert segment.file.encode() not in ticket


def test_a_version_that_cannot_be_answered_any_more_is_retriable(site: Site) -> None:
    """Rule 17: typed VersionGone, never other rows."""
    backend, call = site.backend(), new_call()
    ticket = backend.plan(Statement('select * from "ticks$live"'), call).payload
    site.flush()
    site.publish()
    site.segments.trim([], 1e9)
    site.segments.trim([], 2e9)
    other = site.make_engine()
    with pytest.raises(TryAgain, match="VersionGone"):
        site.backend(other).open(ticket, call)
    assert site.log.records()[-1].error_code == "UNAVAILABLE"
    other.close()


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\2{}", b"\0\0\0\4null", b"\xff" * 40])
def test_a_payload_of_another_version_is_gone_not_a_crash(quiet: Site, payload: bytes) -> None:
    with pytest.raises(TryAgain, match="VersionGone"):
        quiet.backend().open(payload, new_call())


def test_a_payload_survives(quiet: Site) -> None:
    parameters = pa.record_batch({"1": [3], "2": ["x"]})
    statement = EngineStatement("select * from ticks where _offset = ? and symbol = ?", parameters)
    plan = quiet.engine.plan(statement, Options("market_data", "Europe/Berlin", 2.5))
    read_back = read_payload(payload_of(plan))
    assert read_back == Payload(statement, plan.options, plan.pins)
    planned = EngineStatement("-- a plan", parameters, b"a plan")
    told = payload_of(replace(plan, statement=planned))
    assert read_payload(told) == Payload(planned, plan.options, plan.pins)
    share = Share("offset", 3, None)
    assert read_payload(payload_of(plan, share)).share == share


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_are_described_bound_and_executed_as_one(quiet: Site) -> None:
    backend, call = quiet.backend(), new_call()
    sql = "select _offset from ticks where _partition = ? and _offset < $2"
    prepared = backend.prepare(Statement("select _offset from ticks where _partition = ?"), call)
    assert prepared.schema.names == ["_offset"]
    assert prepared.parameters.types == [pa.int32()]
    sets = pa.record_batch({"p": pa.array([1, 1], pa.int64())})
    statement = Statement("select _offset from ticks where _partition = ?", sets)
    rows = read(backend.open(backend.plan(statement, call).payload, call))
    assert sorted(rows["_offset"].to_pylist()) == sorted([*range(15)] * 2)
    with pytest.raises(InvalidArgument):
        backend.plan(Statement(sql, sets), call)


# --- sessions ------------------------------------------------------------------------------------


def behind(site: Site, tmp_path: Path) -> EngineBackend:
    """A server whose manifest stays where the site is now."""
    import shutil  # noqa: PLC0415 - only here

    from catalog.lake import Lake  # noqa: PLC0415 - only here
    from catalog.segments import LiveReader  # noqa: PLC0415 - only here
    from catalog.tables import Tables  # noqa: PLC0415 - only here
    from flight_server.engine import Engine  # noqa: PLC0415 - only here
    from flight_server.limits import Limits  # noqa: PLC0415 - only here

    shutil.copytree(site.folder / "live", tmp_path / "old")
    lake = Lake.open("lake", site.place.properties, timeout_s=60)
    tables = Tables(lake, LiveReader(tmp_path / "old"), [TICKS], refresh_ms=0)
    return site.backend(Engine(tables, lake, Limits()))


def test_a_session_never_goes_back(site: Site, tmp_path: Path) -> None:
    """Rule 20: a session's greatest E is carried; a server that is behind says so, retriably."""
    old, call = behind(site, tmp_path), new_call()
    assert len(answer(old, ALL, call)) == 30
    site.consume(3)
    site.publish()
    assert len(answer(site.backend(), ALL, call)) == 36
    with pytest.raises(TryAgain, match="NotReady"):
        old.plan(Statement(ALL), call)
    assert len(answer(old, ALL, new_call())) == 30  # without a session: monotone per server only


def test_a_session_waits_for_what_it_has_seen(site: Site) -> None:
    """Rule 20: within the deadline the server waits for the manifest."""
    call = new_call()
    site.consume(3)
    call.session.saw(TICKS.name, site.writer.head.table_uuid, site.position)  # type: ignore[attr-defined]
    later = threading.Timer(0.1, site.publish)
    later.start()
    assert len(answer(site.backend(session_wait_s=30), ALL, call)) == 36
    later.join()


def test_redeeming_a_ticket_counts_as_seeing(site: Site, tmp_path: Path) -> None:
    """Rule 20: the E of a ticket that came from elsewhere is carried too."""
    old, call = behind(site, tmp_path), new_call()
    site.consume(3)
    site.publish()
    ticket = site.backend().plan(Statement(ALL), new_call()).payload
    read(site.backend().open(ticket, call))
    with pytest.raises(TryAgain, match="NotReady"):
        old.plan(Statement(ALL), call)


def test_a_table_that_was_made_anew_is_not_behind(site: Site) -> None:
    """Rule 20 is about a table, not about its name: positions of a dropped one do not bind."""
    call = new_call()
    far = Offsets({tp: position + 1000 for tp, position in site.position.items()})
    call.session.saw(TICKS.name, "the-dropped-one", far)  # type: ignore[attr-defined]
    assert len(answer(site.backend(), ALL, call)) == 30


def test_options_change_what_a_statement_means(quiet: Site) -> None:
    backend, call = quiet.backend(), new_call()
    for name, value in {"schema": "demo", "time_zone": "Europe/Berlin"}.items():
        call.session.set_option(name, backend.check_option(name, value))
    assert answer(backend, "select count(*) from numbers", call).to_pylist() == [{"count(*)": 5}]
    assert backend.options(call) == {
        "catalog": "lake",
        "schema": "demo",
        "time_zone": "Europe/Berlin",
        "statement_timeout": 300.0,
        "endpoints": 1,
        "compression": "none",
    }


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("catalog", "lake", "lake"),
        ("schema", "a.b", "a.b"),
        ("time_zone", "UTC", "UTC"),
        ("statement_timeout", 5, 5.0),
        ("statement_timeout", "2.5", 2.5),
        ("schema", None, None),
        ("endpoints", 4, 4),
        ("endpoints", "64", 64),
        ("compression", "zstd", "zstd"),
        ("compression", "none", None),
    ],
)
def test_good_options(quiet: Site, name: str, value: object, stored: object) -> None:
    assert quiet.backend().check_option(name, value) == stored  # type: ignore[arg-type]  # a case


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("catalog", "other"),
        ("schema", ""),
        ("schema", 5),
        ("time_zone", "Mars/Base"),
        ("time_zone", ("UTC",)),
        ("statement_timeout", 0),
        ("statement_timeout", "soon"),
        ("statement_timeout", 1e9),
        ("statement_timeout", True),
        ("statement_timeout", ("1",)),
        ("statement_timeout", "nan"),
        ("endpoints", 0),
        ("endpoints", 65),
        ("endpoints", "many"),
        ("endpoints", True),
        ("endpoints", 2.5),
        ("endpoints", ("2",)),
        ("compression", "brotli"),
        ("compression", 1),
    ],
)
def test_bad_options(quiet: Site, name: str, value: object) -> None:
    with pytest.raises(InvalidArgument):
        quiet.backend().check_option(name, value)  # type: ignore[arg-type]  # a case


def test_unknown_options(quiet: Site) -> None:
    with pytest.raises(NotFound, match="colour"):
        quiet.backend().check_option("colour", "blue")


# --- metadata and the query log ------------------------------------------------------------------


def test_catalogs_schemas_and_tables(quiet: Site) -> None:
    backend, call = quiet.backend(), new_call()
    assert list(backend.catalogs(call)) == ["lake"]
    names = {schema for _, schema in backend.schemas(call)}
    assert names == {"demo", "market_data", "system", "information_schema"}
    listed = {(t.schema, t.name): t for t in backend.tables(call)}
    assert {("demo", "numbers"), ("market_data", "ticks"), ("system", "lag")} <= set(listed)
    planned = backend.plan(Statement(ALL), call).schema
    assert listed["market_data", "ticks"].columns().equals(planned)
    assert {t.type for t in listed.values()} <= set(backend.table_types())


def test_each_statement_has_one_line_in_the_query_log(site: Site) -> None:
    backend = site.backend()
    answer(backend, ALL)
    call = new_call("bob")
    rows = backend.open(backend.plan(Statement(ALL), call).payload, call)
    rows.close()
    done = {record.user: record for record in site.log.records()}
    assert (done["alice"].state, done["alice"].rows) == ("finished", 30)
    assert done["alice"].bytes > 0
    assert done["alice"].pins[0].startswith("market_data.ticks@")
    assert (done["bob"].state, done["bob"].error_code) == ("cancelled", "CANCELLED")


def test_a_cancelled_stream_says_so_and_is_logged(site: Site) -> None:
    backend, call = site.backend(), new_call()
    rows = backend.open(backend.plan(Statement(ALL), call).payload, call)
    rows.cancel()
    with pytest.raises(Cancelled):
        read(rows)
    (record,) = site.log.records()
    assert record.state == "cancelled"


def test_the_servers_timeout_is_told(quiet: Site) -> None:
    backend = quiet.backend(statement_timeout_s=7.5)
    assert backend.sql_info()[100] == 7500
    assert replace(Settings(), catalog="x").catalog == "x"


def test_a_stopped_table_says_why(site: Site) -> None:
    """Rules 9 and 19 end in a typed error at the statement, never in an answer with a hole."""
    manifest = site.segments.previous()
    assert manifest is not None
    site.segments.publish(
        replace(
            manifest,
            state="stopped",
            error_code="DATA_LOSS",
            error="TopicRecreated: topic ticks was recreated",
        )
    )
    with pytest.raises(Exception, match="TopicRecreated: topic ticks was recreated") as caught:
        site.backend().plan(Statement(ALL), new_call())
    assert caught.value.code == "DATA_LOSS"  # type: ignore[attr-defined]  # a wire error
    assert not isinstance(caught.value, FailedPrecondition)
