"""TPC-H over Iceberg tables through the server, beside other engines on the same Parquet files."""

from __future__ import annotations

import support_tpch as tpch

from bench.figures import Figure
from bench.stage import Stage, say
from bench.suite import suite

#: The smallest scale at which most queries find rows.
LEAST = 0.01


def lane(stage: Stage) -> list[Figure]:
    """All 22 queries at scale factor 1."""
    layout = stage.site("tpch", flush_rows=1000)
    say("tpch: generating")
    folders = tpch.make(layout.folder, max(1 / stage.shrink, LEAST), "tpch")
    return suite("TPC-H", layout, "tpch", folders, tpch.queries())
