"""Creating a table from its declaration, and adding the columns that the declaration gained."""

from __future__ import annotations

import contextlib

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    ResolveError,
    TableAlreadyExistsError,
    ValidationError,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from sqlalchemy.exc import IntegrityError

from catalog.declaration import bound, find, named, to_text
from catalog.errors import Fenced, SpecRefused, shorten
from catalog.growth import DECLARATION_PROPERTY, Columns, columns_of
from catalog.iceberg_schema import (
    conflict,
    declared_terms,
    iceberg_schema,
    parse_partition,
    partition_spec,
    plain_schema,
    sort_order,
)
from catalog.spec import TableSpec

#: Properties of a table that we create; the declaration's own come on top.
DEFAULT_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # Row groups as our own writer makes them (catalog/data_files.py), for other writers too.
    "write.parquet.row-group-limit": str(256 * 1024),
    # A commit a minute would leave 500,000 metadata files a year, each with all snapshots in it.
    # 100 old ones are kept: tickets name the metadata file of their snapshot, and one that is
    # older than 100 commits is answered from the newest file, which still names the snapshot.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    # Rule 15, for other tools' expiry (ours does not exist yet): snapshots by number, because an
    # old snapshot may have been the head until a moment ago. A ticket's life and the longest
    # statement are fifteen minutes together: 100 commits, at nine seconds each.
    "history.expire.min-snapshots-to-keep": "100",
    "history.expire.max-snapshot-age-ms": str(5 * 24 * 3600 * 1000),
    # For other tools' commits beside our frequent ones; our own loop (commits.py) reads none.
    "commit.retry.num-retries": "10",
}

#: Rounds of load → evolve when others change the table at the same time.
_ROUNDS = 5


def create_or_evolve(
    catalog: Catalog, spec: TableSpec, declared: pa.Schema, first: pa.Schema | None = None
) -> Table:
    """The table of ``spec``, able to hold rows of ``declared``.

    One that records a declaration is left as it is: its columns change in the commits of the rows
    that ask for it. ``first`` is the declaration, without ids, that a new table records.

    Raises:
        SpecRefused: see :meth:`catalog.lake.Lake.ensure_table`.
        Fenced: other tools kept changing the table.
    """
    wanted = iceberg_schema(declared)
    identifier = (*spec.name.namespace.split("."), spec.name.table)
    for _ in range(_ROUNDS):
        try:
            table = catalog.load_table(identifier)
        except NoSuchTableError:
            with contextlib.suppress(TableAlreadyExistsError):  # another process was quicker
                return _recorded(_create(catalog, spec, wanted), first)
            continue
        _refuse_other_layout(table, spec)
        if DECLARATION_PROPERTY in table.properties:
            return table
        try:
            return _evolve(table, spec, declared)
        except CommitFailedException:
            continue
    raise Fenced(f"table {spec.name} is being changed by others: try again")


def _create(catalog: Catalog, spec: TableSpec, schema: Schema) -> Table:
    levels = spec.name.namespace.split(".")
    for depth in range(1, len(levels) + 1):
        # A SQL catalog looks first and inserts then: a race ends in its primary key.
        with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
            catalog.create_namespace(tuple(levels[:depth]))
    return catalog.create_table(
        (*levels, spec.name.table),
        schema,
        partition_spec=partition_spec(spec.partition, schema),
        sort_order=sort_order(spec.sort, schema),
        properties={**DEFAULT_PROPERTIES, **spec.properties},
    )


def _recorded(table: Table, first: pa.Schema | None) -> Table:
    if first is None:
        return table
    declared = bound(first, plain_schema(table.schema(), ids=True))
    with table.transaction() as transaction:
        transaction.set_properties({DECLARATION_PROPERTY: to_text(declared)})
    return table


def _evolve(table: Table, spec: TableSpec, declared: pa.Schema) -> Table:
    """Adds nullable columns, widens types, relaxes required columns: what Iceberg can undo on read.

    Raises:
        SpecRefused: anything else; nothing was changed.
        CommitFailedException: others changed the table meanwhile.
    """
    transaction = table.transaction()
    update = transaction.update_schema()
    try:
        evolved = _united(update, declared)
    except (ValueError, ResolveError, ValidationError, TypeError) as error:
        reason = conflict(declared, plain_schema(table.schema())) or shorten(error)
        raise SpecRefused(f"table {spec.name}: {reason}") from error
    if (misfit := conflict(declared, plain_schema(evolved))) is not None:
        raise SpecRefused(f"table {spec.name}: {misfit}")
    if evolved.as_struct() != table.schema().as_struct():
        update.commit()
        return transaction.commit_transaction()
    return table


def _united(update: UpdateSchema, declared: pa.Schema) -> Schema:
    update.union_by_name(declared)
    return update._apply()  # noqa: SLF001 - what the schema would become, before it is committed


def _refuse_other_layout(table: Table, spec: TableSpec) -> None:
    """A declared partitioning must be the table's; no declaration accepts any."""
    if not spec.partition:
        return
    terms = [parse_partition(text) for text in spec.partition]
    columns = columns_of(table.metadata)
    declared = tuple((str(t.transform), _table_name(columns, t.column)) for t in terms)
    actual = declared_terms(table.spec(), table.schema())
    if declared != actual:
        has = ", ".join(f"{transform}({column})" for transform, column in actual) or "nothing"
        raise SpecRefused(
            f"table {spec.name} is partitioned by {has}, its declaration says "
            f"{', '.join(spec.partition)}: change the declaration or the table"
        )


def _table_name(columns: Columns, name: str) -> str:
    """What the table calls the column that the declaration calls ``name``, or did before."""
    ours = named(columns.declared or (), name)
    place = None if ours is None else find(columns.table, ours)
    return name if place is None else str(columns.table.field(place).name)
