"""What ``$offsets``, ``system.lag`` and ``system.tables`` show. Pure: manifests in, tables out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from catalog.manifest import Manifest
from catalog.offsets import Offsets, TopicPartition
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
#: the manifest.
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
    ]
)

#: One row per table. The live columns are null for a plain table, ``snapshot_id`` is null for a
#: plain table that nobody has read yet.
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
    }


def _lag_rows(manifest: Manifest, now_us: int) -> Iterator[dict[str, object]]:
    held = _held(manifest)
    ids = {identity.topic: identity.topic_id for identity in manifest.topics}
    for tp in sorted({*manifest.committed, *manifest.high, *manifest.watermarks}):
        high, watermark = manifest.high.at(tp), manifest.watermarks.get(tp)
        rows, size = held.get(tp, (0, 0))
        yield {
            "table": str(manifest.table),
            "topic": tp[0],
            "partition": tp[1],
            "committed": manifest.committed.at(tp),
            "high": high,
            "watermark": watermark,
            "lag_rows": None if watermark is None else max(0, watermark - high),
            "live_rows": rows,
            "live_bytes": size,
            "state": manifest.state,
            "error": manifest.error,
            "age_ms": max(0, now_us - manifest.published_us) // 1000,
            "topic_id": ids.get(tp[0]),
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
