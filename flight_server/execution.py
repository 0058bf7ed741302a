"""From a plan over stubs to frames over the rows of the pinned versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Catalog, Schema, Table

from catalog.erasure import Holding
from catalog.pins import PinKey
from catalog.prune import surviving
from catalog.tables import TableVersion
from flight_server import analysis, estimate, params
from flight_server.cautions import UNPRUNED, otherwise
from flight_server.contexts import READ_ONLY, Contexts
from flight_server.hybrid import Relation, Report, RowPart, Source, memory, nothing, relation
from flight_server.known import known
from flight_server.limits import Limits
from flight_server.names import Part, Reference, Scope
from flight_server.plans import Plan
from flight_server.readers import Store
from flight_server.shares import Share
from flight_server.sqlrules import SERIES
from flight_server.sqltext import SqlText, digits_name
from flight_server.stores import Reach
from flight_server.substrait import logical_plan

T = TypeVar("T")

_ROW_PARTS: Mapping[Part, RowPart] = MappingProxyType(
    {"hybrid": "hybrid", "runs": "runs", "live": "live"}
)

#: Words of statements that may make any number of rows out of none.
_MAKING_ROWS = SERIES | {"recursive"}

#: Where a Substrait plan stands as a view while it is explained; no statement can name it.
_ASIDE = "aside"


def run_sql(
    context: SessionContext, text: SqlText, values: Mapping[str, pa.Scalar] | None = None
) -> DataFrame:
    """The engine's frame for a statement that reads; nothing is executed."""
    if text.plan is not None:
        return context.create_dataframe_from_logical_plan(logical_plan(context, text.plan))
    bound = _bound(text, values or {})
    return context.sql(text.rewritten, options=READ_ONLY, param_values=bound)


def _bound(text: SqlText, values: Mapping[str, pa.Scalar]) -> dict[str, pa.Scalar]:
    """The values of all parameters, the text's own among them."""
    own = {digits_name(digits): pa.scalar(digits, pa.int32()) for digits in text.digits}
    return {**values, **own}


