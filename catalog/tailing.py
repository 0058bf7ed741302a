"""From the log into the live table: the threads *consume*, *decode* and *merge* of one run.

All three spend their time outside the interpreter's lock: in the client, in the block reader, in
writing files. Under load chunks grow and publications are spaced, so a server beside us stutters
no more than it must.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from catalog.decode import Decoder
from catalog.errors import (
    BrokerUnavailable,
    CatalogError,
    LiveFolderFull,
    LogEndsEarly,
    LogGap,
    SchemaChanged,
    SegmentMissing,
    SpecRefused,
    TopicRecreated,
    Unavailable,
)
from catalog.faults import reach
from catalog.kafka import TopicReader
from catalog.letters import WAITING_BYTES
from catalog.looks import Looks
from catalog.observer import Observer
from catalog.offsets import Offsets, TopicIdentity
from catalog.publication import Publication
from catalog.reasons import ROOM
from catalog.records import Chunk, Range, Segment
from catalog.rejects import Rejects
from catalog.schemas import TIMESTAMP
from catalog.segments import LiveWriter
from catalog.spec import LiveSpec, TableSpec
from catalog.tiers import merge_due

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Most records of one chunk: 50 ms of reading at full speed, and few merges.
CHUNK_ROWS = 50_000
#: Longest wait of a poll, in seconds: how soon a thread sees that it has to end.
POLL_S = 0.1
#: From this many records on, a chunk is decoded while the next one is read. Smaller ones are read
#: as late as possible, and so as large as possible: most of their cost does not depend on size.
LARGE_ROWS = 5_000
#: After a small chunk nothing is read for as long as it took (half of a core is left to others),
#: at most this many seconds.
MAX_REST_S = 0.02
#: A paused consumer goes on when the live bytes are below this share of their bound.
RESUME_SHARE = 0.8
#: Fewer segments than this are not merged: a query hardly feels them (11 µs each), and under load
#: the next flush takes them all.
MERGE_FROM = 16
#: First and longest pause between two tries of what is retriable, in seconds.
RETRY_S, RETRY_MAX_S = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of one reading of the log, from the head's positions on.

    Attributes:
        topics: who the topics were when it began (rule 9).
    """

    spec: TableSpec
    live: LiveSpec
    topics: tuple[TopicIdentity, ...]
    reader: TopicReader
    decoder: Decoder
    writer: LiveWriter
    publication: Publication
    observer: Observer
    rejects: Rejects

    @property
    def fullness(self) -> float:
        """What is held before the next flush: 1.0 is the bound at which the consumer pauses."""
        waiting = self.rejects.waiting.bytes / WAITING_BYTES
        return max(waiting, self.publication.live_bytes / self.live.max_bytes)

    def verify(self) -> None:
        """Asks the broker who the topics are now (rule 9).

        Raises:
            TopicRecreated: not who they were.
            BrokerUnavailable: no answer, or a topic is gone: a broker that has just started may
                not know it yet.
        """
        try:
            now = self.reader.identities()
        except SpecRefused as error:
            raise BrokerUnavailable(str(error)) from error
        if now != self.topics:
            names = ", ".join(sorted({one.topic for one in {*now} ^ {*self.topics}}))
            raise TopicRecreated(
                f"topic {names} was deleted and created again while it was read, or its brokers "
                "belong to another cluster now: its offsets mean other records; feed it into a "
                "new table, or see `k2 repair TABLE`"
            )

    def troubled(self, where: str, trouble: CatalogError) -> None:
        """Shows what is tried again."""
        if self.publication.say_trouble(where, trouble):
            _log.warning("ingest_trouble table=%s at=%s error=%s", self.spec.name, where, trouble)
            self.observer.troubled(self.spec.name, trouble)
            self.publication.publish()

    def publish_late(self) -> None:
        """Publishes what there was no room for, if there was something."""
        unsaid = self.publication.unsaid
        if unsaid is not None:
            self.troubled(ROOM, unsaid)
            self.publication.publish()
            if self.publication.unsaid is None:
                self.recovered(ROOM)

    def recovered(self, where: str) -> None:
        """Shows that it is over."""
        if self.publication.say_trouble(where, None):
            _log.info("ingest_recovered table=%s at=%s", self.spec.name, where)
            self.publication.publish()


