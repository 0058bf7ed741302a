"""The composition root of what reads: the only place that makes its parts and joins them.

``build_reading`` makes catalog, tables and engine: what answers statements, in whichever process.
``build_server`` puts it behind Flight SQL. The ingest's root is ``ingest_app``: neither process
loads what only the other one needs.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from catalog.copies import Copies
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.spec import TableSpec
from catalog.tables import Tables
from flight_server.admission import SIZES
from flight_server.auth import StaticUsers, read_users
from flight_server.backend import EngineBackend
from flight_server.config import Settings, load
from flight_server.engine import Engine, Options
from flight_server.exits import ExitCode
from flight_server.lakes import open_lake
from flight_server.layers import ConfigRefused
from flight_server.lifeline import die_first, say_ready
from flight_server.limits import Limits
from flight_server.logs import log_to_stderr
from flight_server.metrics import Metrics, MetricsEndpoint, QueryLog
from flight_server.options import Settings as BackendSettings
from flight_server.protocol import Facts, FlightSqlServer, Sealer, Service, Tls
from flight_server.sessions import SessionLimits, SessionStore
from flight_server.spill import spill_folder
from flight_server.versions import check_versions, installed

log = logging.getLogger("k2.app")


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that answers statements."""

    lake: Lake
    tables: Tables
    engine: Engine
    metrics: Metrics
    queries: QueryLog
    options: Options


def limits_of(settings: Settings, spill: Path) -> Limits:
    """``[limits]`` as the engine wants them."""
    limits = settings.limits
    return Limits(
        statement_timeout_s=limits.statement_timeout_s,
        memory_bytes=int(limits.memory_bytes),
        spill_folder=spill,
        spill_bytes=int(limits.spill_bytes),
        footers_bytes=int(limits.footers_bytes),
        concurrency=limits.concurrency,
        reserved=limits.reserved,
        small_rows=limits.small_rows,
        queue_wait_s=limits.queue_wait_s,
        slow_reader_s=limits.slow_reader_s,
        max_sql_bytes=int(limits.max_sql_bytes),
        max_operators=limits.max_operators,
        max_depth=limits.max_depth,
        max_product_rows=limits.max_product_rows,
        max_result_rows=limits.max_result_rows,
        max_result_bytes=None if limits.max_result_bytes is None else int(limits.max_result_bytes),
        max_parameter_sets=limits.max_parameter_sets,
        batch_bytes=int(limits.batch_bytes),
    )


def default_options(specs: tuple[TableSpec, ...]) -> Options:
    """Names without a schema mean the declared tables' namespace, where there is only one."""
    namespaces = {spec.name.namespace for spec in specs}
    return Options(schema=namespaces.pop()) if len(namespaces) == 1 else Options()


def build_reading(settings: Settings, stack: ExitStack) -> Reading:
    """Opens catalog and live folder, and an engine over them; ``stack`` closes them.

    Raises:
        ConfigRefused, CatalogError: as :func:`open_lake` and the folders say.
    """
    spill = stack.enter_context(spill_folder(settings.limits.spill_folder))
    lake = open_lake(settings, Copies(spill / "copies", int(settings.limits.copies_bytes)))
    stack.callback(lake.close)
    specs = settings.table_specs()
    tables = Tables(
        lake,
        LiveReader(settings.live.folder),
        specs,
        refresh_ms=settings.catalog.refresh_ms,
        catalog=settings.catalog.name,
    )
    metrics = Metrics()
    queries = QueryLog(metrics)
    engine = Engine(
        tables,
        lake,
        limits_of(settings, spill),
        catalog_name=settings.catalog.name,
        system={
            "tables": tables.overview,
            "lag": tables.lag,
            "rejects": tables.rejects,
            "queries": queries.to_arrow,
        },
    )
    stack.callback(engine.close)
    metrics.watch_places(engine.admission.count, SIZES)
    return Reading(lake, tables, engine, metrics, queries, default_options(specs))


