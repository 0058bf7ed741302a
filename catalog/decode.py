"""Payload chunk → record batch and rejects, at the speed of a block.

A chunk is read as one block (``catalog.blocks``) of the schema that its first value names. If the
nonces do not prove that every value is exactly one such record, the few that cannot be are left out
of the block (``catalog.salvage``). What is left is split by a vectorised compare of the frames, and
each schema's values are read in the same way; from what then proves nothing the good records are
saved. So no row is ever made of another record's bytes, and a bad record costs itself only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog.avro import RecordOf
from catalog.blocks import Block, BlockReader, Joined, Scratch
from catalog.columns import Fault, convert_all
from catalog.declaration import bare, by_schema
from catalog.declaration import schema_id as declared_id
from catalog.errors import SchemaChanged, SchemaRefused, SchemaUnknown
from catalog.evolution import Resolver, Sources, declaration, evolved
from catalog.faults import reach
from catalog.fills import default_array
from catalog.frames import Bad, chosen, rows_of, split
from catalog.records import Chunk, Decoded, Reject, RejectKind
from catalog.registry import SchemaRegistry
from catalog.salvage import Salvage, all_but_suspects
from catalog.schemas import (
    OFFSET,
    PARTITION,
    TOPIC,
    DeclaredSchema,
    metadata_schema,
    record_of,
    topic_record,
)
from catalog.spec import TableSpec
from catalog.wire import FRAME_BYTES

__all__ = ["Decoded", "Decoder"]

#: Schema ids that one chunk may ask the registry for in vain: random bytes would ask for each.
_MAX_UNKNOWN_IDS = 8

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Writer:
    """What is compiled for one schema id."""

    record: RecordOf
    frame: bytes
    reader: BlockReader
    sources: Sources


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows that one schema's records became.

    Attributes:
        columns: the topic's columns of the declared schema.
        rows: the chunk's row of each, ascending.
    """

    columns: list[pa.Array]
    rows: _Rows
    bad: tuple[Bad, ...] = ()


class _Grown(Exception):
    """The declaration holds more now: what was decoded of the chunk follows the old one."""


