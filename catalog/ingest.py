"""The ingest of a process: its tables, each with its own threads, and how they end.

A table's threads *consume*, *decode* and *merge* are in ``catalog.tailing``; its own thread, here,
flushes and follows the head. How a table ends, while the others go on:

* a record or a schema that cannot become rows, or records that the log lost: reading ends. What was
  read before is an exact prefix: it is flushed once more, because the log may not hold it for long,
  and served; the head is still followed, nothing else runs.
* every other typed error that no repetition mends (another topic, another owner, no positions): the
  table ends at once. A fenced writer does not claim again, or two would fight for ever; a fenced
  standby follows who fenced it.
* what may mend (broker, registry or lake away, the live folder full) is tried again with growing
  pauses, and the manifest says so; at the start it ends the process instead, within seconds.

On a stop nothing is flushed: the log is replayed from the newest snapshot's positions.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from catalog.cutoffs import refuse_cuts
from catalog.dead_letters import open_rejects, prepare_letters
from catalog.declaring import continuing_decoder, declared_by, declared_now
from catalog.decode import first_declaration
from catalog.duty import Claimed, Duty, claim_at_start, to_follow
from catalog.errors import (
    CatalogError,
    CommitUnknown,
    Fenced,
    LogEndsEarly,
    LogGap,
    NotReady,
    PoisonRecord,
    SchemaChanged,
    SchemaRefused,
    SchemaUnknown,
    SpecRefused,
    Unavailable,
)
from catalog.flush import StartAgain
from catalog.folderlock import FolderLock
from catalog.kafka import TopicReader
from catalog.observer import Observer
from catalog.offsets import Offsets
from catalog.publication import Origin, Publication, stop_previous
from catalog.schemas import DeclaredSchema
from catalog.segments import LiveWriter
from catalog.sources import Sources
from catalog.spec import TableName, TableSpec
from catalog.tailing import RETRY_MAX_S, RETRY_S, Run, Tailing

__all__ = ["Sources", "TableIngest", "run_ingest"]

_log = logging.getLogger(__name__)

#: Longest sleep of a table's own thread, in seconds: how late a flush by age may be.
TICK_S = 0.25
#: What ends reading alone: everything that was read before it is right.
_READING_ENDS = (PoisonRecord, SchemaChanged, SchemaRefused, LogGap)
#: What ends the process when it happens at the start: a setting is wrong or a service is away.
_START_FAILS = (Unavailable, CommitUnknown, SpecRefused, SchemaRefused, SchemaUnknown)
#: Container objects between two collections of the interpreter's garbage collector. Its default of
#: 700 makes it walk all messages of a poll several times (0.9 instead of 2.1 µs a message); two
#: whole chunks and their parts stay below this.
_GC_THRESHOLD = 250_000


@dataclass(frozen=True, slots=True)
class _Opened:
    """One reading of the log, ready to start."""

    run: Run
    duty: Duty
    close: Callable[[], None]


class TableIngest:
    """One table: reads its topics into the live table and flushes that into history."""

    def __init__(self, spec: TableSpec, sources: Sources) -> None:
        self._spec = spec
        self._sources = sources
        self._opened: _Opened | None = None
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._reading_ended = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> TableName:
        """The table."""
        return self._spec.name

    def open(self) -> None:
        """Claims or follows the table and finds its place in the log (rules 5, 9 and 12).

        Raises:
            SpecRefused, SchemaRefused, SchemaUnknown: the declaration does not fit.
            Unavailable: broker, registry or lake did not answer.
            NotReady: there is nothing to follow yet.
            LogLost, MarkerLost, Fenced, CommitUnknown: as they say; the manifest says so too.
        """
        with ExitStack() as stack:
            declared = declared_now(self._spec, self._sources.registry)
            reader = self._sources.reader(self._spec)
            stack.callback(reader.close)
            self._opened = self._begin(declared, reader, stack)

    def run(self, stop: threading.Event) -> CatalogError | None:
        """Ingests until ``stop`` is set or the table ends; call :meth:`open` first.

        Returns:
            The typed error that ended the table, None if ``stop`` did.

        Raises:
            Exception: what is not typed (a broken disk, a bug) ends the process.
        """
        pause_s = RETRY_S
        while not stop.is_set() and not self._ended.is_set():
            try:
                if self._opened is None:
                    self.open()
                self._one_reading(stop)
                pause_s = RETRY_S
            except StartAgain as turn:
                _log.warning("ingest_starts_again table=%s because=%s", self.name, turn)
                self._read_again()
            except (Unavailable, CommitUnknown, NotReady) as error:
                _log.warning("ingest_trouble table=%s at=start error=%s", self.name, error)
                self._sources.observer.troubled(self.name, error)
            except CatalogError as error:
                self._fail(error)
                self._ended.set()
            finally:
                self.close(gone=stop.is_set() and not isinstance(self._failure, Fenced))
            if not self._ended.is_set():
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
        self.close(gone=not isinstance(self._failure, Fenced))  # stopped before it began, too
        if self._failure is not None and not isinstance(self._failure, CatalogError):
            raise self._failure
        return self._failure

    def _begin(self, declared: DeclaredSchema, reader: TopicReader, stack: ExitStack) -> _Opened:
        spec, sources = self._spec, self._sources
        topics = reader.identities()
        starts, ends = reader.beginnings(), reader.ends()
        writer = LiveWriter(sources.live.folder, spec.name, sources.live.grace_s)
        with _said(partial(stop_previous, writer)):
            followed = to_follow(sources, spec.name, topics)
            if followed is not None and followed.marker is not None:
                declared = declared_by(followed.marker, spec, sources.registry)
            first = first_declaration(declared, spec)
            head = followed or sources.lake.ensure_table(spec, declared.arrow, first)
            decoder = continuing_decoder(declared, head, spec, sources, writer.previous())
            if spec.on_error == "dead_letter":
                prepare_letters(sources.lake, spec)
        origin = Origin(
            spec.name,
            topics,
            declared.schema_id,
            decoder.declaration,
            ends,
            sources.live.max_bytes,
        )
        publication = Publication(writer, origin, head)
        with _said(publication.stop):
            if followed is None:
                what = Claimed(spec.name, topics, declared.schema_id, starts)
                publication.claimed(head := claim_at_start(sources, what))
            rejects, record = open_rejects(sources.lake, spec, head)
            publication.rejects = rejects.report
            _refuse_short_log(publication.owed, ends)
            leaders = Offsets() if publication.held is None else publication.held.leaders
            refuse_cuts(publication.owed, reader.cuts(publication.owed, leaders))
            assert head.marker is not None  # noqa: S101 - what a claim is, and what is followed
            reader.assign(head.marker.positions, head.marker.leaders)
        run = Run(
            spec=spec,
            live=sources.live,
            topics=topics,
            reader=reader,
            decoder=decoder,
            writer=writer,
            publication=publication,
            observer=sources.observer,
            rejects=rejects,
        )
        duty = Duty(sources, run, record, writes=followed is None)
        stack.callback(duty.end, gone=False)
        return _Opened(run, duty, stack.pop_all().close)

    def _one_reading(self, stop: threading.Event) -> None:
        opened = self._opened
        assert opened is not None  # noqa: S101 - opened by run()
        tailing = Tailing(opened.run, self._wake, self._fail)
        try:
            tailing.start()
            self._flush_until(stop, opened, tailing)
        finally:
            tailing.join()

    def _flush_until(self, stop: threading.Event, opened: _Opened, tailing: Tailing) -> None:
        pause_s = RETRY_S
        while not stop.is_set() and not self._ended.is_set():
            self._wake.wait(TICK_S)
            self._wake.clear()
            opened.run.publish_late()
            last = self._reading_ended.is_set()
            if last:
                tailing.end()
            try:
                if not opened.duty.turn(at_bound=tailing.at_bound, last=last):
                    continue
            except (Unavailable, CommitUnknown) as error:
                opened.run.troubled("lake", error)
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            except CatalogError as error:
                self._fail(error)
            else:
                opened.run.recovered("lake")
                pause_s = RETRY_S

    def _fail(self, error: BaseException) -> None:
        """Ends the table, or its reading alone; the first error is the one that is told.

        Called by any thread of the table.
        """
        with self._lock:
            first = self._failure is None
            self._failure = error if first else self._failure
        if isinstance(error, CatalogError) and first:
            if self._opened is not None:
                self._opened.run.publication.stop(error)
            _stopped(self.name, error, self._sources.observer)
        if not isinstance(error, _READING_ENDS):
            self._ended.set()
        self._reading_ended.set()
        self._wake.set()

    def _read_again(self) -> None:
        """Forgets what ended the last reading: the next one meets it again where it stands."""
        with self._lock:
            if not self._ended.is_set():
                self._failure = None
                self._reading_ended.clear()

    def close(self, *, gone: bool = False) -> None:
        """Gives the reader back; idempotent. ``gone``: a standby need not wait."""
        if self._opened is not None:
            self._opened.duty.end(gone=gone)
            self._opened.close()
            self._opened = None


@contextmanager
def _said(stop: Callable[[CatalogError], None]) -> Iterator[None]:
    """What no repetition mends is published before it is raised."""
    try:
        yield
    except (*_START_FAILS, NotReady):
        raise
    except CatalogError as error:
        stop(error)
        raise


def _refuse_short_log(published: Offsets, ends: Offsets) -> None:
    for place in ends.behind(published):
        raise LogEndsEarly(
            f"{place[0]}[{place[1]}] ends at offset {ends.at(place)}, below position "
            f"{published.at(place)} that was published: the broker lost records; restore them, or "
            f"see `k2 repair TABLE`"
        )


def run_ingest(
    specs: Sequence[TableSpec],
    sources: Sources,
    stop: threading.Event,
    on_open: Callable[[], None] = lambda: None,
) -> Mapping[TableName, CatalogError]:
    """Ingests all tables until ``stop`` is set; a table that stops does not end the others.

    When every table has stopped the process stays, idle: starting it again mends nothing.

    Args:
        specs: the tables.
        sources: what they share.
        stop: set by a signal handler; set here, too, when something that is not typed ends a table.
        on_open: called once, when every table has found its place in the log or has stopped.

    Returns:
        The error of each table that stopped by one.

    Raises:
        LiveFolderInUse: another ingest owns the live folder (rule 11).
        SpecRefused, SchemaRefused, SchemaUnknown, Unavailable: at the start, within 10 seconds.
        CommitUnknown: at the start; the catalog does not say whether the table is claimed.
        Exception: what is not typed (a broken disk, a bug); all tables ended.
    """
    with FolderLock(sources.live.folder), _rare_collections(), ExitStack() as stack:
        errors: dict[TableName, CatalogError] = {}
        crashes: list[BaseException] = []
        threads = []
        for table in [TableIngest(spec, sources) for spec in specs]:
            stack.callback(table.close)
            try:
                table.open()
            except NotReady as waits:
                _log.info("ingest_waits table=%s because=%s", table.name, waits)
            except _START_FAILS:
                raise
            except CatalogError as error:
                errors[table.name] = error
                _stopped(table.name, error, sources.observer)
                continue
            life = partial(_live, table, stop, errors, crashes)
            threads.append(threading.Thread(target=life, name=f"table {table.name}"))
        on_open()
        for thread in threads:
            thread.start()
        try:
            stop.wait()
        finally:  # an interrupt, too: the folder's lock outlives every thread
            stop.set()
            for thread in threads:
                thread.join()
        if crashes:
            raise crashes[0]
        return errors


def _live(
    table: TableIngest,
    stop: threading.Event,
    errors: dict[TableName, CatalogError],
    crashes: list[BaseException],
) -> None:
    try:
        error = table.run(stop)
    except BaseException as crash:  # noqa: BLE001 - raised again by run_ingest
        crashes.append(crash)
        stop.set()
    else:
        if error is not None:
            errors[table.name] = error


def _stopped(name: TableName, error: CatalogError, observer: Observer) -> None:
    _log.error("ingest_stopped table=%s error=%s: %s", name, type(error).__name__, error)
    observer.stopped(name, error)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """The garbage collector runs seldom, and leaves alone what is there already."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
