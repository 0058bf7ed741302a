"""The version manifest: the one file that says what a table's live version is (rule 10)."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import pyarrow as pa

from catalog.declaration import from_text, to_text
from catalog.errors import CatalogError, NotReady
from catalog.offsets import MALFORMED, Offsets, TopicIdentity
from catalog.records import LogBounds, Part, RejectCount, Segment
from catalog.remembered import Remembered
from catalog.spec import TableName

#: Moves when a reader of the old form would misread the new one.
FORMAT = 1

#: The manifest's last entry: the CRC of all that stands before it.
_CHECK = b',"crc":'

State = Literal["running", "catching_up", "paused", "stopped"]
_STATES: dict[str, State] = {state: state for state in get_args(State)}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One published version of a hybrid table: rows of a snapshot, then live rows up to ``high``.

    Attributes:
        table: the table's name.
        table_uuid: the Iceberg table's identity.
        topics: identities of the topics that feed it, sorted by name.
        snapshot_id: S, the snapshot that the live rows continue; None: a table without any.
        metadata_location: the metadata file in which S stands.
        committed: C, the positions that S records.
        high: E, per partition max(C, the consumer's position): the version ends here.
        watermarks: the log's high watermarks when the version was made.
        segments: live segments, oldest first; they cover [C, E) without a hole.
        schema_id: registry id of the newest schema that the declaration holds.
        arrow_schema: the declaration (``catalog.declaration``): what the version's rows are read
            as, wherever they lie.
        published_us: when it was made, microseconds since the epoch.
        sequence: counts the publications of one ingest process.
        state: what the ingest is doing.
        error_code: status code of the error that stopped the table; None where none did.
        error: ``ClassName: message`` of that error.
        reason: why the state is what it is, for people; None where there is nothing to say.
        live_max_bytes: the bound on live bytes at which the consumer pauses; 0: not known.
        log: the log's bounds when they were last looked at, by partition.
        older: by :func:`schema_key` the declarations that listed segments, or tickets of a moment
            ago, follow.
        replays: how many replays of dead letters S has seen; another number, other rows.
        rejects: one entry per partition that had any; texts are cut, so the size is bounded.
        letters: how many dead letters are recorded; None: the table keeps none.
        role: "writer" where this ingest flushes, "follower" where it only holds the tail; "" in a
            manifest from before there were followers.
        owner: who flushes the table by the marker of S, in words; "" where that is not recorded.
        epoch: the owner's.
        leaders: the leader epochs at which the log was read up to ``high`` (catalog/cutoffs.py).
    """

    table: TableName
    table_uuid: str
    topics: tuple[TopicIdentity, ...]
    snapshot_id: int | None
    metadata_location: str
    committed: Offsets
    high: Offsets
    watermarks: Offsets
    segments: tuple[Segment, ...]
    schema_id: int
    arrow_schema: pa.Schema
    published_us: int
    sequence: int
    state: State = "running"
    error_code: str | None = None
    error: str | None = None
    reason: str | None = None
    live_max_bytes: int = 0
    log: tuple[LogBounds, ...] = ()
    older: Mapping[str, pa.Schema] = field(default_factory=dict)
    replays: int = 0
    rejects: tuple[RejectCount, ...] = ()
    letters: int | None = None
    role: str = ""
    owner: str = ""
    epoch: int = 0
    leaders: Offsets = field(default_factory=Offsets)

    def to_json(self, texts: dict[str, str] | None = None) -> bytes:
        """The manifest file's content: one JSON object; the schema as base64 of its IPC message.

        Args:
            texts: segments' texts by file name that need not be made again; left holding those
                of the listed segments.
        """
        known = texts or {}
        listed = {s.file: known.get(s.file) or _segment_json(s) for s in self.segments}
        if texts is not None:
            texts.clear()
            texts.update(listed)
        head = json.dumps(
            {
                "format": FORMAT,
                "table": str(self.table),
                "table_uuid": self.table_uuid,
                "topics": [[t.topic, t.cluster_id, t.topic_id] for t in self.topics],
                "snapshot_id": self.snapshot_id,
                "metadata_location": self.metadata_location,
                "committed": self.committed.to_json(),
                "high": self.high.to_json(),
                "watermarks": self.watermarks.to_json(),
                "schema_id": self.schema_id,
                "arrow_schema": to_text(self.arrow_schema),
                "published_us": self.published_us,
                "sequence": self.sequence,
                "state": self.state,
                "error_code": self.error_code,
                "error": self.error,
                "reason": self.reason,
                "live_max_bytes": self.live_max_bytes,
                "log": _log_items(self.log),
                "older": [to_text(schema) for schema in self.older.values()],
                "replays": self.replays,
                "rejects": [astuple(count) for count in self.rejects],
                "letters": self.letters,
                "role": self.role,
                "owner": self.owner,
                "epoch": self.epoch,
                "leaders": self.leaders.to_json(),
            },
            separators=(",", ":"),
        )
        text = f'{head[:-1]},"segments":[{",".join(listed.values())}]'.encode()
        return b"%b%b%d}" % (text, _CHECK, zlib.crc32(text))

    @classmethod
    def from_json(cls, text: bytes, known: Mapping[str, Segment] | None = None) -> Manifest:
        """The inverse of :meth:`to_json`.

        Args:
            text: the file's content.
            known: segments by file name that need not be made again; they never change.

        Raises:
            NotReady: the content is no manifest of this format.
        """
        known = known or {}
        try:
            item = _of_this_format(json.loads(_unharmed(text)))
            return cls(
                table=TableName.parse(item["table"]),
                table_uuid=item["table_uuid"],
                topics=tuple(TopicIdentity(*t) for t in item["topics"]),
                snapshot_id=item["snapshot_id"],
                metadata_location=item["metadata_location"],
                committed=Offsets.from_json(item["committed"]),
                high=Offsets.from_json(item["high"]),
                watermarks=Offsets.from_json(item["watermarks"]),
                segments=tuple(known.get(s[0]) or _segment_from(*s) for s in item["segments"]),
                schema_id=item["schema_id"],
                arrow_schema=from_text(item["arrow_schema"]),
                published_us=item["published_us"],
                sequence=item["sequence"],
                state=_STATES[item["state"]],
                error_code=item["error_code"],
                error=item["error"],
                # Absent where an older version published: its manifest is good, and owed (rule 12).
                reason=item.get("reason"),
                live_max_bytes=item.get("live_max_bytes", 0),
                log=tuple(LogBounds(*bounds) for bounds in item.get("log", ())),
                older={schema_key(s): s for s in map(from_text, item.get("older", ()))},
                replays=item.get("replays", 0),
                rejects=tuple(RejectCount(*count) for count in item.get("rejects", ())),
                letters=item.get("letters"),
                role=str(item.get("role", "")),
                owner=str(item.get("owner", "")),
                epoch=int(item.get("epoch", 0)),
                leaders=Offsets.from_json(item.get("leaders", {})),
            )
        except (*MALFORMED, OSError, pa.ArrowException, CatalogError) as error:
            raise NotReady(
                "the live table's manifest cannot be read: it is replaced as soon as the table's "
                "ingest publishes; if none runs, start it"
            ) from error


