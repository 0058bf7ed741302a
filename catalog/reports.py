"""What ``$offsets``, ``system.lag``, ``system.rejects`` and ``system.tables`` show.

Pure: manifests in, tables out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from catalog.logwatch import CLOSE_SHARE, uncommitted_share
from catalog.manifest import Manifest
from catalog.offsets import Offsets, TopicPartition
from catalog.records import LogBounds, RejectCount
from catalog.spec import TableName, TableSpec

#: Positions of one version; ``watermark`` is the log's end when the newest manifest was made.
OFFSETS_SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("committed", pa.int64(), nullable=False),
        pa.field("high", pa.int64(), nullable=False),
        pa.field("watermark", pa.int64()),
    ]
)

#: One row per partition; a table that was never published has one per topic, with nulls.
#: ``lag_rows`` counts positions between ``high`` and ``watermark`` (gaps of the log included),
#: ``live_bytes`` is the partition's share of its segments' bytes by rows, ``age_ms`` the age of
#: the manifest. What the log held at the last look: it begins at ``log_start``; ``held_rows`` of
#: the positions behind ``high`` cannot be read yet, because a transaction that has been open for
#: ``held_ms`` holds ``stable`` below them. ``uncommitted_share`` is the share of the log that
#: history lacks (null: the log never lost a record), ``warning`` says that retention comes close.
#: ``live_share``, of the whole table, is how full ``live.max_bytes`` is; ``reason`` explains
#: ``state``.
LAG_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32()),
        pa.field("committed", pa.int64()),
        pa.field("high", pa.int64()),
        pa.field("watermark", pa.int64()),
        pa.field("lag_rows", pa.int64()),
        pa.field("live_rows", pa.int64()),
        pa.field("live_bytes", pa.int64()),
        pa.field("state", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("age_ms", pa.int64()),
        pa.field("topic_id", pa.string()),
        pa.field("log_start", pa.int64()),
        pa.field("stable", pa.int64()),
        pa.field("held_rows", pa.int64()),
        pa.field("held_ms", pa.int64()),
        pa.field("uncommitted_share", pa.float64()),
        pa.field("live_share", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("warning", pa.string()),
    ]
)

#: One row per partition; a table that was never published has one per topic, with nulls.
#: ``rejected`` and ``tombstones`` (passed over) count since the ingest began to read the table; the
#: ``last_`` columns are the newest reject's. ``dead_letters`` is how many were ever recorded of the
#: whole table; it and ``dead_letter_table`` are null where the table keeps none.
REJECTS_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32()),
        pa.field("on_error", pa.string(), nullable=False),
        pa.field("rejected", pa.int64()),
        pa.field("tombstones", pa.int64()),
        pa.field("last_offset", pa.int64()),
        pa.field("last_error", pa.string()),
        pa.field("last_message", pa.string()),
        pa.field("last_rejected", pa.timestamp("us", tz="UTC")),
        pa.field("dead_letters", pa.int64()),
        pa.field("dead_letter_table", pa.string()),
    ]
)

#: One row per table. The live columns are null for a plain table, ``snapshot_id`` is null for a
#: plain table that nobody has read yet. ``role`` is what this server's ingest does with the table
#: (writer, follower), ``owner`` and ``epoch`` say who flushes it, wherever that runs.
TABLES_SCHEMA = pa.schema(
    [
        pa.field("catalog", pa.string(), nullable=False),
        pa.field("schema", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("topics", pa.list_(pa.field("element", pa.string(), nullable=False))),
        pa.field("state", pa.string()),
        pa.field("segments", pa.int64()),
        pa.field("live_rows", pa.int64()),
        pa.field("live_bytes", pa.int64()),
        pa.field("snapshot_id", pa.int64()),
        pa.field("published", pa.timestamp("us", tz="UTC")),
        pa.field("role", pa.string()),
        pa.field("owner", pa.string()),
        pa.field("epoch", pa.int64()),
    ]
)

#: The state of a table that was never published, or whose manifest cannot be read.
NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True)
class Listed:
    """One table of ``system.tables``.

    Attributes:
        spec: None for a plain table.
        manifest: None for a plain table, and where nothing was published.
        snapshot_id: newest snapshot known of a plain table.
    """

    name: TableName
    spec: TableSpec | None = None
    manifest: Manifest | None = None
    snapshot_id: int | None = None


def offsets_table(committed: Offsets, high: Offsets, watermarks: Offsets) -> pa.Table:
    """``$offsets`` of a version, by :data:`OFFSETS_SCHEMA`, sorted by topic and partition."""
    rows = [
        {
            "topic": tp[0],
            "partition": tp[1],
            "committed": committed.at(tp),
            "high": high.at(tp),
            "watermark": watermarks.get(tp),
        }
        for tp in sorted({*committed, *high, *watermarks})
    ]
    return pa.Table.from_pylist(rows, schema=OFFSETS_SCHEMA)


def lag_table(tables: Sequence[tuple[TableSpec, Manifest | None]], now_us: int) -> pa.Table:
    """``system.lag``, by :data:`LAG_SCHEMA`.

    Args:
        tables: every hybrid table with its manifest.
        now_us: microseconds since the epoch, for ``age_ms``.
    """
    rows = [
        row
        for spec, manifest in tables
        for row in (_lag_rows(manifest, now_us) if manifest else _unpublished(spec))
    ]
    return pa.Table.from_pylist(rows, schema=LAG_SCHEMA)


def rejects_table(tables: Sequence[tuple[TableSpec, Manifest | None]]) -> pa.Table:
    """``system.rejects``, by :data:`REJECTS_SCHEMA`, of every hybrid table with its manifest."""
    rows = [
        {"table": str(spec.name), "on_error": spec.on_error} | row
        for spec, manifest in tables
        for row in (
            _reject_rows(spec, manifest) if manifest else ({"topic": t} for t in spec.topics)
        )
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS_SCHEMA)


def tables_table(catalog: str, tables: Sequence[Listed]) -> pa.Table:
    """``system.tables``, by :data:`TABLES_SCHEMA`."""
    rows = [
        {"catalog": catalog, "schema": item.name.namespace, "name": item.name.table} | _state(item)
        for item in tables
    ]
    return pa.Table.from_pylist(rows, schema=TABLES_SCHEMA)


def _state(item: Listed) -> dict[str, object]:
    if item.spec is None:
        return {"kind": "plain", "snapshot_id": item.snapshot_id}
    found: dict[str, object] = {"kind": "hybrid", "topics": list(item.spec.topics)}
    if item.manifest is None:
        return found | {"state": NOT_READY}
    segments = item.manifest.segments
    return found | {
        "state": item.manifest.state,
        "segments": len(segments),
        "live_rows": sum(segment.rows for segment in segments),
        "live_bytes": sum(segment.bytes for segment in segments),
        "snapshot_id": item.manifest.snapshot_id,
        "published": item.manifest.published_us,
        "role": item.manifest.role or None,
        "owner": item.manifest.owner or None,
        "epoch": item.manifest.epoch or None,
    }


def _lag_rows(manifest: Manifest, now_us: int) -> Iterator[dict[str, object]]:
    held = _held(manifest)
    ids = {identity.topic: identity.topic_id for identity in manifest.topics}
    log = {(bounds.topic, bounds.partition): bounds for bounds in manifest.log}
    table = {
        "table": str(manifest.table),
        "state": manifest.state,
        "error": manifest.error,
        "age_ms": max(0, now_us - manifest.published_us) // 1000,
        "live_share": _live_share(manifest),
        "reason": manifest.reason,
    }
    for tp in sorted({*manifest.committed, *manifest.high, *manifest.watermarks}):
        high, watermark = manifest.high.at(tp), manifest.watermarks.get(tp)
        rows, size = held.get(tp, (0, 0))
        row = table | {
            "topic": tp[0],
            "partition": tp[1],
            "committed": manifest.committed.at(tp),
            "high": high,
            "watermark": watermark,
            "lag_rows": None if watermark is None else max(0, watermark - high),
            "live_rows": rows,
            "live_bytes": size,
            "topic_id": ids.get(tp[0]),
        }
        yield row | _log_columns(log.get(tp), manifest.committed.at(tp), now_us)


def _live_share(manifest: Manifest) -> float | None:
    if not manifest.live_max_bytes:
        return None
    return sum(segment.bytes for segment in manifest.segments) / manifest.live_max_bytes


def _log_columns(bounds: LogBounds | None, committed: int, now_us: int) -> dict[str, object]:
    if bounds is None:
        return {}
    share = uncommitted_share(bounds, committed)
    held_ms = None if bounds.held_us is None else max(0, now_us - bounds.held_us) // 1000
    return {
        "log_start": bounds.begin,
        "stable": bounds.stable,
        "held_rows": bounds.end - bounds.stable,
        "held_ms": held_ms,
        "uncommitted_share": share,
        "warning": _warning(bounds, committed, share),
    }


def _warning(bounds: LogBounds, committed: int, share: float | None) -> str | None:
    if bounds.begin > committed:
        return (
            f"{bounds.begin - committed} positions were deleted before history had them; what the "
            "live table does not hold of them is lost"
        )
    if not bounds.close or (share or 0.0) < CLOSE_SHARE:  # committed since the look
        return None
    return (
        f"history lacks {share:.0%} of what the log still holds: keep records longer (retention), "
        "or mend what holds the commits up, before records are deleted unread"
    )


def _reject_rows(spec: TableSpec, manifest: Manifest) -> Iterator[dict[str, object]]:
    counts = {(count.topic, count.partition): count for count in manifest.rejects}
    for tp in sorted({*manifest.committed, *manifest.high, *counts}):
        count = counts.get(tp) or RejectCount(*tp)
        yield {
            "topic": tp[0],
            "partition": tp[1],
            "rejected": count.rejected,
            "tombstones": count.tombstones,
            "last_offset": count.last_offset,
            "last_error": count.last_error,
            "last_message": count.last_message,
            "last_rejected": count.last_us,
            "dead_letters": manifest.letters,
            "dead_letter_table": None if manifest.letters is None else str(spec.dead_letters),
        }


def _held(manifest: Manifest) -> Mapping[TopicPartition, tuple[int, int]]:
    """Rows and bytes that the segments hold of each partition."""
    held: dict[TopicPartition, tuple[int, int]] = {}
    for segment in manifest.segments:
        for part in segment.parts:
            tp = part.topic, part.partition
            count = part.row_next - part.row_first
            rows, size = held.get(tp, (0, 0))
            held[tp] = rows + count, size + segment.bytes * count // max(1, segment.rows)
    return held


def _unpublished(spec: TableSpec) -> Iterator[dict[str, object]]:
    for topic in spec.topics:
        yield {"table": str(spec.name), "topic": topic, "state": NOT_READY}
