"""What looks at the log mean over time: when a transaction is old, and when retention is close."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

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


class Answers:
    """An admin client that answers as told, one bound after the other; None: it never does."""

    def __init__(self, *bounds: tuple[int | Exception | None, ...]) -> None:
        self._bounds = list(bounds)

    def list_offsets(self, asked: dict[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        """A future per partition."""
        answers: dict[Any, Future[Any]] = {}
        for place, said in zip(asked, self._bounds.pop(0), strict=True):
            answers[place] = Future()
            if isinstance(said, Exception):
                answers[place].set_exception(said)
            elif said is not None:
                answers[place].set_result(type("Found", (), {"offset": said}))
        return answers


def test_a_partition_without_a_leader_is_not_part_of_what_a_look_finds() -> None:
    """The client says so in three ways: by an error, by a number below zero, or by nothing."""
    lost = KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    admin = Answers((1, 0, 0, 0), (5, -1001, 0, 5), (9, 0, lost, None))
    look = BoundsLook(admin, [("t", p) for p in range(4)], 0.0)  # type: ignore[arg-type] # as an admin client
    assert look.over  # its time is up
    assert look.found() == (LogBounds("t", 0, 1, 5, 9),)
    assert not BoundsLook(Answers(*[(None,)] * 3), [("t", 0)], 60.0).over  # type: ignore[arg-type] # the same
