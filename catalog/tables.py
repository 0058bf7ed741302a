"""The server's registry of tables: pin a version, open it, say what there is.

A hybrid table's version is what its manifest says, and nothing else: the lake's newest snapshot
does not count before a manifest names it (rule 10). An ordinary table's version is its head.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import pyarrow as pa

from catalog import reports
from catalog.cuts import cover
from catalog.declaration import bare, is_numbered
from catalog.errors import (
    FileMissing,
    LogEndsEarly,
    LogGap,
    LogLost,
    NotReady,
    SegmentMissing,
    TableNotFound,
    TopicRecreated,
    VersionGone,
)
from catalog.manifest import Manifest, schema_key
from catalog.offsets import Offsets
from catalog.pins import Pin, Schemas, TableVersion
from catalog.runs import Heads, Runs, RunsHead, by_name
from catalog.segments import LiveReader
from catalog.spec import TableName, TableSpec

__all__ = ["Need", "Pin", "Runs", "RunsHead", "TableVersion", "Tables"]

#: What of a version a statement reads. "hybrid": only the union of runs and tail, which any
#: covering snapshot gives; "split": runs or tail apart (``$runs``, ``$live``), which depends on
#: C, so exactly S; "runs": only the rows of S.
Need = Literal["hybrid", "split", "runs"]

_NOWHERE = Offsets()
#: A manifest comes every few milliseconds under load; shorter polls would only burn.
_POLL_S = 0.002
#: Manifests that may be replaced under one open() before it gives up: each replacement takes the
#: ingest longer than the open, unless the segments of every one of them vanish.
_ATTEMPTS = 5
_LOG_LOST = {kind.__name__: kind for kind in (LogGap, LogEndsEarly, TopicRecreated, LogLost)}


class Tables:
    """Every table of the server; any thread.

    Args:
        lake: the catalog.
        live: the live folder's reader.
        specs: the hybrid tables.
        refresh_ms: how old the known head of a plain table, and the list of tables, may be.
        catalog: the catalog's name in SQL, for ``system.tables``.
    """

    def __init__(
        self,
        lake: Runs,
        live: LiveReader,
        specs: Sequence[TableSpec],
        *,
        refresh_ms: int,
        catalog: str = "lake",
    ) -> None:
        self._lake = lake
        self._live = live
        self._specs = {spec.name: spec for spec in specs}
        self._heads = Heads(lake, refresh_ms / 1000)
        self._catalog = catalog
        self._schemas = Schemas()
        # The manifest of each table that was last seen to cover [C, E): checked once each.
        self._whole: dict[TableName, Manifest] = {}

    def names(self) -> tuple[TableName, ...]:
        """Hybrid tables and all others of the catalog, sorted.

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        return tuple(self.listing())

    def listing(self) -> Mapping[TableName, str | None]:
        """:meth:`names`, each with what names its columns for :meth:`describe`.

        That is an ordinary table's metadata file, where the catalog tells all of them at once. It
        is None for hybrid tables, and for all tables of a REST catalog.

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        found = self._heads.listing()
        if self._specs:  # declared, whether the catalog has them already or not
            found = by_name({**found, **dict.fromkeys(self._specs)})
        return found

    def pin(
        self,
        name: TableName,
        *,
        at_least: Offsets = _NOWHERE,
        deadline_s: float | None = None,
        tail: bool = True,
        as_of: str = "",
    ) -> Pin:
        """The version of ``name`` that a statement is answered from; one manifest read (rule 16).

        Args:
            name: the table.
            at_least: what the session has seen; the version ends there or later (rule 20).
            deadline_s: how many seconds to wait for that; None: not at all.
            tail: whether the statement reads live rows; without, a table whose log is lost can
                still be pinned, for ``$runs``.
            as_of: an older version, as ``catalog.asof`` writes it; "": the newest.

        Raises:
            TableNotFound: there is no such table.
            NoSuchVersion, VersionGone: there is no such version of it, or no more.
            NotReady: nothing was published yet, or nothing as far as ``at_least``.
            LogGap, LogEndsEarly, TopicRecreated: the log no longer proves the tail (rules 9, 19).
            LakeUnavailable: a plain table, and the catalog did not answer.
        """
        if as_of:
            return self._past(name, as_of)
        if name not in self._specs:
            return Pin.plain(name, self._heads.get(name))
        until_s = time.monotonic() + (deadline_s or 0.0)
        while True:
            manifest = self._published(name)
            if tail:
                self._require_tail(manifest)
            if manifest.high.covers(at_least):
                self._schemas.put(name, manifest.arrow_schema)
                return Pin.of(manifest)
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                behind = ", ".join(f"{t}[{p}]" for t, p in manifest.high.behind(at_least))
                raise NotReady(f"{name}: this server is behind what the session saw ({behind})")
            time.sleep(min(_POLL_S, left_s))

    def schema(self, pin: Pin) -> pa.Schema:
        """The columns of a pinned version.

        Raises:
            VersionGone: the table is declared otherwise now.
            NotReady: a hybrid table that was never published here.
        """
        if pin.kind == "plain":
            return self._lake.arrow_schema(pin.name, pin.metadata_location, pin.schema_id)
        return bare(self._declared(pin))

    def _declared(self, pin: Pin) -> pa.Schema:
        """The declaration that a hybrid pin promised, be it the newest one or not."""
        found = self._schemas.get(pin.name, pin.schema_key)
        if found is not None:
            return found
        manifest = self._published(pin.name)
        schema = {**manifest.older, schema_key(manifest.arrow_schema): manifest.arrow_schema}.get(
            pin.schema_key
        )
        if schema is None:
            raise _gone(pin, "is declared with another schema now")
        self._schemas.put(pin.name, schema)
        return schema

    def open(
        self, pin: Pin, *, need: Need = "hybrid", deadline_s: float | None = None
    ) -> TableVersion:
        """Opens a pinned version: the same rows whatever was merged or flushed since (rule 17).

        The rows come from S and segments that cover [C, E); or, where that is enough (``need``),
        from the newest published S' with C' ≤ E and segments that cover [C', E), if nobody else
        has added or deleted rows in between. E stays.

        Args:
            pin: from any server of the same catalog and topics.
            need: what of the version is read.
            deadline_s: how many seconds to wait where this server is behind the pin, which another
                one made; None: not at all.

        Raises:
            VersionGone: neither way is left; plan the statement again.
            TopicRecreated: a topic is not the pinned one any more.
            NotReady: this server is behind the pin, still.
            LogGap: the published version itself has a hole (rule 19).
            SegmentMissing: a segment that the newest manifest lists is gone (rule 18).
            LakeUnavailable: the catalog's metadata or manifests cannot be read now.
        """
        if pin.kind == "plain" or need == "runs":
            declared = None if pin.kind == "plain" else self._declared(pin)
            schema = self.schema(pin) if declared is None else declared
            return _version(pin, schema, self._entries(pin, declared), [])
        until_s = time.monotonic() + (deadline_s or 0.0)
        while True:
            try:
                return self._open_published(pin, need)
            except NotReady:
                if time.monotonic() >= until_s:
                    raise
            time.sleep(_POLL_S)

    def _open_published(self, pin: Pin, need: Need) -> TableVersion:
        for _ in range(_ATTEMPTS):
            manifest = self._published(pin.name)
            _require_same_table(pin, manifest)
            self._require_tail(manifest)
            try:
                return self._open_on(pin, manifest, need)
            except SegmentMissing:
                if self._live.manifest(pin.name) is manifest:
                    raise
        raise _gone(pin, "changed faster than it could be opened")

    def describe(self, name: TableName, location: str | None = None) -> pa.Schema:
        """The table's columns, without a version: for lists of tables.

        Args:
            name: the table.
            location: its metadata file, as :meth:`listing` told it; None: its newest one.

        Raises:
            TableNotFound: there is no such table.
            NotReady: a hybrid table that was never published, and does not exist in the lake.
        """
        manifest = self._live.manifest(name) if name in self._specs else None
        if manifest is not None:
            return bare(manifest.arrow_schema)
        if location is not None:
            with suppress(VersionGone):  # replaced since, and cleared away
                return self._lake.arrow_schema(name, location)
        try:
            head = self._heads.get(name)
        except TableNotFound as error:
            if name in self._specs:
                raise NotReady(f"{name} has not been published yet: is its ingest up?") from error
            raise
        return self._lake.arrow_schema(name, head.metadata_location, head.schema_id)

    def metadata_table(self, pin: Pin, which: str) -> pa.Table:
        """``"table$offsets"`` (``reports.OFFSETS_SCHEMA``), and the lake's own, of a version."""
        if which != "offsets":
            location = pin.metadata_location
            if which == "refs" and pin.kind == "hybrid":  # they move without a new version
                location = self._heads.get(pin.name).metadata_location
            return self._lake.metadata_table(pin.name, which, pin.snapshot_id, location)
        manifest = self._live.manifest(pin.name) if pin.kind == "hybrid" else None
        watermarks = manifest.watermarks if manifest else _NOWHERE
        return reports.offsets_table(pin.committed, pin.high, watermarks)

    def lag(self) -> pa.Table:
        """``system.lag``: :data:`catalog.reports.LAG_SCHEMA`."""
        found = [(spec, self._readable(name)) for name, spec in sorted(self._specs.items())]
        return reports.lag_table(found, time.time_ns() // 1000)

    def rejects(self) -> pa.Table:
        """``system.rejects``: :data:`catalog.reports.REJECTS_SCHEMA`."""
        found = [(spec, self._readable(name)) for name, spec in sorted(self._specs.items())]
        return reports.rejects_table(found)

    def overview(self) -> pa.Table:
        """``system.tables``: :data:`catalog.reports.TABLES_SCHEMA`.

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        listed = []
        for name in self.names():
            spec, head = self._specs.get(name), self._heads.known(name)
            manifest = self._readable(name) if spec else None
            snapshot_id = head.snapshot_id if head else None
            listed.append(reports.Listed(name, spec, manifest, snapshot_id))
        return reports.tables_table(self._catalog, listed)

    def _past(self, name: TableName, as_of: str) -> Pin:
        """An older version, by the newest metadata; without live rows, whatever the table is."""
        pin = Pin.plain(name, self._heads.get(name))
        found = self._lake.past(name, pin.metadata_location, as_of)
        return replace(pin, snapshot_id=found.snapshot_id, schema_id=found.schema_id, as_of=as_of)

    def _published(self, name: TableName) -> Manifest:
        manifest = self._live.manifest(name)
        if manifest is None:
            raise NotReady(f"{name} has not been published yet: is its ingest up?")
        return manifest

    def _readable(self, name: TableName) -> Manifest | None:
        try:
            return self._live.manifest(name)
        except NotReady:
            return None

    def _require_tail(self, manifest: Manifest) -> None:
        """Refuses a tail that the log no longer proves, and one with a hole (rule 19)."""
        kind, _, message = (manifest.error or "").partition(": ")
        if manifest.state == "stopped" and kind in _LOG_LOST:
            raise _LOG_LOST[kind](message)
        if self._whole.get(manifest.table) is not manifest:
            cover(manifest.segments, manifest.committed, manifest.high)
            self._whole[manifest.table] = manifest

    def _open_on(self, pin: Pin, manifest: Manifest, need: Need) -> TableVersion:
        declared, bases = self._declared(pin), [pin]
        if not is_numbered(declared) and pin.schema_key != schema_key(manifest.arrow_schema):
            raise _gone(pin, "is declared with another schema now")
        same_rows = pin.replays == manifest.replays  # a replay brings rows below C
        if need == "hybrid" and same_rows and pin.high.covers(manifest.committed):
            bases.append(pin.on(manifest))
        for base in bases:
            live = self._tail(base, manifest, declared)
            if live is None or not self._same_rows(pin, base):
                continue
            try:
                return _version(base, declared, self._entries(base, declared), live)
            except (VersionGone, FileMissing):
                if base is bases[-1]:
                    raise
        if not manifest.high.covers(pin.high):
            raise NotReady(f"{pin.name}: this server is behind the ticket; try again")
        raise _gone(pin, "can no longer be put together from the live rows that are left")

    def _same_rows(self, pin: Pin, base: Pin) -> bool:
        """Whether nobody but the log has changed the rows below C' since S (rule 17)."""
        since, until = pin.snapshot_id, base.snapshot_id
        return since == until or self._lake.only_fed(pin.name, base.metadata_location, since, until)

    def _tail(
        self, base: Pin, manifest: Manifest, declared: pa.Schema
    ) -> list[pa.RecordBatch] | None:
        """Live rows of [C, E); None where the segments left do not cover it."""
        want = (declared,) if is_numbered(declared) else ()
        try:
            return self._live.batches(manifest.segments, base.committed, base.high, *want)
        except LogGap:
            pass
        for _ in range(_ATTEMPTS):
            known = self._live.known(manifest)
            try:
                return self._live.batches(known, base.committed, base.high, *want)
            except LogGap:
                return None
            except SegmentMissing:
                if self._live.known(manifest) == known:
                    raise
        return None

    def _entries(self, pin: Pin, declared: pa.Schema | None) -> pa.Table:
        # A hybrid pin's schema id is the registry's; the lake's own is the metadata's current one.
        schema_id = pin.schema_id if pin.kind == "plain" else None
        place = (pin.name, pin.snapshot_id, pin.metadata_location, schema_id)
        if declared is None or not is_numbered(declared):
            return self._lake.entries(*place)
        return self._lake.entries(*place, declared=declared)


def _version(
    pin: Pin, schema: pa.Schema, entries: pa.Table, live: Sequence[pa.RecordBatch]
) -> TableVersion:
    rows = sum(batch.num_rows for batch in live)
    declared = schema if is_numbered(schema) else None
    return TableVersion(pin, bare(schema), entries, tuple(live), rows, declared)


def _require_same_table(pin: Pin, manifest: Manifest) -> None:
    """Refuses to answer a pin from another table or topic under the same name (rules 9, 17)."""
    if pin.table_uuid != manifest.table_uuid:
        raise _gone(pin, "was created again under its name")
    now = {identity.topic: identity for identity in manifest.topics}
    for identity in pin.topics:
        if identity.topic not in now:
            raise _gone(pin, f"is no longer fed by topic {identity.topic}")
        if now[identity.topic] != identity:
            raise TopicRecreated(
                f"{pin.name}: topic {identity.topic} is another one under the same name than when "
                f"the ticket was made; plan the statement again"
            )


def _gone(pin: Pin, why: str) -> VersionGone:
    return VersionGone(f"{pin.name} {why}: plan the statement again")