@Remembered
def schema_key(schema: pa.Schema) -> str:
    """Sixteen hex digits that two declarations share only if they are the same, tags included."""
    return hashlib.blake2b(schema.serialize().to_pybytes(), digest_size=8).hexdigest()


def _unharmed(text: bytes) -> bytes:
    """The content, if its checksum, its last entry, is right; older ones have none."""
    body, found, check = text.rpartition(_CHECK)
    if found and check != b"%d}" % zlib.crc32(body):
        raise ValueError("the checksum is another")
    return text


def _of_this_format(item: Any) -> Any:
    if item["format"] != FORMAT:
        raise ValueError(f"format {item['format']} instead of {FORMAT}")
    return item


@lru_cache(maxsize=64)
def _log_items(log: tuple[LogBounds, ...]) -> list[tuple[object, ...]]:
    return [astuple(bounds) for bounds in log]


def _segment_json(segment: Segment) -> str:
    """``["file",rows,bytes,created_us,{"topic":[[partition,first,…],…]},"declaration",checksum]``."""
    topics: dict[str, list[tuple[int, int, int, int, int]]] = {}
    for part in segment.parts:
        numbers = (part.partition, part.first, part.next, part.row_first, part.row_next)
        topics.setdefault(part.topic, []).append(numbers)
    size, made, declared = segment.bytes, segment.created_us, segment.declared
    fields = (segment.file, segment.rows, size, made, topics, declared, segment.checksum)
    return json.dumps(fields, separators=(",", ":"))


def _segment_from(  # noqa: PLR0913, PLR0917  # one parameter per entry of the list
    file: str,
    rows: int,
    size: int,
    created_us: int,
    topics: Mapping[str, list[tuple[int, int, int, int, int]]],
    declared: str = "",
    checksum: int | None = None,
) -> Segment:
    parts = tuple(Part(topic, *numbers) for topic, items in topics.items() for numbers in items)
    return Segment(file, rows, size, parts, created_us, declared, checksum)
