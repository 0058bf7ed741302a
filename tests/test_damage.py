"""A damaged live folder: seen by whoever reads it, and rebuilt from the log by the ingest."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support_ingest import WAIT_S, World, committed, reached, running
from support_kafka import Broker
from support_log import NAME, Log, assert_answer, spec_of

from catalog.errors import NotReady, SegmentMissing
from catalog.segments import MANIFEST_FILE


@pytest.fixture
def log() -> Iterator[Log]:
    """A topic of the in-process mock cluster of librdkafka, which lives as long as its producer."""
    owner = Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": 1, "log_level": 0})
    found = next(iter(owner.list_topics(timeout=WAIT_S).brokers.values()))
    yield Log(Broker(f"{found.host}:{found.port}"), "t")
    owner.flush(WAIT_S)


@pytest.fixture
def world(log: Log, tmp_path: Path) -> World:
    return World.make(tmp_path, log.broker.properties)


def flip(file: Path) -> None:
    """One bit in the middle, where rows are."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    put(file, bytes(content))


def blank(file: Path) -> None:
    """What a power cut leaves of a file that was not on the disk yet."""
    put(file, bytes(file.stat().st_size))


def cut(file: Path) -> None:
    put(file, file.read_bytes()[:-1])


def move(file: Path) -> None:
    """One bit in the last digit of a position."""

    def other(found: re.Match[bytes]) -> bytes:
        return found[1] + bytes([found[2][0] ^ 1])

    put(file, re.sub(rb'("high":\{"t":\{"0":\d*)(\d)', other, file.read_bytes(), count=1))


def put(file: Path, content: bytes) -> None:
    """Another file under the name: what is mapped already stays as it was."""
    file.unlink()
    file.write_bytes(content)


DAMAGES = {"flipped": flip, "blank": blank, "cut": cut, "gone": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_segment_is_never_read_and_is_made_again(
    world: World, log: Log, damage: Callable[[Path], None]
) -> None:
    """Rule 18: readers get an error, never other rows; the next flush starts again from the log."""
    log.write(100)
    with running(world.sources(), spec_of(log, flush_rows=300)):
        hurt = world.wait(NAME, reached("t", *log.ends))
        for segment in hurt.segments:
            damage(world.live.folder / segment.file)
        with pytest.raises(SegmentMissing, match=r"is (damaged|gone)"):
            world.answer(NAME)
        log.write(300)
        world.wait(NAME, committed("t", *log.ends))
        assert_answer(world, log)


@pytest.mark.parametrize("damage", [move, flip, blank, cut])
def test_a_damaged_manifest_is_not_believed_and_is_made_again(
    world: World, log: Log, damage: Callable[[Path], None]
) -> None:
    """A position with one bit more would be another version: the manifest carries a checksum."""
    log.write(100)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", *log.ends))
    damage(world.live.folder / str(NAME) / MANIFEST_FILE)
    with pytest.raises(NotReady, match="manifest cannot be read"):
        world.manifest(NAME)
    with running(world.sources(), spec_of(log)):
        ready(world)
        world.wait(NAME, reached("t", *log.ends))
        assert_answer(world, log)


def ready(world: World) -> None:
    """Waits until the ingest has replaced the manifest."""
    limit = time.monotonic() + WAIT_S
    while True:
        try:
            world.manifest(NAME)
        except NotReady:
            assert time.monotonic() < limit
            time.sleep(0.02)
        else:
            return


def test_segments_that_an_earlier_run_left_damaged_do_not_stop_the_next(
    world: World, log: Log
) -> None:
    """Rule 12: the old version cannot be read, the new one is made of the log alone."""
    log.write(100)
    with running(world.sources(), spec_of(log)):
        old = world.wait(NAME, reached("t", *log.ends))
    for segment in old.segments:
        blank(world.live.folder / segment.file)
    with pytest.raises(SegmentMissing):
        world.answer(NAME)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, lambda m: m.segments != old.segments and reached("t", *log.ends)(m))
        assert_answer(world, log)
