"""The checker bites: it says so when a row is doubled, missing, torn or foreign, or time goes back.

Rule 16: a version is an exact prefix of the log per partition; this is what decides it.
"""

from __future__ import annotations

import numpy as np
import pytest
from checker import (
    OPEN,
    Answer,
    Digest,
    Log,
    Session,
    Totals,
    check_answer,
    check_complete,
    check_digest,
    check_window,
    merge_logs,
)
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = ("trades", 0)
#: offset 2 and 5 hold control records: gaps that are no gaps
RECORDS = {0: 10, 1: 11, 3: 13, 4: 14, 6: 16}
LOG = {HERE: Log.of(RECORDS)}


def answer(*rows: tuple[int, int], place: tuple[str, int] = HERE) -> Answer:
    offsets = np.array([offset for offset, _ in rows], np.int64)
    hashes = np.array([content for _, content in rows], np.uint64)
    return Answer({place: (offsets, hashes)})


@pytest.mark.parametrize("length", range(len(RECORDS) + 1))
def test_every_prefix_passes_in_any_order(length: int) -> None:
    rows = list(RECORDS.items())[:length]
    assert check_answer(answer(*reversed(rows)), LOG) == []


@pytest.mark.parametrize(
    ("rows", "kind", "count", "example"),
    [
        ([(0, 10), (1, 11), (1, 11)], "doubled", 1, 1),
        ([(0, 10), (0, 10), (0, 10)], "doubled", 2, 0),
        ([(0, 10), (3, 13)], "missing", 1, 1),
        ([(1, 11), (3, 13)], "missing", 1, 0),
        ([(6, 16)], "missing", 4, 0),
        ([(0, 10), (1, 99)], "torn", 1, 1),
        ([(0, 10), (1, 11), (2, 12)], "foreign", 1, 2),
        ([(0, 10), (7, 17)], "foreign", 1, 7),
    ],
)
def test_a_wrong_answer_is_named(
    rows: list[tuple[int, int]], kind: str, count: int, example: int
) -> None:
    (fault,) = check_answer(answer(*rows), LOG)
    assert (fault.kind, fault.count, fault.example) == (kind, count, (example,))
    assert str(fault).startswith(f"{count} {kind} in trades[0]")


def test_rows_of_an_unknown_partition_are_foreign() -> None:
    (fault,) = check_answer(answer((0, 10), place=("trades", 7)), LOG)
    assert fault.kind == "foreign"


def test_several_faults_are_all_named() -> None:
    kinds = {fault.kind for fault in check_answer(answer((1, 99), (1, 99), (2, 5)), LOG)}
    assert kinds == {"doubled", "torn", "foreign", "missing"}


def test_a_session_may_stand_still_and_grow_but_not_go_back() -> None:
    """Rule 20: a session's positions never go back."""
    session = Session()
    assert session.check(answer((0, 10), (1, 11)).ends) == []
    assert session.check(answer((0, 10), (1, 11)).ends) == []
    assert session.check(answer((0, 10), (1, 11), (3, 13)).ends) == []
    (fault,) = session.check(answer((0, 10)).ends)
    assert (fault.kind, fault.example) == ("regressed", (4, 1))


def test_a_partition_that_vanishes_from_a_session_has_gone_back() -> None:
    session = Session()
    assert session.check(answer((0, 10)).ends) == []
    (fault,) = session.check(Answer({}).ends)
    assert fault.kind == "regressed"


TOTALS = Totals.of(np.array(list(RECORDS), np.int64), np.array(list(RECORDS.values()), np.int64))


def digest(*rows: tuple[int, int]) -> Digest:
    offsets = [offset for offset, _ in rows]
    return Digest(len(rows), max(offsets), (sum(offsets), sum(content for _, content in rows)))


@pytest.mark.parametrize("length", range(1, len(RECORDS) + 1))
def test_the_digest_of_every_prefix_passes(length: int) -> None:
    assert check_digest(HERE, digest(*list(RECORDS.items())[:length]), TOTALS) == []


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([(0, 10), (1, 11), (1, 11)], "doubled"),
        ([(0, 10), (3, 13)], "missing"),
        ([(0, 10), (0, 10), (3, 13)], "torn"),  # one doubled, one missing: the sums tell
        ([(0, 10), (1, 12)], "torn"),
        ([(0, 10), (2, 12)], "foreign"),
        ([(0, 10), (9, 12)], "foreign"),
    ],
)
def test_a_wrong_digest_is_named(rows: list[tuple[int, int]], kind: str) -> None:
    (fault,) = check_digest(HERE, digest(*rows), TOTALS)
    assert fault.kind == kind


def test_a_digest_of_an_unknown_partition_is_foreign() -> None:
    (fault,) = check_digest(HERE, digest((0, 10)), None)
    assert fault.kind == "foreign"


def test_a_window_is_a_prefix_of_the_rest_of_the_log() -> None:
    rest = {HERE: [(2, OPEN)]}
    assert check_window(answer((3, 13), (4, 14)), LOG, rest) == []
    (fault,) = check_window(answer((4, 14)), LOG, rest)
    assert (fault.kind, fault.example) == ("missing", (3,))
    (fault,) = check_window(answer((1, 11), (3, 13)), LOG, rest)
    assert fault.kind == "foreign"


def test_a_window_may_have_several_ranges_that_overlap() -> None:
    ranges = {HERE: [(4, OPEN), (1, 3), (0, 2)]}
    assert check_window(answer((0, 10), (1, 11), (4, 14)), LOG, ranges) == []
    (fault,) = check_window(answer((0, 10), (4, 14)), LOG, ranges)
    assert (fault.kind, fault.example) == ("missing", (1,))
    (fault,) = check_window(answer((0, 10), (1, 11), (3, 13)), LOG, ranges)
    assert (fault.kind, fault.example) == ("foreign", (3,))


def test_the_end_wants_every_record() -> None:
    assert check_complete(answer(*RECORDS.items()), LOG) == []
    (fault,) = check_complete(answer((0, 10), (1, 11)), LOG)
    assert (fault.kind, fault.count, fault.example) == ("missing", 3, (3,))
    (fault,) = check_complete(Answer({}), LOG)
    assert (fault.kind, fault.count) == ("missing", 5)


def test_logs_of_several_producers_merge_in_the_order_of_the_log() -> None:
    parts = [{HERE: Log.of({0: 10, 3: 13})}, {HERE: Log.of({1: 11, 4: 14, 6: 16})}]
    merged = merge_logs(parts)[HERE]
    assert merged.offsets.tolist() == list(RECORDS)
    assert merged.hashes.tolist() == list(RECORDS.values())


@settings(deadline=None, derandomize=True)
@given(
    records=st.dictionaries(st.integers(0, 40), st.integers(0, 2**63), min_size=1),
    data=st.data(),
)
def test_exactly_the_prefixes_pass(records: dict[int, int], data: st.DataObject) -> None:
    """Against a definition in plain Python, on answers made of rows of the log and strangers."""
    row = st.one_of(
        st.sampled_from(sorted(records.items())),
        st.tuples(st.integers(0, 41), st.integers(0, 2**63)),
    )
    length = data.draw(st.integers(0, len(records)))
    sound = st.permutations(sorted(records.items())[:length])
    rows = data.draw(st.one_of(sound, st.lists(row, max_size=12)))
    prefix = sorted(records.items())[: len(rows)]
    judged = check_answer(answer(*rows), {HERE: Log.of(records)})
    assert (judged == []) == (sorted(rows) == prefix)
