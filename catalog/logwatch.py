"""What looks at the log mean over time: open transactions, and retention that comes close."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from catalog.offsets import Offsets, TopicPartition
from catalog.records import LogBounds

#: From this share of the log on, not being committed is a warning: the other half of what the
#: broker keeps is the time that is left to mend it.
CLOSE_SHARE = 0.5


def uncommitted_share(bounds: LogBounds, committed: int) -> float | None:
    """The share of what the log holds that history lacks; above 1: records are gone unread.

    None where nothing was ever deleted (all of it may be kept for ever), or nothing is held.
    """
    if bounds.begin == 0 or bounds.end <= bounds.begin:
        return None
    return max(0, bounds.end - committed) / (bounds.end - bounds.begin)


class LogWatch:
    """The newest look at every partition. Belongs to one thread.

    Args:
        patience_s: how long history may lack :data:`CLOSE_SHARE` of the log before that is a
            warning: flushes come by age, and a log of a few records is nearly all tail just before
            one.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_us = int(patience_s * 1e6)
        self._seen: dict[TopicPartition, LogBounds] = {}
        self._close_us: dict[TopicPartition, int] = {}

    def look(
        self, found: Iterable[LogBounds], committed: Offsets, now_us: int
    ) -> tuple[LogBounds, ...]:
        """All partitions as they were last seen, sorted.

        Args:
            found: what the brokers said now; a partition without a leader is not among it.
            committed: the positions that history records.
            now_us: microseconds since the epoch.
        """
        for bounds in found:
            tp = bounds.topic, bounds.partition
            self._seen[tp] = replace(
                bounds,
                held_us=self._held(bounds, self._seen.get(tp), now_us),
                close=self._is_close(bounds, committed.at(tp), now_us),
            )
        return tuple(self._seen[tp] for tp in sorted(self._seen))

    @staticmethod
    def _held(now: LogBounds, before: LogBounds | None, now_us: int) -> int | None:
        if now.stable >= now.end:
            return None
        if before is not None and before.stable == now.stable and before.held_us is not None:
            return before.held_us
        return now_us

    def _is_close(self, bounds: LogBounds, committed: int, now_us: int) -> bool:
        tp = bounds.topic, bounds.partition
        if (uncommitted_share(bounds, committed) or 0.0) < CLOSE_SHARE:
            self._close_us.pop(tp, None)
            return False
        return now_us - self._close_us.setdefault(tp, now_us) >= self._patience_us
