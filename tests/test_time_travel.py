"""Older versions by SQL: snapshots, branches, tags and moments; and tables about tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyiceberg.table import Table
from pyiceberg.types import StringType
from support_backend import Site

from catalog.errors import NoSuchVersion, VersionGone
from flight_server.engine import Options, Statement
from flight_server.payloads import payload_of, read_payload
from flight_server.protocol.errors import FlightSqlError, InvalidArgument, SyntaxRefused
from flight_server.sqltext import Bounds, read

OPTIONS = Options(schema="market_data")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A hybrid table of 20, 40, then 60 rows in history, and 20 live ones."""
    with closing(Site(tmp_path)) as made:
        for _ in range(3):
            made.consume(10)
            made.flush()
        made.consume(10)
        made.publish()
        yield made


def ask(site: Site, sql: str, options: Options = OPTIONS) -> list[dict[str, object]]:
    plan = site.engine.plan(Statement(sql), options)
    with site.engine.stream(plan) as stream:
        answer = stream.read_all()
    assert answer.schema.equals(plan.schema)
    rows: list[dict[str, object]] = answer.to_pylist()
    return rows


def count(site: Site, table: str) -> object:
    return ask(site, f"select count(*) as n from {table}")[0]["n"]


def lake_table(site: Site) -> Table:
    return site.place.foreign_table()


def with_rows(table: Table) -> list[int]:
    """The snapshots that added rows, oldest first."""
    return [
        each.snapshot_id
        for each in sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)
        if each.summary and int(each.summary.additional_properties.get("added-records", "0"))
    ]


def test_a_snapshot_is_read_by_its_id_and_never_has_live_rows(site: Site) -> None:
    """I4: a hybrid table's older version is history only."""
    first, second, third = with_rows(lake_table(site))
    assert count(site, "ticks") == 80
    assert count(site, f"ticks for version as of {first}") == 20
    assert count(site, f'"ticks$snapshot_{second}"') == 40
    assert count(site, f"ticks for system_version as of {third}") == 60
    both = ask(
        site,
        f"select count(*) as n, count(old._offset) as m from ticks as new "
        f"left join lake.market_data.ticks for version as of {first} old "
        f"on new._partition = old._partition and new._offset = old._offset",
    )
    assert both == [{"n": 80, "m": 20}]


def test_branches_and_tags_are_read_by_name(site: Site) -> None:
    table = lake_table(site)
    first, second, _ = with_rows(table)
    with table.manage_snapshots() as manage:
        manage.create_tag(first, "end of day").create_branch(second, "audit")
    table.refresh()
    rows = table.scan().to_arrow().slice(0, 5)
    table.append(rows, branch="audit")
    assert count(site, "ticks for version as of 'end of day'") == 20
    assert count(site, "ticks FOR VERSION AS OF 'audit' AS a where a._offset >= 0") == 45
    assert count(site, '"ticks$ref_audit"') == 45
    assert count(site, f"ticks for version as of '{first}'") == 20
    assert count(site, "ticks for version as of 'main'") == 60
    with pytest.raises(NoSuchVersion, match=r"'nope'.*audit, end of day, main"):
        ask(site, "select * from ticks for version as of 'nope'")


def test_a_moment_is_read_in_the_sessions_time_zone(site: Site) -> None:
    table = lake_table(site)
    first = with_rows(table)[0]
    log = table.metadata.snapshot_log
    (at_ms,) = [entry.timestamp_ms for entry in log if entry.snapshot_id == first]
    later = [e.timestamp_ms for e in log if e.timestamp_ms > at_ms]
    assert later, "the flushes fell into one millisecond"
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    sql = "select count(*) as n from ticks for timestamp as of "
    utc = f"{at:%Y-%m-%d %H:%M:%S.%f}"
    assert ask(site, f"{sql}'{utc}'") == [{"n": 20}]
    assert ask(site, f"{sql}TIMESTAMP '{utc}Z' t where t._offset >= 0") == [{"n": 20}]
    east = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    calcutta = Options(schema="market_data", time_zone="Asia/Kolkata")
    assert ask(site, f"{sql}'{east:%Y-%m-%d %H:%M:%S.%f}'", calcutta) == [{"n": 20}]
    assert ask(site, f"{sql}'{at.year + 1}-01-01'") == [{"n": 60}]
    with pytest.raises(NoSuchVersion, match="the oldest known one is of"):
        ask(site, f"{sql}'2001-01-01'")
    with pytest.raises(InvalidArgument, match="is no time"):
        ask(site, f"{sql}'yesterday'")


def test_an_old_snapshot_has_its_own_schema_and_a_branch_the_tables(site: Site) -> None:
    table = lake_table(site)
    first = with_rows(table)[0]
    with table.update_schema() as update:
        update.add_column("venue", StringType())
    with table.manage_snapshots() as manage:
        manage.create_branch(first, "audit")
    assert "venue" not in ask(site, f"select * from ticks for version as of {first} limit 1")[0]
    assert "venue" in ask(site, "select * from ticks for version as of 'audit' limit 1")[0]


