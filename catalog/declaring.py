"""What a table is declared by when its ingest begins."""

from __future__ import annotations

from typing import Protocol

from catalog.decode import Decoder, first_declaration
from catalog.growth import continued
from catalog.heads import Head
from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.offsets import Marker
from catalog.registry import SchemaRegistry
from catalog.schemas import DeclaredSchema, declare
from catalog.spec import TableSpec


class Places(Protocol):
    """Where tables and schemas are."""

    @property
    def lake(self) -> Lake:
        """The tables."""

    @property
    def registry(self) -> SchemaRegistry:
        """The schemas."""


def declared_now(spec: TableSpec, registry: SchemaRegistry) -> DeclaredSchema:
    """The schema that the settings name: by its id, else the subject's newest.

    Raises:
        SchemaRefused, SchemaUnknown, RegistryUnavailable: as they say.
    """
    if spec.schema_id is not None:
        return declare(registry.get(spec.schema_id), spec)
    return declare(registry.latest(spec.subject or f"{spec.topics[0]}-value"), spec)


def declared_by(owner: Marker, spec: TableSpec, registry: SchemaRegistry) -> DeclaredSchema:
    """The schema that the table's writer declares: a follower's, so that tickets mean the same.

    Raises:
        SchemaRefused, SchemaUnknown, RegistryUnavailable: as they say.
    """
    return declare(registry.get(owner.schema_id), spec)


def continuing_decoder(
    declared: DeclaredSchema, head: Head, spec: TableSpec, sources: Places, held: Manifest | None
) -> Decoder:
    """A decoder that goes on with the declaration that the table's rows follow.

    It holds ``declared``, too, from the start, and grows with the records' schemas unless the
    settings fix one.

    Args:
        declared: what the settings and the registry say.
        head: the table's.
        spec: its declaration in the settings.
        sources: where tables and schemas are.
        held: the version of an earlier run, if there is one.

    Raises:
        SchemaChanged: the table cannot become one that holds ``declared``.
        SchemaConflict: another tool changed the table so that it cannot take the rows any more.
    """
    columns = sources.lake.columns(spec.name, head.metadata_location)
    same = held is not None and held.table_uuid == head.table_uuid
    before = held.arrow_schema if held is not None and same else None
    return Decoder(
        declared,
        sources.registry,
        spec,
        continued(first_declaration(declared, spec), columns, before),
        columns.last_id + 1,
        grows=spec.schema_id is None,
    )