class Execution:
    """One execution of a plan.

    Attributes:
        opened: the versions that are read, each opened once, at its first reference (rule 16).
        relations: what is read for each reference, once :meth:`frames` has run.
        reports: the same for people, once :meth:`frames` or :meth:`known` has answered.
    """

    def __init__(
        self,
        contexts: Contexts,
        store: Store,
        plan: Plan,
        scope: Scope,
        share: Share | None = None,
        holding: Holding | None = None,
    ) -> None:
        self._contexts = contexts
        self._store = store
        self._plan = plan
        self._scope = scope
        self._share = share
        self._holding = holding or Holding()
        self._needs = scope.needs()
        self._settings: Mapping[str, str] = MappingProxyType({})
        self._frames: list[DataFrame] = []
        self._has_clock = not analysis.CLOCK_WORDS.isdisjoint(plan.prepared.text.words)
        self.opened: dict[PinKey, TableVersion] = {}
        self.relations: dict[Reference, Relation] = {}
        self.reports: dict[Reference, Report] = {}

    def rows_to_read(self, frames: int) -> int | None:
        """Rows in the files and segments that are left after pruning, once per frame.

        None: unknown, as are the rows of series, recursion and joins without an equality.
        """
        prepared = self._plan.prepared
        words = prepared.text.words
        if self._plan.explain and "analyze" not in words:
            return 0
        if not _MAKING_ROWS.isdisjoint(words):
            return None
        if prepared.reads is not None and prepared.reads.unbound_join:
            return None
        reports = self.reports.values()
        return frames * sum(report.rows + report.live_rows for report in reports)

    def known(self) -> pa.RecordBatch | None:
        """The answer, where it is known without reading a row; see ``flight_server.known``.

        Raises:
            VersionGone: a pinned version cannot be answered any more.
        """
        reads = self._plan.prepared.reads
        if reads is None or reads.facts is None or not reads.scans or self._plan.explain:
            return None
        if self._plan.statement.parameters is not None:
            return None
        [at] = reads.scans
        resolved = self._scope.found.get(at)  # a function that gives rows is no table
        if resolved is None or resolved.content is not None:
            return None
        version = self._version(at)
        entries = version.entries.slice(0, 0) if resolved.part == "live" else version.entries
        live = () if resolved.part == "runs" else version.live
        answer = known(reads.facts, entries, live, self._plan.schema)
        if answer is not None:
            self.reports[at] = Report(files=version.entries.num_rows)
        return answer

    def require_files(self, context: SessionContext) -> None:
        """To be called once a frame has been planned physically (rule 18).

        Raises:
            FileMissing: a file that the frame should read was gone when it was planned.
        """
        for each in self.relations.values():
            each.require_files(context)

    def planned(self, call: Callable[[], T]) -> T:
        """``call()``, and once more where the engine cannot plan what it has made of the statement.

        The second time :meth:`frames` are others, made with other settings.
        """
        try:
            return call()
        except Exception as error:
            settings = {} if self._settings else otherwise(error)
            if not settings:
                raise
        self._settings, self._frames = settings, []
        return call()

    def frames(self, context: SessionContext, limits: Limits) -> Sequence[DataFrame]:
        """One frame per set of parameters, over the rows of the pinned versions; made once.

        Raises:
            VersionGone: a pinned version cannot be answered any more.
            ResourceExhausted: a join without an equality is too large.
        """
        self._frames = self._frames or self._made(context, limits)
        return self._frames

    def _made(self, context: SessionContext, limits: Limits) -> list[DataFrame]:
        prepared, parameters = self._plan.prepared, self._plan.statement.parameters
        count = params.sets(parameters, limits.max_parameter_sets)
        values = [params.bound(self._plan.parameter_schema, parameters, i) for i in range(count)]
        reads = prepared.reads if count == 1 else None  # seen for the first set only
        frames = self._over(context, reads, values)
        if reads is not None and self._has_clock:
            frames = self._checked(context, frames, values)
        if prepared.reads is None or prepared.reads.unbound_join:
            self._refuse_products(values, limits.max_product_rows)
        return frames

    def _over(
        self,
        context: SessionContext,
        reads: analysis.Reads | None,
        values: Sequence[Mapping[str, pa.Scalar]],
    ) -> list[DataFrame]:
        real = {}
        for at in self._scope.found:
            scans = None if reads is None else reads.of(at)
            # What is not read may be read after all where the real rows' plan knows less (a column
            # that is never null): the answer does not depend on it, so no rows will do.
            unread = scans == ()
            real[at] = (
                nothing(self._scope.found[at].schema) if unread else self._table(context, at, reads)
            )
        self._scope.real = real
        context = self._careful(context)
        return [run_sql(context, self._plan.prepared.text, each) for each in values]

    def _careful(self, context: SessionContext) -> SessionContext:
        """The context, with what the files that are read want the engine to be told."""
        settings = dict(self._settings)
        for each in self.relations.values():
            settings |= each.settings
        if not settings:
            return context
        if (reads := self._plan.prepared.reads) is not None:
            settings |= reads.settings
        zone = self._plan.options.time_zone
        if self._scope.listed:  # for information_schema
            return self._contexts.private(zone, self._scope, settings)
        return self._contexts.shared(zone, settings)

    def _table(
        self,
        context: SessionContext,
        at: Reference,
        reads: analysis.Reads | None,
    ) -> Table:
        resolved = self._scope.found[at]
        if resolved.content is not None:
            return memory(resolved.schema, resolved.content.to_batches())
        version = self._version(at)
        planned = self._plan.prepared.reads
        scans = None if reads is None else reads.of(at)
        source = Source(
            version,
            _ROW_PARTS[resolved.part],
            scans,
            _label(at),
            keep_one=self._has_clock,
            share=self._share,
            holding=self._holding,
            reach=self._reach(context, version),
            # The files that a clock needs are looked at again, in the types of their bounds.
            views=planned is not None and planned.views and not self._has_clock,
            top=None if planned is None or scans is None else planned.top,
            touched=None if planned is None or scans is None else planned.touched_of(at),
            zero=reads is None or reads.looks_for_zero(at),
            whole=planned is not None and planned.whole,
            prune=planned is None or not UNPRUNED.items() <= planned.settings.items(),
        )
        self.relations[at] = relation(context, source, self._store)
        self.reports[at] = self.relations[at].report
        return self.relations[at].table

    def _reach(self, context: SessionContext, version: TableVersion) -> Reach:
        """Opens the stores that the files read lie in, until the statement ends."""

        def lease(place: str) -> str:
            options = self._store.store_options(version.pin.name, place)
            return self._contexts.stores.lease(context, options, self._holding.resources)

        return Reach(lease)

    def _checked(
        self,
        context: SessionContext,
        frames: list[DataFrame],
        values: Sequence[Mapping[str, pa.Scalar]],
    ) -> list[DataFrame]:
        """The frames, if the files kept are enough for the moment at which they were planned.

        ``now()`` stands still within a frame, but the filters that pruned came from an earlier
        one. Where a later moment needs more files, nothing is pruned.
        """
        scans = analysis.scans_by_label(frames[0].optimized_logical_plan())
        if scans is not None and all(
            self._enough(at, scans.get(_label(at))) for at in self.relations
        ):
            return frames
        return self._over(context, None, values)

    def _enough(self, at: Reference, scans: Sequence[Sequence[object]] | None) -> bool:
        reads = self._plan.prepared.reads
        planned = None if reads is None else reads.of(at)
        entries = self._version(at).entries
        if planned is None or entries.num_rows == 0 or self._scope.found[at].part == "live":
            return True
        if scans is None:  # the plan shows no scan of the files: nothing can be said
            return False
        kept = surviving(entries, planned)["path"].combine_chunks()
        needed = surviving(entries, scans)["path"].combine_chunks()
        return bool(pc.all(pc.is_in(needed, kept), min_count=0).as_py())

    def _version(self, at: Reference) -> TableVersion:
        key = self._scope.found[at].key
        assert key is not None  # noqa: S101  # only the server's own tables have none
        if key not in self.opened:
            pin = self._scope.pins[key]
            self.opened[key] = self._scope.tables.open(
                pin, need=self._needs[key], deadline_s=self._scope.wait_s
            )
        return self.opened[key]

    def _pairs_at_most(self) -> float:
        """How many pairs joins may compare, were each scan joined with every other."""
        reads = self._plan.prepared.reads
        if reads is None or not _MAKING_ROWS.isdisjoint(self._plan.prepared.text.words):
            return math.inf
        scans = {at: reads.of(at) for at in self.reports}
        if any(each is None for each in scans.values()):
            return math.inf
        rows = {at: max(1, each.rows + each.live_rows) for at, each in self.reports.items()}
        return float(math.prod(rows[at] ** len(each or ()) for at, each in scans.items()))

    def _refuse_products(self, values: Sequence[Mapping[str, pa.Scalar]], limit: int) -> None:
        if self._settings and self._pairs_at_most() <= limit:
            return  # the engine's estimates say nothing of rows
        zone = self._plan.options.time_zone
        settings = {**estimate.SETTINGS, **self._settings}
        context = self._contexts.private(zone, self._scope, settings)
        text = self._plan.prepared.text
        for each in values:
            for batch in _explained(context, text, each, explain=self._plan.explain).collect():
                for shown in batch.column(1).to_pylist():
                    estimate.refuse_products(shown, limit)


def _explained(
    context: SessionContext, text: SqlText, values: Mapping[str, pa.Scalar], *, explain: bool
) -> DataFrame:
    """EXPLAIN of the statement; ``explain``: it is one already. The context is used up."""
    if text.plan is None:
        sql = text.rewritten if explain else f"EXPLAIN {text.rewritten}"
        return context.sql(sql, options=READ_ONLY, param_values=_bound(text, values))
    aside = Catalog.memory_catalog()
    aside.register_schema(_ASIDE, Schema.memory_schema())
    aside.schema(_ASIDE).register_table(_ASIDE, run_sql(context, text).into_view())
    context.register_catalog_provider(_ASIDE, aside)
    return context.sql("EXPLAIN SELECT * FROM aside.aside.aside", options=READ_ONLY)


def _label(at: Reference) -> str:
    """What plans call a reference's scan of files; no table can have such a name."""
    return f"{at[0]}.{at[1]} files"
