import json
from dataclasses import fields, replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_live import IDENTITY, SCHEMA, at, manifest_of

from catalog.errors import NotReady
from catalog.manifest import Manifest, schema_key
from catalog.offsets import Offsets
from catalog.records import LogBounds, Part, RejectCount, Segment

NUMBERS = st.integers(0, 2**62)
PARTS = st.builds(Part, st.sampled_from(["a", "ü.b"]), NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
SEGMENTS = st.builds(
    Segment,
    st.text(min_size=1),
    NUMBERS,
    NUMBERS,
    st.lists(PARTS, max_size=4).map(
        lambda parts: tuple(sorted(parts, key=lambda p: (p.topic, p.partition)))
    ),
    NUMBERS,
)
SEGMENT = Segment("t/1.arrow", 3, 900, (Part("market.trades", 0, 0, 4, 0, 3),), 17)


@given(st.lists(SEGMENTS, max_size=5, unique_by=lambda s: s.file), NUMBERS, NUMBERS)
def test_a_manifest_survives_its_file(segments: list[Segment], c: int, e: int) -> None:
    """Rule 10: everything that a version is stands in the one file."""
    made = manifest_of(segments, at(c), at(c + e), snapshot_id=c, state="paused")
    texts: dict[str, str] = {}
    for text in (made.to_json(), made.to_json(texts), made.to_json(texts)):
        assert Manifest.from_json(text) == made
        assert Manifest.from_json(text, {s.file: s for s in segments[:2]}) == made
    assert set(texts) == {s.file for s in segments}


def test_every_field_is_kept() -> None:
    made = manifest_of(
        [SEGMENT],
        at(1, 2),
        at(4, 2),
        snapshot_id=5,
        state="stopped",
        error_code="DATA_LOSS",
        error="LogGap: gone",
        sequence=77,
        watermarks=at(9, 9),
        topics=(IDENTITY, replace(IDENTITY, topic="other")),
        reason="because",
        live_max_bytes=12,
        log=(LogBounds("t", 0, 1, 2, 3), LogBounds("t", 1, 1, 2, 3, held_us=4, close=True)),
        replays=3,
        rejects=(RejectCount("t", 0, 1, 2, 3, "malformed", "why", 4), RejectCount("t", 1)),
        letters=6,
    )
    back = Manifest.from_json(made.to_json())
    for f in fields(Manifest):
        assert getattr(back, f.name) == getattr(made, f.name), f.name
    assert back.arrow_schema.equals(SCHEMA, check_metadata=True)


def test_a_manifest_of_an_older_version_is_read() -> None:
    """Rule 12: what it published is owed after an update, too."""
    made = manifest_of([SEGMENT], at(1, 2), at(4, 2))
    item = json.loads(made.to_json())
    for later in ("reason", "live_max_bytes", "log", "replays", "rejects", "letters"):
        del item[later]
    assert Manifest.from_json(json.dumps(item).encode()) == made


def test_texts_of_segments_that_left_are_forgotten() -> None:
    texts: dict[str, str] = {}
    manifest_of([SEGMENT], at(0), at(4)).to_json(texts)
    manifest_of([], at(4), at(4)).to_json(texts)
    assert texts == {}


def test_known_segments_are_used_again() -> None:
    made = manifest_of([SEGMENT], at(0), at(4))
    back = Manifest.from_json(made.to_json(), {SEGMENT.file: SEGMENT})
    assert back.segments[0] is SEGMENT


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:0],
        lambda text: text[: len(text) // 2],
        lambda text: bytes(len(text)),
        lambda text: b"[" + text + b"]",
        lambda text: text.replace(b'"format":1', b'"format":2'),
        lambda text: text.replace(b'"running"', b'"walking"'),
        lambda text: text.replace(b'"high"', b'"low"'),
        lambda text: json.dumps(json.loads(text) | {"arrow_schema": "AAAA"}).encode(),
        lambda text: json.dumps(json.loads(text) | {"segments": [["f", 1]]}).encode(),
        lambda text: json.dumps(json.loads(text) | {"table": "nodot"}).encode(),
    ],
)
def test_a_torn_or_foreign_file_is_not_a_version(damage: object) -> None:
    """Rule 10: a version is read whole or not at all."""
    text = manifest_of([SEGMENT], at(0), at(4)).to_json()
    assert callable(damage)
    with pytest.raises(NotReady, match="cannot be read"):
        Manifest.from_json(damage(text))


def test_schemas_that_differ_in_anything_have_different_keys() -> None:
    keys = {
        schema_key(schema)
        for schema in (
            SCHEMA,
            SCHEMA.append(pa.field("x", pa.int32())),
            SCHEMA.append(pa.field("x", pa.int32(), nullable=False)),
            SCHEMA.remove(0),
            pa.schema(list(SCHEMA)[::-1]),
        )
    }
    assert len(keys) == 5
    assert schema_key(pa.schema(list(SCHEMA))) == schema_key(SCHEMA)


def test_offsets_of_a_manifest_keep_partitions_at_zero() -> None:
    made = manifest_of([], Offsets(), at(0, 0))
    assert list(Manifest.from_json(made.to_json()).high) == list(at(0, 0))
