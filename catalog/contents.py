"""Whether rows say what their records say: sums of row hashes, by stretches of offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from catalog.decode import Decoder
from catalog.heads import Head
from catalog.lake import FileRequest, Lake
from catalog.offset_files import DataFile
from catalog.offsets import TopicPartition
from catalog.records import Chunk
from catalog.rowhash import UInt64s, row_hashes
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.seen import Numbers
from catalog.spec import TableName

#: Half-open ranges of offsets, one per partition: shape (partitions, 2).
Pairs: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int64]]
#: Offsets of one stretch, as a power of two: a difference is named to 65,536 offsets.
STRETCH_BITS = 16
#: Bits of a key that hold the stretch; the partition's number stands above them.
_KEY_BITS = 48


class Contents:
    """Two sums per stretch: of the log's records, decoded, and of the table's rows.

    Args:
        decoder: of the table; its rejects are no rows.
        columns: what is compared.
        places: partitions by number.
    """

    def __init__(
        self, decoder: Decoder, columns: Sequence[str], places: Sequence[TopicPartition]
    ) -> None:
        self._decoder = decoder
        self._columns = tuple(columns)
        self._numbers = Numbers(places)
        self._log: dict[int, int] = {}
        self._table: dict[int, int] = {}

    def add_chunk(self, chunk: Chunk, held: Pairs) -> None:
        """Decodes records of the log and adds those in ``held``.

        Args:
            chunk: as it was read.
            held: per partition the half-open range of offsets that is compared.

        Raises:
            SchemaChanged, SchemaUnknown, RegistryUnavailable: they cannot be decoded.
        """
        if len(chunk.values):
            self._add(self._log, self._decoder.decode(chunk).batch, held)

    def add_rows(
        self, lake: Lake, name: TableName, head: Head, files: Sequence[DataFile], held: Pairs
    ) -> None:
        """Reads whole rows of the files that may hold an offset in ``held``."""
        wanted = (*dict.fromkeys((*self._columns, TOPIC, PARTITION, OFFSET)),)
        for file in files:
            met = any(file.meets(int(first), int(next_)) for first, next_ in held)
            if head.snapshot_id is None or not met:
                continue
            request = FileRequest(
                head.metadata_location, head.snapshot_id, (file.path,), head.schema_id, wanted
            )
            for batch in lake.read_files(name, request):
                self._add(self._table, batch, held)

    def differences(self) -> Mapping[int, list[tuple[int, int]]]:
        """Per partition's number the stretches, half-open, whose rows are not the records."""
        found: dict[int, list[tuple[int, int]]] = {}
        for key in sorted({*self._log, *self._table}):
            if self._log.get(key, 0) != self._table.get(key, 0):
                stretch = key & (2**_KEY_BITS - 1)
                pair = (stretch << STRETCH_BITS, (stretch + 1) << STRETCH_BITS)
                found.setdefault(key >> _KEY_BITS, []).append(pair)
        return found

    def _add(self, sums: dict[int, int], batch: pa.RecordBatch, held: Pairs) -> None:
        places = self._numbers.of(batch)
        offsets = batch.column(OFFSET).to_numpy(zero_copy_only=False)
        bounds = np.concatenate((held, np.zeros((1, 2), np.int64)))[places]
        mine = (offsets >= bounds[:, 0]) & (offsets < bounds[:, 1])
        if not mine.any():
            return
        keys = (places[mine] << _KEY_BITS) + (offsets[mine] >> STRETCH_BITS)
        hashes: UInt64s = row_hashes(batch, self._columns)[mine]
        known, at = np.unique(keys, return_inverse=True)
        totals = np.zeros(len(known), np.uint64)
        np.add.at(totals, at, hashes)
        for key, total in zip(known.tolist(), totals.tolist(), strict=True):
            sums[key] = (sums.get(key, 0) + total) % 2**64