def test_a_ticket_pins_the_version_and_an_expired_one_is_gone(site: Site) -> None:
    """Rule 17: the ticket says which snapshot; where that is expired, it says so."""
    table = lake_table(site)
    first, second, _ = with_rows(table)
    with table.manage_snapshots() as manage:
        manage.create_branch(first, "audit")
    sql = "select count(*) as n from ticks for version as of 'audit'"
    plan = site.engine.plan(Statement(sql), OPTIONS)
    assert [(pin.snapshot_id, pin.as_of) for pin in plan.pins] == [(first, "ref_audit")]
    table = lake_table(site)
    with table.manage_snapshots() as manage:
        manage.remove_branch("audit")
    with table.manage_snapshots() as manage:
        manage.create_branch(second, "audit")
    told = read_payload(payload_of(plan))
    again = site.engine.plan(told.statement, told.options, pins=told.pins)
    with site.engine.stream(again) as stream:
        assert stream.read_all().to_pylist() == [{"n": 20}]
    assert ask(site, sql) == [{"n": 40}]
    lake_table(site).maintenance.expire_snapshots().by_id(first).commit()
    with pytest.raises(VersionGone, match=str(first)):
        ask(site, f"select * from ticks for version as of {first}")


def test_places_in_errors_stay_true(site: Site) -> None:
    """The caret stands where the client's text is wrong, not where the rewritten one is."""
    first = with_rows(lake_table(site))[0]
    sql = f"select *\nfrom ticks for version as of {first}\nwhere a ==== b"
    with pytest.raises(SyntaxRefused, match="line 3, column 11"):
        ask(site, sql)
    text = read(f"select nope from ticks for version as of {first} where x", Bounds())
    assert text.rewritten.startswith(f'select nope from "ticks$snapshot_{first}"')
    assert text.origin(text.rewritten.index("where")) == text.sql.index("where")


@pytest.mark.parametrize(
    ("sql", "rewritten"),
    [
        ("select 1 from t for version as of 7", '"t$snapshot_7" AS "t"'),
        ("select 1 from T for version as of 7, u", '"t$snapshot_7" AS "t", u'),
        ("select 1 from a.t for version as of 7 x", 'a."t$snapshot_7" x'),
        ("select 1 from t for version as of 7 as x join u", '"t$snapshot_7" as x join u'),
        (
            'select 1 from "T ""x" for version as of \'b\' where y',
            '"T ""x$ref_b" AS "T ""x" where y',
        ),
        ("select 1 from t for timestamp as of date '2024-01-01'", '"t$at_2024-01-01" AS "t"'),
        ("select 1 from t for version as of 'it''s'", '"t$ref_it\'s" AS "t"'),
    ],
)
def test_the_clause_becomes_part_of_the_name(sql: str, rewritten: str) -> None:
    found = " ".join(read(sql, Bounds()).rewritten.split())
    assert found.partition(" from ")[2] == rewritten


@pytest.mark.parametrize(
    "sql",
    [
        "select * from t for version as of ?",
        "select * from t for version as of now()",
        "select * from t for version as of 1.5",
        "select * from t for timestamp as of 17",
        "select * from (select 1) for version as of 1",
        "select * from f(1) for version as of 1",
    ],
)
def test_what_is_no_literal_behind_a_name_is_refused(sql: str) -> None:
    with pytest.raises(FlightSqlError, match=r"literal|behind a table's name"):
        read(sql, Bounds())


def test_tables_about_a_table_say_what_iceberg_knows(site: Site) -> None:
    table = lake_table(site)
    first, second, third = with_rows(table)
    with table.manage_snapshots() as manage:
        manage.create_tag(first, "first", max_ref_age_ms=10**12)
    history = ask(site, 'select * from "ticks$history"')
    assert history[0]["snapshot_id"] == third
    assert all(row["is_current_ancestor"] for row in history)
    assert {second, first} < {row["snapshot_id"] for row in history}
    refs = ask(site, 'select name, type, snapshot_id, max_reference_age_ms a from "ticks$refs"')
    assert refs == [
        {"name": "first", "type": "tag", "snapshot_id": first, "a": 10**12},
        {"name": "main", "type": "branch", "snapshot_id": third, "a": None},
    ]
    manifests = ask(site, 'select content, sum(added_rows) as n from "ticks$manifests" group by 1')
    assert manifests == [{"content": "data", "n": 60}]
    partitions = ask(site, 'select * from "ticks$partitions"')
    assert sum(row["record_count"] for row in partitions) == 60  # type: ignore[misc]
    files = ask(site, 'select count(*) n, sum(file_size_bytes) b from "ticks$files"')[0]
    assert sum(row["file_count"] for row in partitions) == files["n"]  # type: ignore[misc]
    assert sum(row["size_bytes"] for row in partitions) == files["b"]  # type: ignore[misc]


def test_tables_about_an_older_version(site: Site) -> None:
    first = with_rows(lake_table(site))[0]
    sql = 'select sum(record_count) as n from "ticks$files"'
    assert ask(site, sql) == [{"n": 60}]
    assert ask(site, f"{sql} for version as of {first}") == [{"n": 20}]
    for part in ("live", "offsets"):
        with pytest.raises(NoSuchVersion, match="newest version only"):
            ask(site, f'select * from "ticks${part}" for version as of {first}')


def test_no_path_of_the_machine_is_shown(site: Site, tmp_path: Path) -> None:
    for part in ("files", "manifests", "snapshots", "history", "refs", "partitions"):
        assert str(tmp_path) not in str(ask(site, f'select * from "ticks${part}"'))
