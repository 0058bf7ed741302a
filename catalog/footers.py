"""Which columns data files have: their footers, read once each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache
from pyiceberg.io import FileIO

#: Files whose columns are remembered; most share their schema's few distinct objects.
_MAX_FILES = 200_000
#: Footers asked of a store at the same time: each costs a round trip or two.
_THREADS = 16


class Footers:
    """The columns of files, with the field ids that stand in them; any thread."""

    def __init__(self, max_files: int = _MAX_FILES) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[str, pa.Schema] = LRUCache(max_files)
        self._shared: dict[bytes, pa.Schema] = {}

    def schemas(self, io: FileIO, paths: Sequence[str]) -> dict[str, pa.Schema]:
        """The columns of every file.

        Raises:
            OSError: a file cannot be read (the caller names it).
        """
        with self._lock:
            found = {path: known for path in paths if (known := self._known.get(path)) is not None}
        missing = [path for path in paths if path not in found]
        if missing:
            with ThreadPoolExecutor(min(_THREADS, len(missing))) as pool:
                read = dict(zip(missing, pool.map(lambda p: _schema(io, p), missing), strict=True))
            with self._lock:
                for path, schema in read.items():
                    found[path] = self._shared.setdefault(schema.serialize().to_pybytes(), schema)
                    self._known[path] = found[path]
        return found


def _schema(io: FileIO, path: str) -> pa.Schema:
    with io.new_input(path).open() as source:
        return pq.read_schema(source).remove_metadata()