def build_server(settings: Settings, stack: ExitStack) -> tuple[FlightSqlServer, ...]:
    """The listeners, which answer from here on, the main one first; ``stack`` closes everything.

    Raises:
        ConfigRefused: the address cannot be listened on, a TLS file cannot be read, …
        CatalogError: the catalog does not answer.
    """
    reading = build_reading(settings, stack)
    server = settings.server
    key = server.ticket_key
    sealer = Sealer([key.get_secret_value().encode() if key else secrets.token_bytes(32)])
    told = BackendSettings(
        settings.catalog.name, reading.options, settings.limits.statement_timeout_s
    )
    service = Service(
        EngineBackend(reading.engine, reading.queries, told),
        sealer,
        SessionStore(sealer, SessionLimits(idle_s=server.session_life_s)),
        Facts("K2 Flight", installed("k2-flight") or "0", server.ticket_life_s),
    )
    listeners = [_listen(settings, service)]
    stack.callback(listeners[0].stop)
    if server.mtls_port is not None:
        listeners.append(_listen_certified(settings, service))
        stack.callback(listeners[1].stop)
    if server.metrics_port is not None:
        endpoint = MetricsEndpoint(server.host, server.metrics_port, reading.metrics.registry)
        stack.callback(endpoint.close)
    return tuple(listeners)


def _listen(settings: Settings, service: Service) -> FlightSqlServer:
    server = settings.server
    tls = _tls(server.tls_certificate, server.tls_key)
    with _listening("port", server.host, server.port) as address:
        scheme = "grpc" if tls is None else "grpc+tls"
        return FlightSqlServer(
            service, f"{scheme}://{address}", authenticator=_users(settings), tls=tls
        )


def _listen_certified(settings: Settings, service: Service) -> FlightSqlServer:
    """The listener where certificates say who calls; it answers from here on."""
    server = settings.server
    tls = _tls(server.tls_certificate, server.tls_key, server.mtls_ca)
    with _listening("mtls_port", server.host, server.mtls_port) as address:
        listener = FlightSqlServer(service, f"grpc+tls://{address}", tls=tls)
    log.info("mtls_ready host=%s port=%d", server.host, listener.port)
    if _users(settings) is None:
        log.warning(
            "anonymous_admitted host=%s port=%s advice=%s",
            *(server.host, server.port),
            "only the listener for certificates asks who calls: set server.users, server.tokens or "
            "server.users_file to close the other one",
        )
    return listener


@contextmanager
def _listening(setting: str, host: str, port: int | None) -> Iterator[str]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        yield address
    except (OSError, pa.ArrowException) as error:
        raise ConfigRefused(
            f"the server cannot listen on {address}: another one may run there, or the "
            f"certificates are none; change server.host or server.{setting}"
        ) from error


def _users(settings: Settings) -> StaticUsers | None:
    server = settings.server
    users = {name: value.get_secret_value() for name, value in server.users.items()}
    tokens = {name: value.get_secret_value() for name, value in server.tokens.items()}
    if server.users_file is not None:
        filed = read_users(server.users_file)
        twice = sorted(filed.keys() & users.keys())
        if twice:
            raise ConfigRefused(f"server.users_file: {twice[0]!r} stands in server.users too")
        users |= filed
    closed = users or tokens or server.users_file is not None  # an empty file lets nobody in
    return StaticUsers(users, tokens) if closed else None


def _tls(certificate: Path | None, key: Path | None, clients: Path | None = None) -> Tls | None:
    if certificate is None or key is None:
        return None
    try:
        authorities = None if clients is None else clients.read_bytes()
        return Tls(certificate.read_bytes(), key.read_bytes(), authorities)
    except OSError as error:
        raise ConfigRefused(
            "server.tls_certificate, server.tls_key or server.mtls_ca cannot be read: "
            f"{error.strerror}"
        ) from error


def serve_until(stop: threading.Event, config: str | None = None) -> int:
    """The server's process: answers until ``stop``, then lets running statements finish.

    Raises:
        ConfigRefused, CatalogError: the start has failed.
    """
    die_first()
    check_versions()
    settings = load(Path(config) if config else None)
    log_to_stderr(settings.server.log_level)
    with ExitStack() as stack:
        listeners = build_server(settings, stack)
        # Flight's own serve() would only wait, and take SIGTERM for itself.
        log.info("server_ready host=%s port=%d", settings.server.host, listeners[0].port)
        say_ready(port=listeners[0].port)
        stop.wait()
        log.info("server_ends drained=%s", _drained(listeners, settings.server.drain_s))
    return ExitCode.OK


def _drained(listeners: Sequence[FlightSqlServer], within_s: float) -> bool:
    """Takes no new call on any listener; whether what runs on all of them ended in time."""
    limit = time.monotonic() + within_s
    drains = [threading.Thread(target=each.shutdown, daemon=True) for each in listeners]
    for drain in drains:
        drain.start()
    for drain in drains:
        drain.join(max(0.0, limit - time.monotonic()))
    return not any(drain.is_alive() for drain in drains)
