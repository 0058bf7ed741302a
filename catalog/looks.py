"""One reading's looks at the log: begun and taken by the thread that polls, which never waits."""

from __future__ import annotations

import logging
import time

from catalog.kafka import TopicReader
from catalog.kafka_client import name_of
from catalog.logbounds import BoundsLook
from catalog.logwatch import LogWatch
from catalog.offsets import Offsets, TopicPartition
from catalog.records import LogBounds
from catalog.spec import TableSpec

_log = logging.getLogger(__name__)

#: Flushes by age that may be missed before the share of the log that they leave is a warning.
PATIENCE_FLUSHES = 2


class Looks:
    """Looks at the bounds of the log. Belongs to the thread that polls."""

    def __init__(self, spec: TableSpec, reader: TopicReader) -> None:
        self._name, self._reader = spec.name, reader
        self._watch = LogWatch(PATIENCE_FLUSHES * spec.flush_age_s)
        self._under_way: BoundsLook | None = None
        self._warned: frozenset[TopicPartition] = frozenset()

    def begin(self) -> None:
        """Asks, unless an answer is still awaited."""
        if self._under_way is None:
            self._under_way = self._reader.look()

    def take(self, committed: Offsets) -> tuple[LogBounds, ...] | None:
        """What the log holds of every partition; None while no look is over.

        Args:
            committed: the positions that history records.
        """
        if self._under_way is None or not self._under_way.over:
            return None
        found, self._under_way = self._under_way.found(), None
        log = self._watch.look(found, committed, time.time_ns() // 1000)
        self._warn(log, committed)
        return log

    def _warn(self, log: tuple[LogBounds, ...], committed: Offsets) -> None:
        close = {(bounds.topic, bounds.partition): bounds for bounds in log if bounds.close}
        for tp in close.keys() - self._warned:
            _log.warning(
                "retention_is_close table=%s partition=%s begin=%d committed=%d end=%d",
                self._name,
                name_of(tp),
                close[tp].begin,
                committed.at(tp),
                close[tp].end,
            )
        self._warned = frozenset(close)
