"""What looks at the log mean over time: when a transaction is old, and when retention is close."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition
from confluent_kafka.admin import ListOffsetsResultInfo

from catalog.logbounds import BoundsLook
from catalog.logwatch import LogWatch, uncommitted_share
from catalog.offsets import Offsets
from catalog.records import LogBounds

SECOND_US = 1_000_000


def at(position: int) -> Offsets:
    return Offsets({("t", 0): position})


@pytest.mark.parametrize(
    ("begin", "end", "committed", "share"),
    [
        (0, 100, 0, None),  # nothing was ever deleted
        (40, 40, 40, None),  # nothing is held
        (10, 110, 110, 0.0),
        (10, 110, 60, 0.5),
        (10, 110, 10, 1.0),
        (10, 110, 0, 1.1),  # ten are gone unread
        (10, 110, 300, 0.0),
    ],
)
def test_the_share_of_the_log_that_history_lacks(
    begin: int, end: int, committed: int, share: float | None
) -> None:
    """RELIABILITY row 10: the distance between the committed position and the log's start."""
    assert uncommitted_share(LogBounds("t", 0, begin, end, end), committed) == share


def test_an_open_transaction_is_as_old_as_the_stable_offset_stands() -> None:
    """A stable offset that moves is many short transactions, not a long one."""
    watch = LogWatch(60)
    seen = [
        watch.look([LogBounds("t", 0, 0, stable, end)], at(0), now_us)[0].held_us
        for stable, end, now_us in [
            (5, 5, 1),
            (5, 7, 2),
            (5, 9, 3),
            (8, 9, 4),
            (9, 9, 5),
            (9, 10, 6),
        ]
    ]
    assert seen == [None, 2, 2, 4, None, 6]


def test_retention_is_close_when_half_of_the_log_stays_uncommitted() -> None:
    """Not between two flushes: a short log is nearly all tail just before one."""
    watch = LogWatch(10)

    def close(committed: int, now_s: int) -> bool:
        bounds = LogBounds("t", 0, 100, 200, 200)
        return watch.look([bounds], at(committed), now_s * SECOND_US)[0].close

    assert [close(150, 0), close(150, 9), close(151, 9), close(150, 9)] == [False] * 4
    assert [close(140, 18), close(130, 19), close(120, 25)] == [False, True, True]
    assert not close(160, 26)


def test_a_partition_that_nobody_answers_for_stays_as_it_was() -> None:
    watch = LogWatch(10)
    both = [LogBounds("t", p, 1, 2, 3) for p in (1, 0)]
    first = watch.look(both, Offsets(), 1)
    assert [bounds.partition for bounds in first] == [0, 1]
    second = watch.look([LogBounds("t", 0, 1, 4, 4)], Offsets(), 2)
    assert [bounds.end for bounds in second] == [4, 3]


def test_a_partition_without_an_answer_is_left_out() -> None:
    """A connection that is lost under the question leaves OFFSET_INVALID and no error behind."""

    class Admin:
        def list_offsets(self, wish: dict[TopicPartition, object], **_: object) -> object:
            answers = {}
            for place in wish:
                future: Future[ListOffsetsResultInfo] = Future()
                offset = OFFSET_INVALID if place.partition else 7
                future.set_result(ListOffsetsResultInfo(offset, -1, -1))
                answers[place] = future
            return answers

    look = BoundsLook(Admin(), [("t", 0), ("t", 1)], 1.0)  # type: ignore[arg-type] # what it asks
    assert look.found() == (LogBounds("t", 0, 7, 7, 7),)
