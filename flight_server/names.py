"""What a statement's table names mean: one pin per table, whatever the number of references.

A scope belongs to one statement. While that statement is planned, the engine asks the catalog
provider for names, on the planning thread; the provider asks the thread's scope. So contexts are
shared (their caches of footers are worth a lot) and hold no table at all.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol

import pyarrow as pa
from datafusion import SessionContext
from datafusion.catalog import CatalogProvider, Schema, SchemaProvider, Table

from catalog.errors import CatalogError, NoSuchVersion, NotReady, TableNotFound
from catalog.offsets import Offsets
from catalog.pins import PinKey
from catalog.scan import empty_listing
from catalog.spec import TableName
from catalog.tables import Need, Pin, TableVersion
from flight_server.sqlversions import named_version

__all__ = ["LakeCatalog", "Part", "Reference", "Resolved", "Scope", "TableSource", "entered"]

#: The schema that unqualified names belong to; the scope puts the session's own in its place.
SESSION_SCHEMA = "$session"
#: The schema of the server's own tables.
SYSTEM_SCHEMA = "system"

#: "about": a table that says something of the table: its snapshots, files, …
Part = Literal["hybrid", "runs", "live", "about", "system"]
_PARTS: Mapping[str, Part] = {"runs": "runs", "live": "live"}
#: Suffixes of tables about a table.
ABOUT = frozenset({"offsets", "snapshots", "files", "manifests", "history", "partitions", "refs"})
#: What of a table an older version has none of.
_ONLY_NOW = frozenset({"live", "offsets"})
#: The engine looks for a table of this name before it takes the function; the catalog, which may
#: be far away, is asked for one only if it lists one.
TABLE_FUNCTIONS = frozenset({"generate_series", "range"})
#: Parts whose rows are a version's own, and what of it they need.
NEEDS: Mapping[Part, Need] = {"hybrid": "hybrid", "runs": "runs", "live": "split"}
_NO_OFFSETS = Offsets()

#: (schema, name) as the catalog knows it.
Reference = tuple[str, str]


class TableSource(Protocol):
    """What the engine reads of ``catalog.tables.Tables``."""

    def names(self) -> tuple[TableName, ...]:
        """Every table."""

    def pin(
        self,
        name: TableName,
        *,
        at_least: Offsets = ...,
        deadline_s: float | None = None,
        tail: bool = True,
        as_of: str = "",
    ) -> Pin:
        """A version."""

    def schema(self, pin: Pin) -> pa.Schema:
        """Its columns."""

    def open(
        self, pin: Pin, *, need: Need = "hybrid", deadline_s: float | None = None
    ) -> TableVersion:
        """Its rows."""

    def listing(self) -> Mapping[TableName, str | None]:
        """Every table, with what names its columns, where something does."""

    def describe(self, name: TableName, location: str | None = None) -> pa.Schema:
        """A table's columns, without a version."""

    def metadata_table(self, pin: Pin, which: str) -> pa.Table:
        """A ``$`` table."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name means in one statement.

    Attributes:
        part: which rows of the table.
        name: the table; None for the server's own tables.
        schema: the columns.
        content: the rows of a table about a table, or of a system table.
        as_of: the older version that is named; "": the newest.
    """

    part: Part
    name: TableName | None
    schema: pa.Schema
    content: pa.Table | None = None
    as_of: str = ""

    @property
    def key(self) -> PinKey | None:
        """Which pin it stands on; None: none."""
        return None if self.name is None else (self.name, self.as_of)