class Decoder:
    """Decodes the chunks of one table; used by one thread at a time.

    Holds one file in memory, what was compiled for the schema ids seen, and the declaration, which
    grows with the schemas that records carry; nothing else survives a call.

    Args:
        declared: the schema that the table was declared by.
        registry: where the records' schemas come from.
        spec: the table's declaration in the settings.
        declaration: with ids, what it goes on with, grown to hold ``declared``; None: that alone.
        next_id: new columns are numbered from here on.
        grows: whether it grows with the records' schemas, too.

    Raises:
        SchemaChanged: the declaration cannot become one that holds ``declared``.
    """

    def __init__(
        self,
        declared: DeclaredSchema,
        registry: SchemaRegistry,
        spec: TableSpec,
        declaration: pa.Schema | None = None,
        next_id: int = 1,
        *,
        grows: bool = False,
    ) -> None:
        self._registry = registry
        self._spec = spec
        self._metadata = metadata_schema(key=spec.key, headers=spec.headers)
        self._first = declared
        self._grows = declaration is not None
        self._declaration = declaration or first_declaration(declared, spec)
        self._next_id = next_id
        self._scratch = Scratch()
        self._writers: dict[int, _Writer] = {}
        self._refused: dict[int, SchemaChanged] = {}
        with suppress(_Grown):  # compiled at its first record, then
            self._writer(declared.schema_id)
        self._grows = grows
        # Whether the last chunk held several schemas, or a block that was refused: then the next
        # one is split at once, or read carefully at once.
        self._mixed = self._careful = False

    @property
    def declaration(self) -> pa.Schema:
        """What the rows of the last chunk look like (``catalog.declaration``)."""
        return self._declaration

    def decode(self, chunk: Chunk) -> Decoded:
        """The chunk's rows, in its order, and its rejects, by row.

        Raises:
            SchemaChanged: a record's schema does not fit the declared one; the message names the
                field and what to do. Nothing of the chunk is decoded.
            RegistryUnavailable: a schema id could not be looked up in time.
            CatalogError: the block reader failed for a reason that is not in the values.
        """
        reach("decode.before")
        while True:
            try:
                decoded = self._assemble(chunk, self._parts(chunk.values))
            except _Grown:  # at most once for each schema id of the chunk
                continue
            reach("decode.after")
            return decoded

    def readable(self, chunk: Chunk) -> Chunk:
        """What of a chunk comes before the first record, in each partition, that was refused.

        To be called when :meth:`decode` has raised SchemaChanged: the records before the boundary
        are rows like any others. Positions end in front of the first such record.
        """
        ids, _ = split(chunk.values, self._spec.max_value_bytes)
        for number in {i for i in ids.tolist() if i >= 0} - self._refused.keys():
            with suppress(SchemaChanged, SchemaUnknown, _Grown):
                self._writer(number)
        return before(chunk, np.isin(ids, list(self._refused)))

    def _parts(self, values: Sequence[bytes | None]) -> list[_Part]:
        """What proves itself to be of the first value's schema, and the rest by schema id."""
        first = None if self._mixed or not values else self._named_by(values[0])
        careful, self._careful = self._careful, False
        rows = np.arange(len(values))
        parts: list[_Part] = []
        if first is not None:
            parts, rows = self._proved(first, values, rows, careful=careful)
        if not len(rows):
            return parts
        proves = bool(parts)
        ids, bad = split(chosen(values, rows), self._spec.max_value_bytes)
        parts.append(_Part([], rows[:0], tuple(replace(b, row=int(rows[b.row])) for b in bad)))
        stretches = ids[np.flatnonzero(np.diff(ids, prepend=-2))].tolist()
        known, unknown = [i for i in dict.fromkeys(stretches) if i >= 0], 0
        for schema_id in known:
            mine = rows[ids == schema_id]
            writer = self._find(schema_id, ask=unknown < _MAX_UNKNOWN_IDS)
            if isinstance(writer, str):
                unknown += 1
                refused = (
                    Bad(r, RejectKind.UNKNOWN_SCHEMA, schema_id, writer) for r in mine.tolist()
                )
                parts.append(_Part([], rows[:0], tuple(refused)))
                continue
            # Not again what was tried; but the first schema's values, where others were in the way.
            if writer is not first or (not proves and len(mine) < len(values)):
                proved, mine = self._proved(writer, values, mine, careful=careful)
                parts += proved
            if len(mine):
                parts.append(self._saved(writer, values, mine))
        seen = {*known} if first is None else {*known, _writer_id(first)}
        self._mixed = len(seen) > 1 or any(b.kind == RejectKind.NO_FRAME for b in bad)
        return parts

    def _named_by(self, value: bytes | None) -> _Writer | None:
        """What is compiled for the schema that a value names; None: it names none."""
        frame = (value or b"")[:FRAME_BYTES]
        if len(frame) < FRAME_BYTES or frame[0]:
            return None
        found = self._find(int.from_bytes(frame[1:]), ask=True)
        return None if isinstance(found, str) else found

    def _proved(
        self, writer: _Writer, values: Sequence[bytes | None], rows: _Rows, *, careful: bool
    ) -> tuple[list[_Part], _Rows]:
        """Which of the chunk's ``rows`` are one schema's beyond doubt, and those that are left.

        ``careful``: some of them are expected to be bad.
        """
        joined = Joined.of(chosen(values, rows))
        if joined is None:
            return [], rows
        block, left, most = None, rows[:0], self._spec.max_value_bytes
        if not careful:
            block = writer.reader.proved(joined, writer.frame)
        if block is None or block.rows < len(rows):
            tried = (writer.reader, writer.record, writer.frame)
            found = all_but_suspects(tried, joined, refused=not careful)
            if found is None:
                return [], rows
            block, odd = found
            left, rows = rows[odd], np.delete(rows, odd)
        if block.bytes > most and max(map(len, joined.values)) > most:
            return [], np.sort(np.concatenate([left, rows]))
        return [self._part(writer, block, rows)], left

    def _find(self, schema_id: int, *, ask: bool) -> _Writer | str:
        """What is compiled for a schema id, or why nothing is."""
        if not ask and schema_id not in self._writers:
            return "unknown schema id (not looked up after too many others)"
        try:
            return self._writer(schema_id)
        except SchemaUnknown as error:
            return f"unknown schema id: {error}"

    def _saved(self, writer: _Writer, values: Sequence[bytes | None], rows: _Rows) -> _Part:
        """What can be saved of records of one schema that do not prove themselves."""
        salvage = Salvage(writer.reader, writer.record, writer.frame)
        saved = salvage.read([values[row] or b"" for row in rows.tolist()])
        self._careful = self._careful or bool(salvage.bad)
        bad = tuple(
            Bad(int(rows[at]), RejectKind.MALFORMED, _writer_id(writer), why)
            for at, why in salvage.bad.items()
        )
        if saved is None:
            return _Part([], rows[:0], bad)
        return self._part(writer, saved[0], rows[saved[1]], bad)

    def _part(self, writer: _Writer, block: Block, rows: _Rows, bad: tuple[Bad, ...] = ()) -> _Part:
        """A block's carriers as declared columns, faulty rows taken out and added to ``bad``."""
        arrays, faults = convert_all(writer.sources, list(block.columns), len(block.columns[0]))
        arrays = [array.slice(0, block.rows) for array in arrays]
        reasons = _reasons(faults, block.rows)
        if not reasons:
            return _Part(arrays, rows, bad)
        schema_id = _writer_id(writer)
        faulty = (
            Bad(int(rows[i]), RejectKind.OUT_OF_RANGE, schema_id, why) for i, why in reasons.items()
        )
        good = np.ones(block.rows, np.bool_)
        good[list(reasons)] = False
        return _Part(
            [array.filter(pa.array(good)) for array in arrays], rows[good], (*bad, *faulty)
        )

    def _assemble(self, chunk: Chunk, parts: Sequence[_Part]) -> Decoded:
        columns, rows = self._in_order([p for p in parts if len(p.rows)])
        metadata = chunk.metadata.select(self._metadata.names)
        if len(rows) != metadata.num_rows:
            metadata = rows_of(metadata, rows)
        batch = pa.RecordBatch.from_arrays(
            [*columns, *metadata.columns], schema=bare(self._declaration)
        )
        bad = sorted((b for part in parts for b in part.bad), key=lambda b: b.row)
        return Decoded(batch, tuple(_rejects(bad, chunk.metadata)))

    def _in_order(self, parts: Sequence[_Part]) -> tuple[list[pa.Array], _Rows]:
        """The parts' rows in the chunk's order."""
        if len(parts) == 1:
            return parts[0].columns, parts[0].rows
        fields = list(bare(self._declaration))[: -len(self._metadata)]
        if not parts:
            return [pa.array([], field.type) for field in fields], np.empty(0, np.int64)
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        joined = (pa.concat_arrays([p.columns[i] for p in parts]) for i in range(len(fields)))
        return [array.take(pa.array(order)) for array in joined], rows[order]

    def _writer(self, schema_id: int) -> _Writer:
        if schema_id in self._refused:
            raise self._refused[schema_id]
        if schema_id not in self._writers:
            try:
                self._writers[schema_id] = self._compile(schema_id)
            except SchemaChanged as error:
                self._refused[schema_id] = error
                raise
        return self._writers[schema_id]

    def _compile(self, writer_id: int) -> _Writer:
        record = self._record(writer_id)
        resolver = Resolver(writer_id, declared_id(self._declaration) or self._first.schema_id)
        try:
            sources = resolver.sources(record, list(self._declaration)[: -len(self._metadata)])
        except SchemaChanged:
            if not (self._grows and self._grow(record, writer_id)):
                raise
            raise _Grown from None
        return _Writer(
            record=record,
            frame=b"\0" + writer_id.to_bytes(FRAME_BYTES - 1),
            sources=sources,
            reader=BlockReader(record, self._scratch),
        )

    def _record(self, writer_id: int) -> RecordOf:
        if writer_id == self._first.schema_id:
            return record_of(self._first, self._spec)
        try:
            return topic_record(self._registry.get(writer_id), self._spec)
        except SchemaRefused as error:
            raise SchemaChanged(
                f"records carry a schema that the table declared by id {self._first.schema_id} "
                f"cannot hold: {error}"
            ) from error

    def _grow(self, record: RecordOf, writer_id: int) -> bool:
        """Makes the declaration hold a schema, for every row from here on; whether it changed."""
        before = self._declaration
        self._declaration = evolved(
            self._declaration,
            record,
            writer_id,
            default_array,
            next_id=self._next_id,
            metadata=len(self._metadata),
        )
        self._writers.clear()
        return not before.equals(self._declaration, check_metadata=True)


