"""Opens the catalog, and the topics of a table, that the settings name."""

from __future__ import annotations

from catalog.copies import Copies
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.spec import TableName, TableSpec
from flight_server.config import Settings
from flight_server.layers import ConfigRefused


def open_lake(settings: Settings, copies: Copies | None = None) -> Lake:
    """The catalog; ``copies``: where files are kept without their deleted rows.

    Raises:
        ConfigRefused: nothing says where it is.
        LakeUnavailable: it does not answer.
    """
    catalog = settings.catalog
    properties = catalog.properties()
    if not properties.keys() & {"uri", "type", "py-catalog-impl"}:
        raise ConfigRefused(
            'catalog.uri: missing; set it to the catalog\'s address, as uri = "sqlite:///lake.db" '
            'with warehouse = "./warehouse"'
        )
    return Lake.open(catalog.name, properties, timeout_s=catalog.timeout_s, copies=copies)


def spec_of(settings: Settings, name: TableName) -> TableSpec:
    """The declaration of a table.

    Raises:
        ConfigRefused: there is none.
    """
    for spec in settings.table_specs():
        if spec.name == name:
            return spec
    raise ConfigRefused(f"table: {name} is not declared: add a [[table]] that names its topics")


def open_reader(settings: Settings, spec: TableSpec) -> TopicReader:
    """A reader of the table's topics, which no group knows of."""
    properties = settings.kafka.properties()
    return TopicReader(properties, spec.topics, key=spec.key, headers=spec.headers)