@dataclass(frozen=True, slots=True)
class Polled:
    """A chunk, with the log's ends and the leader epochs as they were seen after it."""

    chunk: Chunk
    watermarks: Offsets
    leaders: Offsets


class Tailing:
    """The three threads. ``failed`` is called, once per thread, with what ended it early.

    Args:
        run: the parts.
        wake: set when a flush may be due.
        failed: takes the error; called by the thread that failed.
    """

    def __init__(
        self, run: Run, wake: threading.Event, failed: Callable[[BaseException], None]
    ) -> None:
        self._run = run
        self._wake = wake
        self._failed = failed
        self._over = threading.Event()
        self._merge = threading.Event()
        # At most one chunk lies here: the consumer reads when the decoder says that it may.
        self._chunks: queue.SimpleQueue[Polled] = queue.SimpleQueue()
        self._may_read = threading.Semaphore(1)
        self._verified = -1
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=f"{name} {run.spec.name}")
            for name, body in (
                ("consume", self._consume),
                ("decode", self._decode),
                ("merge", self._merge_when_due),
            )
        ]
        self.paused = False
        self._no_room = False

    @property
    def at_bound(self) -> bool:
        """Whether reading waits for history to take what is live."""
        return self.paused or self._no_room

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Tells the threads to end; they do after what they are at."""
        self._over.set()
        self._merge.set()

    def join(self) -> None:
        """Waits until they have."""
        self.end()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _guarded(self, body: Callable[[], None]) -> None:
        """A thread's whole life: what ends it early ends the run, never itself alone."""
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - handed to the table's own thread
            self._failed(error)

    def _consume(self) -> None:
        run, looked_s, may_read = self._run, time.monotonic(), False
        looks = Looks(run.spec, run.reader)
        looks.begin()
        while not self._over.is_set():
            self._keep_bound()
            log = looks.take(run.publication.committed)
            if log is not None and run.publication.say_log(log):
                self._publish(None)
            if time.monotonic() - looked_s >= run.live.reload_s:
                self._retried("kafka", self._discover)
                looks.begin()
                looked_s = time.monotonic()
            may_read = may_read or self._may_read.acquire(timeout=POLL_S)
            if not may_read:
                continue
            chunk = self._retried("kafka.poll", lambda: run.reader.poll(CHUNK_ROWS, POLL_S))
            if chunk is not None:
                self._chunks.put(Polled(chunk, run.reader.watermarks, run.reader.leaders))
                may_read = False

    def _discover(self) -> None:
        """Finds new partitions; a writer elsewhere may have committed of them already (rule 1)."""
        self._run.reader.discover(self._run.publication.committed)

    def _keep_bound(self) -> None:
        """Pauses at the bound on live bytes, goes on well below it; drops nothing (rule 14)."""
        fullness = self._run.fullness
        if not self.paused and fullness >= 1:
            self._run.reader.pause()
            self.paused = True
            self._say_paused()
            self._wake.set()
        elif self.paused and fullness < RESUME_SHARE:
            self._run.reader.resume()
            self.paused = False
            self._say_paused()

    def _say_paused(self) -> None:
        self._run.publication.say_paused(paused=self.paused)
        self._run.publication.publish()

    def _decode(self) -> None:
        while not self._over.is_set():
            try:
                polled = self._chunks.get(timeout=POLL_S)
            except queue.Empty:
                continue
            began_s = time.monotonic()
            large = len(polled.chunk.values) >= LARGE_ROWS
            if large:
                self._may_read.release()
            self._publish(self._take(polled))
            if not large:
                self._over.wait(min(time.monotonic() - began_s, MAX_REST_S))
                self._may_read.release()

    def _take(self, polled: Polled) -> int | None:
        """Makes a segment of a chunk; the newest Kafka timestamp in it.

        Raises:
            PoisonRecord, SchemaChanged: what came before it in each partition is published.
            TopicRecreated: nothing of the chunk is.
        """
        run, refused, chunk = self._run, None, polled.chunk
        try:
            decoded = self._retried("registry", lambda: run.decoder.decode(chunk))
        except SchemaChanged as error:
            refused = error
            readable = self._retried("registry", lambda: run.decoder.readable(polled.chunk))
            chunk = readable or polled.chunk
            decoded = self._retried("registry", lambda: run.decoder.decode(chunk))
        if decoded is None:
            return None
        judged = run.rejects.judge(chunk, decoded)
        batch, ranges = judged.batch, judged.ranges
        if not self._same_topics():
            return None
        newest_us: int | None = None
        if ranges:
            declared = run.decoder.declaration
            segment = self._retried(ROOM, lambda: self._write(batch, ranges, declared))
            if segment is None:
                return None
            run.publication.extend(segment, polled.watermarks, declared, polled.leaders)
            newest_us = pc.max(batch.column(TIMESTAMP).cast("int64")).as_py()
            run.observer.consumed(run.spec.name, segment.rows, segment.bytes)
            self._merge.set()
        if judged.counted:
            run.observer.rejected(run.spec.name, judged.counted)
        if judged.error is not None:
            self._publish(newest_us)
            raise judged.error
        if refused is not None:
            self._publish(newest_us)
            raise refused
        return newest_us

    def _write(
        self, batch: pa.RecordBatch, ranges: tuple[Range, ...], declared: pa.Schema
    ) -> Segment:
        """Writes a segment; where there is no room, a flush is due, which makes some."""
        try:
            segment = self._run.writer.write(batch, ranges, declared)
        except LiveFolderFull:
            self._no_room = True
            self._wake.set()
            raise
        self._no_room = False
        return segment

    def _publish(self, newest_us: int | None) -> None:
        manifest = self._run.publication.publish()
        if manifest is not None:
            self._run.observer.published(self._run.spec.name, manifest, newest_us)
        self._wake.set()

    def _same_topics(self) -> bool:
        """Verifies identities if a connection or metadata changed since (rule 9); False: ended."""
        changes = self._run.reader.changes
        if changes != self._verified:
            self._retried("kafka.identity", self._run.verify)
            self._verified = changes
        return not self._over.is_set()

    def _merge_when_due(self) -> None:
        run = self._run
        while not self._over.is_set():
            segments = run.publication.segments
            group = merge_due(segments) if len(segments) >= MERGE_FROM else ()
            if not group:
                self._merge.wait()
                self._merge.clear()
                continue
            try:
                with run.publication.using(group):
                    run.publication.replace(group, run.writer.merge(group))
                    run.publication.publish()
            except LiveFolderFull:  # merging saves time, not room
                self._over.wait(RETRY_MAX_S)
                continue
            except SegmentMissing as error:  # the next flush meets it and starts again
                run.troubled("live", error)
                return
            reach("merge.published")

    def _retried(self, where: str, request: Callable[[], _T]) -> _T | None:
        """The answer of a request that is tried until it succeeds; None when the run is over.

        Raises:
            CatalogError: what no repetition mends.
        """
        pause_s = RETRY_S
        while not self._over.is_set():
            try:
                answer = request()
            except (Unavailable, SpecRefused) as error:  # SpecRefused: the topic is gone just now
                self._run.troubled(where, error)
                self._over.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            except (LogGap, LogEndsEarly) as error:
                raise self._explained(error) from error
            else:
                self._run.recovered(where)
                return answer
        return None

    def _explained(self, error: CatalogError) -> CatalogError:
        """A log that lost records may be another log: then that is what to say."""
        try:
            self._run.verify()
        except TopicRecreated as recreated:
            return recreated
        except Unavailable:
            return error
        return error