@dataclass(slots=True)
class Scope:
    """The names of one statement (rule 16). Used by one thread at a time.

    Attributes:
        tables: where versions come from.
        system: name → rows, for the schema ``system``.
        default_schema: for names without a schema.
        time_zone: of times in names that say none.
        pins: versions; those given stand, others are added at the first reference.
        at_least: what the session has seen, per table (rule 20).
        wait_s: how long a table may take to get there, or to a version that is pinned already.
        found: what each reference came to mean.
        listed: every table, for information_schema; none of them pinned.
        real: what to scan for each reference; None while the statement is planned over stubs.
        missing: names that were asked for and do not exist.
        error: the first error that a reference met: the engine passes it on as text only.
    """

    tables: TableSource
    system: Mapping[str, Callable[[], pa.Table]]
    default_schema: str
    time_zone: str = "UTC"
    pins: dict[PinKey, Pin] = field(default_factory=dict)
    at_least: Mapping[TableName, Offsets] = field(default_factory=dict)
    wait_s: float | None = None
    found: dict[Reference, Resolved] = field(default_factory=dict)
    listed: dict[Reference, pa.Schema] = field(default_factory=dict)
    real: dict[Reference, Table] | None = None
    missing: list[Reference] = field(default_factory=list)
    error: Exception | None = None

    def reference(self, schema: str | None, name: str) -> Reference:
        """The full form of a name; None or the session's place holder is the default schema."""
        return (self.default_schema if schema in {None, SESSION_SCHEMA} else str(schema), name)

    def provide(self, schema: str, name: str) -> Table | None:
        """The engine's table for a name; None where there is none."""
        at = self.reference(schema, name)
        try:
            resolved = self.resolve(at)
        except Exception as error:
            self.error = self.error or error
            raise
        if resolved is None:
            self.missing.append(at)
            return None
        if self.real is not None and at in self.real:
            return self.real[at]
        return stub(resolved.schema)

    def resolve(self, at: Reference) -> Resolved | None:
        """What a name means; the same at every reference."""
        if at not in self.found:
            resolved = self._system(at[1]) if at[0] == SYSTEM_SCHEMA else self._table(*at)
            if resolved is None:
                return None
            self.found[at] = resolved
        return self.found[at]

    def describe_all(self) -> None:
        """Lists every table without pinning it, for information_schema.

        A table that has not been published yet is listed without columns.
        """
        for name in self.tables.names():
            self.listed[name.namespace, name.table] = _columns(self.tables, name)
        for system_name, make in self.system.items():
            self.listed[SYSTEM_SCHEMA, system_name] = make().schema
        for schema in self.listed.values():
            stub(schema)

    def needs(self) -> dict[PinKey, Need]:
        """Per version, what of it the statement's references read."""
        wanted: dict[PinKey, set[Need]] = {}
        for resolved in self.found.values():
            if resolved.key is not None and resolved.part in NEEDS:
                wanted.setdefault(resolved.key, set()).add(NEEDS[resolved.part])
        return {
            key: next(iter(needs)) if len(needs) == 1 else "split" for key, needs in wanted.items()
        }

    def nearest(self, at: Reference) -> list[str]:
        """Existing names that look like a missing one, best first."""
        known = [str(name) for name in self.tables.names()]
        known += [f"{SYSTEM_SCHEMA}.{name}" for name in self.system]
        schema, name = at
        by_table = {each.rpartition(".")[2]: each for each in known}
        close = difflib.get_close_matches(f"{schema}.{name}", known, n=3, cutoff=0.6)
        close += [by_table[t] for t in difflib.get_close_matches(name, by_table, n=2, cutoff=0.6)]
        return list(dict.fromkeys(close))

    def _system(self, name: str) -> Resolved | None:
        make = self.system.get(name)
        if make is None:
            return None
        content = make()
        return Resolved("system", None, content.schema, content)

    def _table(self, schema: str, name: str) -> Resolved | None:
        bare, as_of = named_version(name, self.time_zone)
        base, _, suffix = bare.rpartition("$")
        if not base or suffix not in ABOUT | _PARTS.keys():
            base, suffix = bare, ""
        table = TableName(schema, base)
        if name in TABLE_FUNCTIONS and table not in self.tables.names():
            return None
        if as_of and suffix in _ONLY_NOW:
            raise NoSuchVersion(f"{table}: ${suffix} is about the newest version only")
        try:
            pin = self._pin(table, as_of, tail=suffix in {"", "live"})
        except TableNotFound:
            return None
        if suffix in ABOUT:
            content = self.tables.metadata_table(pin, suffix)
            return Resolved("about", table, content.schema, content, as_of)
        return Resolved(_PARTS.get(suffix, "hybrid"), table, self.tables.schema(pin), None, as_of)

    def _pin(self, name: TableName, as_of: str, *, tail: bool) -> Pin:
        key = name, as_of
        if key not in self.pins:
            at_least = self.at_least.get(name, _NO_OFFSETS)
            self.pins[key] = self.tables.pin(
                name, at_least=at_least, deadline_s=self.wait_s, tail=tail, as_of=as_of
            )
        return self.pins[key]


def _columns(tables: TableSource, name: TableName) -> pa.Schema:
    try:
        return tables.describe(name)
    except (NotReady, TableNotFound):
        return pa.schema([])


# The engine must not be called by the thread that it has asked (its runtime panics), so stubs are
# made by another one.
_maker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="k2-stubs")
#: Stubs that are kept, one per schema version.
_MAX_STUBS = 512


@lru_cache(maxsize=_MAX_STUBS)
def stub(schema: pa.Schema) -> Table:
    """A table of ``schema`` that can be planned over and is never read."""
    return _maker.submit(_make_stub, schema).result()


def _make_stub(schema: pa.Schema) -> Table:
    context = SessionContext()
    empty_listing(schema, context)
    return context.catalog().schema().table("files")


_current = threading.local()


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Names asked for by this thread mean what ``scope`` says."""
    before = getattr(_current, "scope", None)
    _current.scope = scope
    try:
        yield scope
    finally:
        _current.scope = before


class LakeCatalog(CatalogProvider):
    """The catalog of a context.

    Args:
        scope: of the one statement that the context belongs to: what it lists is shown by
            information_schema, which asks while the statement runs, on any thread.
    """

    def __init__(self, scope: Scope | None = None) -> None:
        self._scope = scope

    def schema_names(self) -> set[str]:
        """The schemas that information_schema lists."""
        return {schema for schema, _ in self._scope.listed} if self._scope else set()

    def schema(self, name: str) -> Schema | None:
        """Any schema: whether it exists shows at the table."""
        return LakeSchema(name, self._scope)  # type: ignore[return-value]  # its binding takes both


class LakeSchema(SchemaProvider):
    """One namespace."""

    #: The engine reads an attribute, not a method; the instance's own takes its place.
    table_names: Sequence[str] = ()  # type: ignore[assignment]  # see above

    def __init__(self, name: str, scope: Scope | None) -> None:
        self._name = name
        self._listed = {t: s for (n, t), s in scope.listed.items() if n == name} if scope else {}
        self.table_names = sorted(self._listed)

    def table(self, name: str) -> Table | None:
        """What the name means to the statement that this thread plans; else, what is listed."""
        scope: Scope | None = getattr(_current, "scope", None)
        if scope is not None:
            return scope.provide(self._name, name)
        return stub(self._listed[name]) if name in self._listed else None

    def table_exist(self, name: str) -> bool:
        """Whether there is such a table."""
        scope: Scope | None = getattr(_current, "scope", None)
        if scope is None:
            return name in self._listed
        try:
            return scope.resolve(scope.reference(self._name, name)) is not None
        except CatalogError as error:
            scope.error = scope.error or error
            return False
