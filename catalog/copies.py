"""A bounded folder of local files that are made once and read many times.

A file's key says all that its content depends on, so a file never changes and is never stale. The
folder belongs to one process. What statements hold stays; of the rest, the longest unused goes
first.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from catalog.errors import CopiesFull

#: Bytes of the folder where the settings say nothing.
DEFAULT_BYTES = 16 * 1024**3
#: Keys that are remembered, those without a file included.
_MAX_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Copy:
    """What was made for a key.

    Attributes:
        path: the local file; None: none was needed.
        rows: in it; or, without a file, whatever its maker wants to remember.
        size_bytes: of the file.
    """

    path: Path | None
    rows: int
    size_bytes: int


@dataclass(slots=True)
class _Kept:
    copy: Copy
    holders: int


#: Makes a file at a path that may take so many bytes.
Make = Callable[[Path, int], Copy]


class Copies:
    """The folder; any thread.

    Invariant, under ``_lock``: a file that somebody holds is in ``_kept`` and on disk, and
    ``_bytes`` is what all files of ``_kept`` take.

    Args:
        folder: where to put files, emptied by :meth:`close`; None: a new one when first needed.
        max_bytes: bound on all files together. A file that is being made may pass it by one row
            group before it is given up.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = DEFAULT_BYTES) -> None:
        self._lock = threading.Lock()
        self._folder = folder
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What the files take."""
        return self._bytes

    @contextmanager
    def hold(self, key: str, make: Make) -> Iterator[Copy]:
        """The file of ``key``, made if need be, which stays until the block ends.

        Raises:
            CopiesFull: it does not fit beside what other statements hold, or on the disk.
        """
        kept = self._held(key) or self._made(key, make)
        try:
            yield kept.copy
        finally:
            with self._lock:
                kept.holders -= 1

    def close(self) -> None:
        """Removes the folder with all files; idempotent."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _held(self, key: str) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                kept.holders += 1
            return kept

    def _made(self, key: str, make: Make) -> _Kept:
        """One thread makes it, the others wait; where it fails, the next one tries."""
        with self._lock:
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            if (kept := self._held(key)) is not None:
                return kept
            path = self._place(key)
            try:
                copy = make(path, self._room())
                kept = self._keep(key, copy)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise CopiesFull(
                    f"the folder for rows without the deleted ones cannot be written "
                    f"({error.strerror}): make room in limits.spill_folder"
                ) from error
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        with self._lock:
            self._making.pop(key, None)
        return kept

    def _place(self, key: str) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="k2-copies-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._folder / f"{sha256(key.encode()).hexdigest()[:32]}.parquet"

    def _room(self) -> int:
        with self._lock:
            held = sum(kept.copy.size_bytes for kept in self._kept.values() if kept.holders)
            return self._max_bytes - held

    def _keep(self, key: str, copy: Copy) -> _Kept:
        with self._lock:
            self._evict(self._max_bytes - copy.size_bytes)
            if self._bytes + copy.size_bytes > self._max_bytes:
                raise full(self._max_bytes)
            kept = self._kept[key] = _Kept(copy, holders=1)
            self._bytes += copy.size_bytes
            return kept

    def _evict(self, target_bytes: int) -> None:
        for key, kept in list(self._kept.items()):
            if self._bytes <= target_bytes and len(self._kept) < _MAX_KEPT:
                return
            if kept.holders == 0:
                if kept.copy.path is not None:
                    with suppress(OSError):  # gone already: all that matters
                        kept.copy.path.unlink()
                self._bytes -= kept.copy.size_bytes
                del self._kept[key]


def full(limit_bytes: int) -> CopiesFull:
    """What is said where a statement needs more than the folder may hold."""
    return CopiesFull(
        f"the data files with deleted rows that running statements read take more than "
        f"{limit_bytes >> 20} MiB without those rows: compact the table, filter more, or raise "
        "limits.copies_bytes"
    )
