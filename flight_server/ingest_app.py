"""The composition root of the ingest: catalog, registry, readers, metrics, joined and run."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from catalog.heads import Head
from catalog.ingest import Sources, run_ingest
from catalog.kafka import TopicReader
from catalog.owners import this_process
from catalog.pulse import Pulse
from catalog.registry import open_registry
from catalog.spec import TableName, TableSpec
from flight_server.config import Settings, load
from flight_server.exits import ExitCode
from flight_server.lakes import open_lake
from flight_server.layers import ConfigRefused
from flight_server.lifeline import say_ready
from flight_server.logs import log_to_stderr
from flight_server.metrics import IngestMetrics, MetricsEndpoint
from flight_server.versions import check_versions

log = logging.getLogger("k2.ingest")


def build_sources(settings: Settings, stack: ExitStack) -> Sources:
    """What the tables of one ingest share; ``stack`` closes it.

    Raises:
        ConfigRefused: something is missing in the settings.
        CatalogError: the catalog or the registry's folder cannot be opened.
    """
    if "bootstrap.servers" not in settings.kafka.properties():
        raise ConfigRefused(
            "kafka.bootstrap.servers: missing; set it in the file or as K2_KAFKA__BOOTSTRAP_SERVERS"
        )
    lake = open_lake(settings)
    stack.callback(lake.close)
    registry = open_registry(
        settings.registry.url, settings.registry.properties(), timeout_s=settings.registry.timeout_s
    )
    stack.callback(registry.close)
    metrics = IngestMetrics()
    if settings.live.metrics_port is not None:
        port = settings.live.metrics_port
        endpoint = MetricsEndpoint(settings.server.host, port, metrics.registry)
        stack.callback(endpoint.close)

    def reader(spec: TableSpec) -> TopicReader:
        return TopicReader(
            settings.kafka.properties(),
            spec.topics,
            key=spec.reads_key,
            headers=spec.reads_headers,
            monitor_group=settings.kafka.monitor_group,
        )

    def pulse(name: TableName, head: Head) -> Pulse:
        return Pulse(settings.kafka.properties(), name, head)

    return Sources(
        *(lake, registry, reader, settings.live_spec(), metrics),
        owner=this_process(settings.live.node),
        pulse=pulse,
    )


def ingest_until(stop: threading.Event, config: str | None = None) -> int:
    """The ingest's process.

    Raises:
        ConfigRefused, CatalogError: the start has failed.
    """
    check_versions()
    settings = load(Path(config) if config else None)
    log_to_stderr(settings.server.log_level)
    specs = settings.table_specs()
    if not specs:
        raise ConfigRefused("there is no [[table]]: declare one, or serve without an ingest")
    with ExitStack() as stack:
        sources = build_sources(settings, stack)
        errors = run_ingest(specs, sources, stop, lambda: say_ready(tables=len(specs)))
    log.info("ingest_ends stopped_tables=%d", len(errors))
    return ExitCode.FAILED if errors else ExitCode.OK
