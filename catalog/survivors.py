"""Pruning asked again: what the very same filters left of the very same snapshot's files.

A statement's filters are kept with its plan, and a snapshot's entries with its manifests: so for a
statement that comes again, over a table that has not changed since, both are the same objects.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from cachetools import LRUCache

from catalog.prune import surviving
from catalog.remembered import Remembered

#: Sets of filters that are remembered for one snapshot: the statements of some dashboards.
_MAX_SCANS = 64
#: More files than these are asked for anew: reading them takes far longer than pruning.
_MAX_FILES = 256


class _Answers:
    """What was left of one snapshot's files; any thread. One lock.

    An answer's filters are held with it, so that their number is no other's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: LRUCache[int, tuple[object, pa.Table]] = LRUCache(_MAX_SCANS)

    def get(self, scans: object) -> pa.Table | None:
        with self._lock:
            found = self._kept.get(id(scans))
            return None if found is None else found[1]

    def put(self, scans: object, kept: pa.Table) -> None:
        with self._lock:
            self._kept[id(scans)] = scans, kept


@Remembered
def _answers(_: pa.Table) -> _Answers:
    return _Answers()


def survivors(entries: pa.Table, scans: Sequence[Sequence[Any]]) -> pa.Table:
    """As :func:`catalog.prune.surviving`, for filters that nobody changes."""
    known = _answers(entries)
    found = known.get(scans)
    if found is None:
        found = surviving(entries, scans)
        if found is not entries and found.num_rows <= _MAX_FILES:
            known.put(scans, found)
    return found
