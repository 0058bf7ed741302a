"""What may be pinned stays: tables that we create tell other tools' expiry how much to keep."""

from __future__ import annotations

from pathlib import Path

from support_lake import SCHEMA, TOPIC, Place, Writer, rows_of_log, sqlite_properties

from catalog.spec import TableName, TableSpec
from flight_server.config import load

SPEC = TableSpec(TableName("market", "ticks"), (TOPIC,))


def created(folder: Path) -> Place:
    place = Place(sqlite_properties(folder), SPEC)
    place.lake().ensure_table(SPEC, SCHEMA)
    return place


def expire_as_the_table_says(place: Place, now_ms: int) -> int:
    """What an expiry that honours the table's properties removes, the oldest first."""
    table = place.foreign_table()
    keep = int(table.properties["history.expire.min-snapshots-to-keep"])
    age = int(table.properties["history.expire.max-snapshot-age-ms"])
    ancestry = sorted(table.metadata.snapshots, key=lambda s: s.timestamp_ms, reverse=True)
    old = [s.snapshot_id for s in ancestry[keep:] if s.timestamp_ms < now_ms - age]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    return len(old)


def test_an_expiry_keeps_every_snapshot_that_a_ticket_may_name(tmp_path: Path) -> None:
    """Rule 15: as many commits as fit into a ticket's life and the longest statement are kept.

    Kept by number, not only by age: the snapshot that was the head a moment ago may be old.
    """
    place = created(tmp_path)
    writer = Writer.claiming(place, "w")
    for _ in range(8):
        writer.append(5)
    pinned = place.lake().head(SPEC.name)
    far_future_ms = 1 << 52

    removed = expire_as_the_table_says(place, far_future_ms)

    assert removed == 0
    head = place.lake().head(SPEC.name, snapshot_id=pinned.snapshot_id)
    assert head.marker == pinned.marker
    assert rows_of_log(place).num_rows == 8 * 5 * 2


def test_the_number_covers_the_defaults(tmp_path: Path) -> None:
    """Rule 15: reload interval + ticket life + longest statement, at a commit every ten seconds."""
    place = created(tmp_path)
    keep = int(place.foreign_table().properties["history.expire.min-snapshots-to-keep"])
    settings = load(None, environ={})
    needed_s = (
        settings.live.reload_s + settings.server.ticket_life_s + settings.limits.statement_timeout_s
    )
    assert keep >= needed_s / 10
