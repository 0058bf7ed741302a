"""What an ingest tells whoever watches it: plain calls, no library of measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from catalog.errors import CatalogError
from catalog.manifest import Manifest
from catalog.spec import TableName


@dataclass(frozen=True, slots=True)
class Committed:
    """One flush that landed.

    Attributes:
        rows: rows that went into files; 0: empty progress (rule 3).
        bytes: size of the files.
        seconds: from the first read of a segment to the publication.
    """

    rows: int
    bytes: int
    seconds: float


class Observer(Protocol):
    """Calls come from several threads and must return at once."""

    def consumed(self, table: TableName, rows: int, size_bytes: int) -> None:
        """A chunk became a segment of so many rows and bytes."""
        ...

    def rejected(self, table: TableName, counts: Mapping[str, int]) -> None:
        """A chunk had rejects: how many of each kind; ``tombstone``: passed over."""
        ...

    def published(self, table: TableName, manifest: Manifest, newest_us: int | None) -> None:
        """Rows became visible; ``newest_us`` is the youngest Kafka timestamp among them."""
        ...

    def committed(self, table: TableName, committed: Committed) -> None:
        """A flush landed and its manifest is published."""
        ...

    def troubled(self, table: TableName, trouble: CatalogError) -> None:
        """Something failed and is tried again."""
        ...

    def stopped(self, table: TableName, error: CatalogError) -> None:
        """The table stopped; it needs somebody."""
        ...


class Unobserved:
    """Nobody watches."""

    def consumed(self, table: TableName, rows: int, size_bytes: int) -> None:
        """Does nothing."""

    def rejected(self, table: TableName, counts: Mapping[str, int]) -> None:
        """Does nothing."""

    def published(self, table: TableName, manifest: Manifest, newest_us: int | None) -> None:
        """Does nothing."""

    def committed(self, table: TableName, committed: Committed) -> None:
        """Does nothing."""

    def troubled(self, table: TableName, trouble: CatalogError) -> None:
        """Does nothing."""

    def stopped(self, table: TableName, error: CatalogError) -> None:
        """Does nothing."""
