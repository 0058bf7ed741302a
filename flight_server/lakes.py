"""Opens the catalog that the settings name."""

from __future__ import annotations

from catalog.copies import Copies
from catalog.lake import Lake
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
