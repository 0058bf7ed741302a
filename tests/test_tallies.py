"""Tallies: what commits add up to, whatever the order and the chunks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.tallies import Tallies, Tally, checksum, tallies_of

PLACES = [("a", 0), ("a", 1), ("b", 0)]
ROWS = st.sets(st.tuples(st.sampled_from(PLACES), st.integers(0, 2**62)), max_size=40)


def table(rows: list[tuple[tuple[str, int], int]]) -> pa.Table:
    columns = {
        "t": pa.array([topic for (topic, _), _ in rows], pa.string()),
        "p": pa.array([partition for (_, partition), _ in rows], pa.int32()),
        "o": pa.array([offset for _, offset in rows], pa.int64()),
    }
    return pa.table(columns)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 40))
def test_the_sum_of_commits_is_the_sum_of_the_table(
    rows: set[tuple[tuple[str, int], int]], random: object, cut: int
) -> None:
    """In any order, cut anywhere: what a table's snapshots add up to can be compared with it."""
    mixed = sorted(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined] # hypothesis's Random
    begun = Tallies({place: Tally(0) for place in PLACES})
    parts = [table(mixed[:cut]), table(mixed[cut:])]
    added = begun
    for part in parts:
        added = added.plus(tallies_of(part, "t", "p", "o"))
    assert added == begun.plus(tallies_of(pa.concat_tables(parts), "t", "p", "o"))
    for place in PLACES:
        mine = np.array([offset for at, offset in rows if at == place], np.int64)
        assert (added[place].rows, added[place].sum) == (len(mine), checksum(mine))
    assert Tallies.from_json(added.to_json()) == added


def test_one_offset_for_another_is_another_sum() -> None:
    sums = {checksum(np.array([1, 2, n], np.int64)) for n in range(10_000)}
    assert len(sums) == 10_000


def test_lost_ranges_that_touch_become_one() -> None:
    tally = Tally(0, lost=((5, 7),)).plus(Tally(0, lost=((1, 2),))).plus(Tally(0, lost=((7, 9),)))
    assert tally.lost == ((1, 2), (5, 9))


def test_a_place_with_a_position_and_without_a_tally_is_older() -> None:
    begun = Tallies({("a", 0): Tally(3)}).begun_at({("a", 0): 9, ("a", 1): 5}, [("b", 0)])
    assert begun == Tallies(
        {("a", 0): Tally(3), ("a", 1): Tally(5, older=True), ("b", 0): Tally(0)}
    )
