"""The lanes by name, in the order in which the page shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench import (
    fetch_lane,
    files_lane,
    freshness_lane,
    growth_lane,
    hits_lane,
    hybrid_lane,
    ingest_lane,
    latency_lane,
    memory_lane,
    metadata_lane,
    poison_lane,
    pool_lane,
    recovery_lane,
    tpch_lane,
    verify_lane,
)
from bench.figures import Figure
from bench.stage import Stage

LANES: Mapping[str, Callable[[Stage], list[Figure]]] = {
    "ingest": ingest_lane.lane,
    "freshness": freshness_lane.lane,
    "hybrid": hybrid_lane.lane,
    "fetch": fetch_lane.lane,
    "tpch": tpch_lane.lane,
    "hits": hits_lane.lane,
    "latency": latency_lane.lane,
    "files": files_lane.lane,
    "metadata": metadata_lane.lane,
    "growth": growth_lane.lane,
    "memory": memory_lane.lane,
    "pool": pool_lane.lane,
    "verify": verify_lane.lane,
    "poison": poison_lane.lane,
    "recovery": recovery_lane.lane,
}