def first_declaration(declared: DeclaredSchema, spec: TableSpec) -> pa.Schema:
    """The declaration, without ids, of a table that is declared by one schema."""
    metadata = metadata_schema(key=spec.key, headers=spec.headers)
    return by_schema(
        declaration(record_of(declared, spec), metadata, default_array), declared.schema_id
    )


def before(chunk: Chunk, stops: npt.NDArray[np.bool_]) -> Chunk:
    """The chunk's records and positions before the first flagged record of each partition."""
    metadata = chunk.metadata
    offsets = metadata.column(OFFSET).to_numpy(zero_copy_only=True)
    keep = np.ones(len(stops), np.bool_)
    ranges = []
    for one in chunk.ranges:
        mine = (offsets >= one.first) & (offsets < one.next)
        mine &= np.asarray(pc.equal(metadata.column(TOPIC), one.topic))
        mine &= np.asarray(pc.equal(metadata.column(PARTITION), one.partition))
        end = int(offsets[mine & stops].min(initial=one.next))
        keep &= ~mine | (offsets < end)
        if end > one.first:
            ranges.append(replace(one, next=end))
    rows = np.flatnonzero(keep)
    values = [chunk.values[row] for row in rows.tolist()]
    return Chunk(values, metadata.take(pa.array(rows)), tuple(ranges))


def _reasons(faults: Sequence[Fault], rows: int) -> dict[int, str]:
    """Row → the first thing that is wrong with it; filling rows past ``rows`` do not count."""
    reasons: dict[int, str] = {}
    for fault in faults:
        for row in np.flatnonzero(fault.bad[:rows]).tolist():
            reasons.setdefault(row, fault.reason)
    return reasons


def _rejects(bad: Sequence[Bad], metadata: pa.RecordBatch) -> Iterator[Reject]:
    if not bad:
        return
    where = metadata.select([TOPIC, PARTITION, OFFSET]).take(
        pa.array([b.row for b in bad], pa.int64())
    )
    for record, place in zip(bad, where.to_pylist(), strict=True):
        yield Reject(
            row=record.row,
            topic=place[TOPIC],
            partition=place[PARTITION],
            offset=place[OFFSET],
            kind=record.kind,
            schema_id=record.schema_id,
            reason=record.reason,
        )


def _writer_id(writer: _Writer) -> int:
    return int.from_bytes(writer.frame[1:])
