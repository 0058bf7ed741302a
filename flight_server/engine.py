"""Plans and streams one statement over pinned versions.

``plan`` never executes and opens no data file: it plans over empty tables of the right schemas.
``stream`` opens the pinned versions, plans again over the files that survive pruning, and streams
record batches of exactly the promised schema. Nothing is kept between the two but the plan.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import pyarrow as pa
from datafusion import DataFrame, RecordBatchStream, SessionContext

from catalog.offsets import Offsets
from catalog.pins import PinKey
from catalog.spec import TableName
from catalog.tables import Pin
from flight_server import analysis, params
from flight_server.admission import Admission
from flight_server.cautions import real_schema, require_one_key
from flight_server.contexts import Contexts
from flight_server.engine_errors import engine_errors
from flight_server.execution import Execution, run_sql
from flight_server.explain import explained, versions
from flight_server.interrupt import Watchdog
from flight_server.judging import Planner, judged, require_read_right
from flight_server.limits import Deadline, Limits
from flight_server.names import NEEDS, SYSTEM_SCHEMA, Scope, TableSource, entered
from flight_server.nulls import require_nulls_kept
from flight_server.plans import Options, Plan, Prepared, Statement
from flight_server.readers import Store
from flight_server.results import ResultStream, Work
from flight_server.shapes import Shape, Shapes, names_of
from flight_server.shares import Share, divide
from flight_server.sqltext import SqlText, read
from flight_server.substrait import read_plan
from flight_server.tuning import batches_for, may_be_views
from flight_server.wire import wire_schema

__all__ = ["Engine", "Listed", "Options", "Plan", "ResultStream", "Statement"]

_NO_ENDS: Mapping[TableName, Offsets] = MappingProxyType({})
_NEVER = Deadline()
_PLAIN: Mapping[str, str] = MappingProxyType({})
#: The one table type: Grafana and Power BI know it by this name.
_TABLE = "BASE TABLE"


@dataclass(frozen=True, slots=True)
class Listed:
    """One table, for metadata; ``columns`` is asked only where it is wanted.

    Attributes:
        version: names what ``columns`` gives, for whoever remembers it; None: nothing does.
    """

    catalog: str
    schema: str
    name: str
    type: str
    columns: Callable[[], pa.Schema]
    version: str | None = None


class Engine:
    """Answers statements from pinned versions; any thread.

    Args:
        tables: versions.
        store: how files of the lake are opened.
        limits: the settings.
        catalog_name: the catalog's name in SQL.
        system: name → rows of each table in the schema ``system``.
    """

    def __init__(
        self,
        tables: TableSource,
        store: Store,
        limits: Limits,
        *,
        catalog_name: str = "lake",
        system: Mapping[str, Callable[[], pa.Table]] | None = None,
    ) -> None:
        self._tables = tables
        self._store = store
        self._limits = limits
        self._catalog_name = catalog_name
        self._system = dict(system or {})
        self._contexts = Contexts(limits, catalog_name)
        self._admission = Admission(
            limits.concurrency, limits.queue_wait_s, reserved=limits.reserved
        )
        self._watchdog = Watchdog()
        self._shapes = Shapes()

    def plan(
        self,
        statement: Statement,
        options: Options,
        *,
        pins: Sequence[Pin] = (),
        at_least: Mapping[TableName, Offsets] = _NO_ENDS,
        wait_s: float | None = None,
    ) -> Plan:
        """Plans without executing, and without opening a data file.

        Args:
            statement: SQL or a Substrait plan; without parameters bound, only described.
            options: the session's.
            pins: versions that stand (a ticket's); other tables are pinned at first reference.
            at_least: what the session has seen, per table (rule 20).
            wait_s: how long a table may take to get there.

        Raises:
            SyntaxRefused, InvalidArgument, NotFound, Unimplemented, ResourceExhausted: the
                statement's fault.
            CatalogError: a table cannot be pinned now (NotReady, LogGap, LakeUnavailable, …).
        """
        params.sets(statement.parameters, self._limits.max_parameter_sets)
        scope = self._scope(options, {pin.key: pin for pin in pins}, at_least, wait_s)
        shape = self._shapes.get(statement, options)
        if shape is None or not shape.holds(scope):
            shape = self._plan_text(statement, options, scope)
            self._shapes.put(statement, options, shape, scope)
        return Plan(
            statement=statement,
            options=options,
            schema=shape.schema,
            pins=tuple(scope.pins[key] for key in sorted(scope.pins)),
            parameter_schema=shape.parameter_schema,
            explain=shape.text.kind == "explain",
            described=shape.described,
            prepared=Prepared(shape.text, dict(scope.found), shape.reads, shape.divisible),
        )

    def _plan_text(self, statement: Statement, options: Options, scope: Scope) -> Shape:
        """What the engine makes of the text, over stubs of what its names mean."""
        text = self._read(statement)
        with engine_errors(text, scope):
            planner = Planner(run_sql, functools.partial(self._context, text, options, scope))
            context = planner.context()
            with entered(scope):
                frame = run_sql(context, text)
                analysis.require_few_joins(frame.logical_plan())
                analysis.require_reading(frame.logical_plan())
                require_one_key(frame.logical_plan())
                require_nulls_kept(frame.logical_plan())
                require_read_right(frame.logical_plan())
                wanted = (
                    params.parameter_schema(context, text) if text.parameters else pa.schema([])
                )
                is_bound = not text.parameters or statement.parameters is not None
                told = wanted if is_bound else params.described(context, text, wanted)
                plan, reads = None, None
                if is_bound:
                    sets = self._sets(text, statement, wanted)
                    frame = planner.frame(text, sets[0]) if text.parameters else frame
                    found = judged(text, sets, planner, frame)
                    text, plan = found.text, found.plan
                    reads = replace(
                        analysis.reads_of(plan, scope, unbound_join=found.unbound_join),
                        settings={**batches_for(plan), **found.settings},
                        views=len(sets) == 1 and may_be_views(context, text, plan),
                    )
                divisible = (
                    options.endpoints > 1
                    and plan is not None
                    and analysis.is_divisible([frame.logical_plan(), plan], text.words)
                )
                schema = wire_schema(real_schema(context, frame, plan))
        return Shape(text, names_of(scope), schema, wanted, told, reads, divisible)

    def _sets(
        self, text: SqlText, statement: Statement, wanted: pa.Schema
    ) -> Sequence[Mapping[str, pa.Scalar]]:
        """The values of each set of parameters; without parameters: one without values."""
        given = statement.parameters
        params.require_small(text, given)
        count = params.sets(given, self._limits.max_parameter_sets)
        return [params.bound(wanted, given, row) for row in range(count)]

    def divide(self, plan: Plan) -> tuple[Share, ...]:
        """Shares of a plan's rows, each to be streamed by itself; none: only the whole.

        Only plans that treat every row of one table by itself, with one set of parameters.

        Raises:
            CatalogError: the pinned version cannot be opened.
        """
        sets = params.sets(plan.statement.parameters, self._limits.max_parameter_sets)
        found = list(plan.prepared.found.values())
        if not plan.prepared.divisible or sets > 1 or len(found) != 1 or plan.explain:
            return ()
        if found[0].content is not None:
            return ()
        (pin,) = plan.pins
        need = NEEDS[found[0].part]
        return divide(self._tables.open(pin, need=need), plan.options.endpoints)

    def stream(
        self,
        plan: Plan,
        *,
        deadline: Deadline = _NEVER,
        share: Share | None = None,
        wait_s: float | None = None,
    ) -> ResultStream:
        """Executes a plan over its pins (rule 17).

        Args:
            plan: from :meth:`plan`, of this process.
            share: one of :meth:`divide`; None: all rows.
            deadline: earlier than the server's own limit, if at all.
            wait_s: how long a table may take to get to a version that another server pinned.

        Returns:
            A stream of ``plan.schema``; close it, also after an error.

        Raises:
            VersionGone: a pinned version cannot be answered any more: plan again.
            Overloaded, DeadlineExceeded, ResourceExhausted: limits.
            InvalidArgument: parameters are missing.
        """
        limit = Deadline.after(self._limits.statement_timeout_s)
        deadline = deadline.earlier(limit).earlier(Deadline.after(plan.options.timeout_s))
        work = Work(
            *(self._limits, deadline, self._watchdog, self._admission), is_share=share is not None
        )
        try:
            batches = self._batches(plan, work, share, wait_s)
            return ResultStream(plan.schema, batches, work)
        except BaseException:
            work.close()
            raise

    def list_tables(self) -> list[Listed]:
        """Every table, sorted by schema and name; columns are read when asked for.

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        listed = [
            Listed(self._catalog_name, SYSTEM_SCHEMA, name, _TABLE, self._system_columns(name))
            for name in self._system
        ]
        listed += [
            Listed(
                *(self._catalog_name, name.namespace, name.table, _TABLE),
                *(self._columns(name, location), location),
            )
            for name, location in self._tables.listing().items()
        ]
        return sorted(listed, key=lambda table: (table.schema, table.name))

    @property
    def admission(self) -> Admission:
        """Who runs and who waits, for metrics."""
        return self._admission

    def close(self) -> None:
        """Ends the engine's own thread; idempotent."""
        self._watchdog.close()

    def _columns(self, name: TableName, location: str | None) -> Callable[[], pa.Schema]:
        return lambda: wire_schema(self._tables.describe(name, location))

    def _system_columns(self, name: str) -> Callable[[], pa.Schema]:
        return lambda: wire_schema(self._system[name]().schema)

    def _batches(
        self, plan: Plan, work: Work, share: Share | None, wait_s: float | None
    ) -> Iterator[pa.RecordBatch]:
        """Everything up to the first batch happens here, so that errors come before a stream."""
        text = plan.prepared.text
        scope = self._scope(plan.options, {pin.key: pin for pin in plan.pins}, _NO_ENDS, wait_s)
        scope.found.update(plan.prepared.found)
        execution = Execution(self._contexts, self._store, plan, scope, share, work.holding)
        with engine_errors(text, scope):
            if (answer := execution.known()) is not None:
                work.reports = execution.reports
                return iter((answer,))
            reads = plan.prepared.reads
            settings = _PLAIN if reads is None else reads.settings
            context = self._context(text, plan.options, scope, settings)

            def frames() -> Sequence[DataFrame]:
                with entered(scope):
                    return execution.frames(context, self._limits)

            def start(number: int) -> RecordBatchStream:
                stream = execution.planned(lambda: work.run(frames()[number].execute_stream))
                execution.require_files(context)
                return stream

            count = len(execution.planned(frames))
            work.reports = execution.reports
            work.weigh(execution.rows_to_read(count))
            first = start(0)
        streams = itertools.chain([first], map(start, range(1, count)))
        batches = _batches(streams, work, text, scope)
        if not plan.explain:
            return batches
        folders = [
            self._store.location(name, version.pin.metadata_location)
            for (name, _), version in execution.opened.items()
        ]
        lines = list(versions(scope.pins, scope.found, work.reports))
        return explained(plan.schema, lines, batches, folders)

    def _read(self, statement: Statement) -> SqlText:
        bounds = self._limits.bounds()
        if statement.substrait is not None:
            return read_plan(statement.substrait, statement.sql, bounds)
        return read(statement.sql, bounds)

    def _scope(
        self,
        options: Options,
        pins: Mapping[PinKey, Pin],
        at_least: Mapping[TableName, Offsets],
        wait_s: float | None,
    ) -> Scope:
        return Scope(
            tables=self._tables,
            system=self._system,
            default_schema=options.schema,
            time_zone=options.time_zone,
            pins=dict(pins),
            at_least=at_least,
            wait_s=wait_s,
        )

    def _context(
        self, text: SqlText, options: Options, scope: Scope, settings: Mapping[str, str] = _PLAIN
    ) -> SessionContext:
        """The shared context; a private one where the engine asks for names while it executes."""
        if "information_schema" not in text.words and text.first != "show":
            return self._contexts.shared(options.time_zone, settings)
        scope.describe_all()
        return self._contexts.private(options.time_zone, scope, settings)


def _batches(
    streams: Iterator[RecordBatchStream], work: Work, text: SqlText, scope: Scope
) -> Iterator[pa.RecordBatch]:
    """The batches of each stream, one stream after the other."""
    with engine_errors(text, scope):
        for stream in streams:
            while (batch := work.run(functools.partial(next, stream, None))) is not None:
                yield batch.to_pyarrow()
