"""Keeps out of processes what does them no good: pandas and Polars, and huge pages."""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Libraries of data frames, which others import where they find them.
_DATA_FRAMES = frozenset({"pandas", "polars"})


class _NoDataFrames(importlib.abc.MetaPathFinder):
    """Says that there is neither pandas nor Polars."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _DATA_FRAMES:
            raise ModuleNotFoundError(f"{fullname} is left out of this process", name=fullname)
        return None


def without_data_frames() -> None:
    """From here on, this process can import neither pandas nor Polars.

    pyarrow imports pandas, where it is installed, as soon as a scalar is made, and datafusion makes
    one when it is imported: 1.1 s and 60 MB at every (re)start of the server (measured: 1.5 s
    against 0.4 s), for nothing. ADBC imports both. Polars takes SIGINT over in a way that lets the
    kernel go on with what the main thread waits for (SA_RESTART; pola-rs/polars issue 21739):
    Ctrl-C would be heard only when the wait is over. A process that has one already keeps it.
    """
    sys.meta_path.insert(0, _NoDataFrames())


def without_huge_pages() -> None:
    """From here on, the engine's memory has pages of the usual size, unless the variable is set.

    To be called before the engine is imported. It reads local files on threads of their own, as
    many as a statement has files (to 512), and its allocator keeps for each of them what another
    thread has freed; in pages of 2 MiB, and cleared anew. A hundred aggregates over 10 files of
    2 MB: 300 to 400 MiB instead of 670; one over 5 M rows takes half the processor time, a join
    three quarters (DataFusion 55.0). ``MIMALLOC_PURGE_DELAY=0`` beside it takes up to twice the
    processor's time and is not worth it: the memory goes back when the threads end, ten seconds
    after their work.
    """
    os.environ.setdefault("MIMALLOC_ALLOW_THP", "0")
