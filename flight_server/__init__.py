"""K2 Flight: exact SQL over Iceberg history and the live Kafka tail.

``open`` gives the same engine as the server's in this process::

    import flight_server

    with flight_server.open("k2.toml") as db:
        frame = db.sql("select symbol, count(*) from market_data.trades group by symbol").pandas()
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flight_server.database import Database

__all__ = ["open"]


def open(  # noqa: A001  # flight_server.open reads as it should
    config: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Database:
    """The tables of a configuration, without a server; see ``flight_server.database``.

    Args:
        config: the configuration file; ``k2.toml`` by default.
        overrides: section → key → value, over the file and the environment.
    """
    # The supervisor and the command line import this package; they must not load the engine.
    from flight_server.database import open_database  # noqa: PLC0415

    return open_database(config, overrides)
