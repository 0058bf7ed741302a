"""The lake as reading sees it, and its heads, remembered for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa

from catalog.asof import Past
from catalog.errors import TableNotFound
from catalog.spec import TableName

_NOTHING: Mapping[TableName, str | None] = MappingProxyType({})


def by_name(listing: Mapping[TableName, str | None]) -> dict[TableName, str | None]:
    """A listing sorted by namespace and table.

    By a key: comparing ten thousand dataclasses takes ten times as long.
    """
    return dict(sorted(listing.items(), key=lambda item: (item[0].namespace, item[0].table)))


class RunsHead(Protocol):
    """The part of ``lake.Head`` that a pin is made of; each means what it means there."""

    @property
    def metadata_location(self) -> str:
        """The metadata file that names the snapshot."""
        ...

    @property
    def table_uuid(self) -> str:
        """The table's identity."""
        ...

    @property
    def snapshot_id(self) -> int | None:
        """None: no snapshot yet."""
        ...

    @property
    def schema_id(self) -> int:
        """Iceberg id of the current schema."""
        ...


class Runs(Protocol):
    """The part of ``lake.Lake`` that reading needs; each method means what it means there."""

    def listing(self) -> Mapping[TableName, str | None]:
        """Every table, and its metadata file where the catalog tells it at once."""
        ...

    def head(self, name: TableName) -> RunsHead:
        """A fresh look at a table."""
        ...

    def entries(
        self,
        name: TableName,
        snapshot_id: int | None,
        metadata_location: str,
        schema_id: int | None = None,
        *,
        declared: pa.Schema | None = None,
    ) -> pa.Table:
        """The live data files of a snapshot."""
        ...

    def arrow_schema(
        self, name: TableName, metadata_location: str, schema_id: int | None = None
    ) -> pa.Schema:
        """The columns by one of a table's schemas."""
        ...

    def past(self, name: TableName, metadata_location: str, as_of: str) -> Past:
        """An older version."""
        ...

    def only_fed(
        self, name: TableName, metadata_location: str, since: int | None, until: int | None
    ) -> bool:
        """Whether two versions differ by rows of the log alone."""
        ...

    def metadata_table(
        self, name: TableName, which: str, snapshot_id: int | None, metadata_location: str
    ) -> pa.Table:
        """What Iceberg knows of a version, for people."""
        ...


class Heads:
    """Heads of plain tables, and the list of tables, each at most ``refresh_s`` old.

    One thread asks the catalog, others wait for its answer. ``_lock`` guards the maps.

    Args:
        lake: the catalog.
        refresh_s: greatest age of an answer, in seconds; 0: each call asks.
    """

    def __init__(self, lake: Runs, refresh_s: float) -> None:
        self._lake = lake
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._asking: dict[TableName | None, threading.Lock] = {}
        self._found: dict[TableName, tuple[float, RunsHead]] = {}
        self._listing: tuple[float, Mapping[TableName, str | None]] = (float("-inf"), _NOTHING)

    def get(self, name: TableName) -> RunsHead:
        """The table's head.

        Raises:
            TableNotFound, LakeUnavailable: as they say; nothing is remembered of it.
        """
        with self._turn(name):
            found = self._found.get(name)
            if found and self._is_fresh(found[0]):
                return found[1]
            asked_s = time.monotonic()
            try:
                head = self._lake.head(name)
            except TableNotFound:
                with self._lock:  # clients make names up without end
                    self._asking.pop(name, None)
                    self._found.pop(name, None)
                raise
            with self._lock:
                self._found[name] = (asked_s, head)
            return head

    def known(self, name: TableName) -> RunsHead | None:
        """The head that was last seen, of any age."""
        found = self._found.get(name)
        return found[1] if found else None

    def listing(self) -> Mapping[TableName, str | None]:
        """All tables of the catalog, sorted; with their metadata files where it tells them at once.

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        with self._turn(None):
            if self._is_fresh(self._listing[0]):
                return self._listing[1]
            asked_s = time.monotonic()
            found = self._lake.listing()
            self._listing = (asked_s, MappingProxyType(by_name(found)))
            return self._listing[1]

    def _is_fresh(self, asked_s: float) -> bool:
        return time.monotonic() - asked_s < self._refresh_s

    def _turn(self, name: TableName | None) -> threading.Lock:
        with self._lock:
            return self._asking.setdefault(name, threading.Lock())
