import random
from collections.abc import Callable

import pytest

from catalog.records import Segment
from catalog.tiers import CLASS_BYTES, FAN_IN, LARGE, LARGE_BYTES, merge_due, size_class


def segment(size: int, number: int = 0) -> Segment:
    return Segment(f"{number}", size // 100, size, (), number)


def settle(live: list[Segment]) -> tuple[list[Segment], int]:
    """Merges until nothing is due; returns the list and the bytes that were written for it."""
    written = 0
    while group := merge_due(live):
        start = live.index(group[0])
        assert tuple(live[start : start + len(group)]) == group, "only neighbours are merged"
        assert len(group) > 1
        total = sum(s.bytes for s in group)
        assert total - group[-1].bytes < LARGE_BYTES, "a merge stops as soon as it is large"
        assert all(size_class(s) < LARGE for s in group)
        live[start : start + len(group)] = [segment(total, group[0].created_us)]
        written += total
    return live, written


def test_eight_of_a_size_become_one_and_seven_stay() -> None:
    seven = [segment(60_000, i) for i in range(FAN_IN - 1)]
    assert merge_due(seven) == ()
    assert merge_due([*seven, segment(60_000, 7)]) == (*seven, segment(60_000, 7))
    assert merge_due([]) == ()


def test_large_segments_are_left_alone() -> None:
    assert merge_due([segment(LARGE_BYTES, i) for i in range(100)]) == ()


def test_a_merge_stops_as_soon_as_its_result_is_large() -> None:
    """Also where many have gathered: no merge copies gigabytes."""
    many = [segment(100 * 1024**2, i) for i in range(8)]
    assert merge_due(many) == tuple(many[:2])


def test_small_ones_between_large_ones_are_merged_although_they_are_few() -> None:
    small = [segment(1000, 1), segment(1000, 2)]
    large = segment(LARGE_BYTES, 3)
    assert merge_due([*small, large]) == tuple(small)
    assert merge_due([*small]) == ()


SIZES: dict[str, Callable[[random.Random], int]] = {
    "steady": lambda _: 60_000,
    "tiny": lambda _: 3_000,
    "large": lambda _: 10 * 1024**2,
    "larger": lambda _: 31 * 1024**2,
    "mixed": lambda rng: int(3_000 * 10 ** (rng.random() * 4)),
    "bursts": lambda rng: 3_000 if rng.random() < 0.9 else 8 * 1024**2,
    "alternating": lambda rng: rng.choice([3_000, 600_000]),
    "huge ones between": lambda rng: 3_000 if rng.random() < 0.98 else LARGE_BYTES,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_live_table_stays_short_and_no_byte_is_rewritten_often(name: str) -> None:
    """Under 60 segments at any size; at most one rewrite per class for all but the smallest."""
    rng = random.Random(name)
    live: list[Segment] = []
    appended = rewritten = 0
    for number in range(3000):
        size = SIZES[name](rng)
        live.append(segment(size, number))
        appended += size
        live, written = settle(live)
        rewritten += written
        large = sum(1 for s in live if size_class(s) == LARGE)
        assert len(live) - 2 * large <= 41
        assert large <= sum(s.bytes for s in live) / LARGE_BYTES
    # Merges within the smallest class rewrite up to half a megabyte for every seven segments.
    assert rewritten <= appended * 5 + 3000 / (FAN_IN - 1) * CLASS_BYTES[0]


def test_the_defaults_live_table_has_few_segments() -> None:
    """A million rows of 150 bytes in segments of 500: what a flush interval holds."""
    live: list[Segment] = []
    for number in range(2000):
        live, _ = settle([*live, segment(75_000, number)])
    assert len(live) <= 25
