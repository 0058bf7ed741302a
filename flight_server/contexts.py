"""Engine contexts: settings, the shared memory pool, object stores.

A context per time zone and settings is kept, the longest unused one dropped first, and holds no
table (``names`` provides them per statement): its caches of Parquet footers and statistics serve
every statement. Measured over 300 files: ``count(*)`` 7 ms instead of 18 ms in a fresh context,
which reads 7.9 MB of footers again. Each context has caches of its own, whatever runtime it is
given (datafusion-python 55.0).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from cachetools import LRUCache
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions

from flight_server.limits import Limits
from flight_server.names import SESSION_SCHEMA, LakeCatalog, Scope
from flight_server.protocol.errors import InvalidArgument
from flight_server.stores import Stores

#: Time zones, and settings, whose context is kept.
_MAX_CONTEXTS = 16
_ContextKey = tuple[str, tuple[tuple[str, str], ...]]

#: The least memory with which a partition's sort spills and then merges what it spilled.
_SORT_BYTES = 20 * 1024**2
#: What every sort puts aside for that merge by default, at most.
_MERGE_BYTES = 10 * 1024**2

#: The engine's setting of how many rows a batch has.
BATCH_SIZE = "datafusion.execution.batch_size"
#: A setting of ours: rules of the engine's optimizer that are left out, with spaces between them.
WITHOUT = "k2.without"
#: What part of the bound on footers a context has: the two in which UTC's statements run, which
#: differ in their batches (see ``tuning``), and each of the others; all together, no more than it.
_MAJOR_SHARE = 3 / 8
_MINOR_SHARE = (1 - 2 * _MAJOR_SHARE) / (_MAX_CONTEXTS - 2)

#: Nothing but queries: DDL would run at once, DML would change the live table's memory.
READ_ONLY = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)

_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # 0.1 + 0.2 = 0.3, and a price is never compared as a float.
        "datafusion.sql_parser.parse_float_as_decimal": "true",
        # Which strings are views is decided by statement (``flight_server.tuning``), not here.
        "datafusion.sql_parser.map_string_types_to_utf8view": "false",
        "datafusion.execution.parquet.schema_force_view_types": "false",
        # Whole tables go over the wire a quarter faster than by the default of 8,192 rows: each
        # batch costs 100 µs of Python. Statements with short answers have their own size
        # (``flight_server.tuning``).
        BATCH_SIZE: "32768",
        "datafusion.catalog.information_schema": "true",
        # Wrong where a table's columns were renamed or two tables have nested ones: the engine
        # (55.0) refuses sound statements over fields of structs.
        "datafusion.optimizer.enable_leaf_expression_pushdown": "false",
        # The engine (55.0) says of x IS TRUE that it is never null and then finds that it may be:
        # DISTINCT and GROUP BY over one were refused. Both are right about the rows.
        "datafusion.execution.skip_physical_aggregate_schema_check": "true",
        # Wrong (55.0): what MIN has seen so far leaves out rows that a MAX beside it needs.
        "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown": "false",
        # What the estimate of a join without a condition is read from.
        "datafusion.explain.show_statistics": "false",
    }
)


class Contexts:
    """The engine's contexts; any thread. Memory is one pool for all of them.

    Attributes:
        stores: what they may read files from.
    """

    def __init__(self, limits: Limits, catalog_name: str) -> None:
        self._limits = limits
        self._catalog_name = catalog_name
        runtime = RuntimeEnvBuilder().with_fair_spill_pool(limits.memory_bytes)
        if limits.spill_folder is None:
            self._runtime = runtime.with_disk_manager_os()
        else:
            limits.spill_folder.mkdir(parents=True, exist_ok=True)
            self._runtime = runtime.with_disk_manager_specified(str(limits.spill_folder))
        self._lock = threading.Lock()
        self._shared: LRUCache[_ContextKey, SessionContext] = LRUCache(_MAX_CONTEXTS)
        self.stores = Stores()

    def shared(
        self, time_zone: str, settings: Mapping[str, str] = MappingProxyType({})
    ) -> SessionContext:
        """The context of a time zone, and of settings beside our own.

        Raises:
            InvalidArgument: there is no such time zone.
        """
        key = (time_zone, tuple(sorted(settings.items())))
        with self._lock:
            context = self._shared.get(key)
            if context is None:
                context = self._new(time_zone, settings, LakeCatalog())
                self._shared[key] = context
            return context

    def private(
        self, time_zone: str, scope: Scope, settings: Mapping[str, str] | None = None
    ) -> SessionContext:
        """A context of one statement, whose names are that statement's on every thread."""
        with self._lock:
            return self._new(time_zone, settings or {}, LakeCatalog(scope))

    def _new(
        self, time_zone: str, settings: Mapping[str, str], catalog: LakeCatalog
    ) -> SessionContext:
        if not _is_time_zone(time_zone):
            raise InvalidArgument(f"there is no time zone {time_zone[:64]!r}: write Europe/Berlin")
        own = {"datafusion.execution.time_zone": time_zone, **settings}
        without = own.pop(WITHOUT, "").split()
        config = (
            SessionConfig({**_SETTINGS, **_shares_of(self._limits.memory_bytes), **own})
            .with_create_default_catalog_and_schema(enabled=False)
            .with_default_catalog_and_schema(self._catalog_name, SESSION_SCHEMA)
        )
        context = SessionContext(config, self._runtime)
        for rule in without:
            context.remove_optimizer_rule(rule)
        spill_kib = self._limits.spill_bytes // 1024
        context.sql(f"SET datafusion.runtime.max_temp_directory_size = '{spill_kib}K'")
        footers_kib = int(self._limits.footers_bytes * _share(time_zone, settings)) // 1024
        context.sql(f"SET datafusion.runtime.metadata_cache_limit = '{footers_kib}K'")
        context.register_catalog_provider(self._catalog_name, catalog)
        return context


@cache
def usable_cores() -> int:
    """What the engine divides a statement by: cores, less what the process may not use."""
    context = SessionContext(SessionConfig({"datafusion.catalog.information_schema": "true"}))
    name = "datafusion.execution.target_partitions"
    rows = context.sql(f"SELECT value FROM information_schema.df_settings WHERE name = '{name}'")  # noqa: S608
    return int(rows.collect()[0].column(0)[0].as_py())


def _shares_of(memory_bytes: int) -> Mapping[str, str]:
    """How many partitions sort at once in a pool, and what each keeps for merging its spilled runs.

    By the engine's defaults (a partition per core, 10 MiB put aside by each) a sort in a small pool
    fails or not by chance: the runs fill the pool, and nothing is left for the merge above them.
    """
    partitions = max(1, min(usable_cores(), memory_bytes // _SORT_BYTES))
    merge_bytes = min(_MERGE_BYTES, memory_bytes // partitions // 16)
    return {
        "datafusion.execution.target_partitions": str(partitions),
        "datafusion.execution.sort_spill_reservation_bytes": str(merge_bytes),
    }


def _share(time_zone: str, settings: Mapping[str, str]) -> float:
    is_major = time_zone == "UTC" and not settings.keys() - {BATCH_SIZE}
    return _MAJOR_SHARE if is_major else _MINOR_SHARE


def _is_time_zone(name: str) -> bool:
    from zoneinfo import available_timezones  # noqa: PLC0415  # reads the zone folders once

    return name == "UTC" or name in available_timezones()
