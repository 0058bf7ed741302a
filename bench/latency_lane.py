"""What small requests cost, beside peers and bare constants; and the kernel without the network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as fl
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog
from support_site import connect as connected

from bench import peers
from bench.bare import Bare, Client, bare_sql
from bench.figures import Figure, absent, at_least, at_most, below
from bench.stage import Stage, quantile, running, say
from flight_server.protocol import (
    Batches,
    Call,
    Planned,
    Principal,
    ReadOnlyBackend,
    Rows,
    Sealer,
    Service,
    Statement,
    TableEntry,
    codec,
    messages,
    routes,
)

ONE = pa.table({"one": [1]})
#: Each server is asked for so long, so many times, in turns: a noisy moment hits all alike.
SECONDS, ROUNDS = 1.5, 3
CLIENTS = (1, 8, 64)
#: The kernel's own share of a request, in milliseconds.
KERNEL_MS = 0.2
#: The table of the point lookup: rows, symbols, data files; sorted by both columns asked for.
ROWS, SYMBOLS, FILES = 200_000, 100, 4
NAMESPACE, TABLE = "market", "ticks"
YARDSTICKS = {
    "roapi": "ROAPI",
    "sail": "Sail",
    "bare": "bare pyarrow server, constants",
}

#: A server's name → what makes a client of it.
Makers = Mapping[str, Callable[[], Client]]


def lane(stage: Stage) -> list[Figure]:
    """Each question with 1, 8 and 64 clients, then the kernel."""
    layout = stage.site("latency", flush_rows=1000)
    files = ticks(layout, stage.scaled(ROWS))
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(layout, "serve", "--no-ingest"))
        stack.enter_context(connected(layout))
        uris, figures = {"ours": layout.uri, "bare": stack.enter_context(bare_sql())}, []
        for name, start in {"roapi": peers.roapi, "sail": peers.sail}.items():
            try:
                uris[name] = stack.enter_context(start(stage.folder / name, {TABLE: files}))
            except peers.PeerUnavailable as error:
                figures.append(absent("latency", YARDSTICKS[name], str(error)))
        for question in (_select_one, _lookup, _metadata):
            figures += question(uris)
        bare = stack.enter_context(Bare(ONE))
        return figures + _kernel(bare.port)


def ticks(layout: Layout, rows: int) -> Path:
    """An Iceberg table of so many rows; gives the folder of its data files."""
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    with contextlib.closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        catalog.create_namespace(NAMESPACE)
        each = max(1, rows // SYMBOLS)
        made = pa.table(
            {
                "symbol": [f"S{number:03}" for number in range(SYMBOLS) for _ in range(each)],
                "moment": list(range(each)) * SYMBOLS,
                "price": [number / 100 for number in range(SYMBOLS * each)],
            }
        )
        table = catalog.create_table(f"{NAMESPACE}.{TABLE}", made.schema)
        size = -(-made.num_rows // FILES)
        for first in range(0, made.num_rows, size):
            table.append(made.slice(first, size))
    return layout.folder / "lake" / NAMESPACE / TABLE / "data"


# --- questions ----------------------------------------------------------------------------------


def _select_one(uris: Mapping[str, str]) -> list[Figure]:
    makers = {name: _sql_client(uri, "select 1") for name, uri in uris.items()}
    found = _compared("`select 1` through ADBC", makers, lambda answer: answer == [(1,)])
    return [_with_goal(figure) for figure in found]


def _with_goal(figure: Figure) -> Figure:
    if figure.yardstick != YARDSTICKS["roapi"] or figure.value is None:
        return figure
    if figure.name.endswith(", 1 client, p50"):
        return at_most(figure, 1.0)
    return at_least(figure, 2.0) if figure.name.endswith("64 clients, all together") else figure


def _lookup(uris: Mapping[str, str]) -> list[Figure]:
    """The column of time holds whole numbers: no dialect has its own words for them."""
    where = "where symbol = 'S042' and moment = 1"
    makers = {
        name: _sql_client(
            uri, f"select price from {NAMESPACE + '.' if name == 'ours' else ''}{TABLE} {where}"
        )
        for name, uri in uris.items()
    }
    return _compared("one row by symbol and time", makers, lambda answer: len(answer) == 1)


def _metadata(uris: Mapping[str, str]) -> list[Figure]:
    """GetFlightInfo and DoGet, with pyarrow's own client."""
    makers = {name: _tables_client(uri) for name, uri in uris.items()}
    return _compared("GetTables, pyarrow", makers, lambda answer: len(answer) > 0)


def _compared(title: str, makers: Makers, right: Callable[[list[Any]], bool]) -> list[Figure]:
    """The figures of one question; a server that answers otherwise has a line that says so."""
    able, wrong = {}, {}
    for name, make in makers.items():
        reason = _first_answer(make, right)
        if reason is None:
            able[name] = make
        elif name == "ours":
            raise AssertionError(f"{title}: {reason}")
        else:
            wrong[name] = reason
    figures = [each for count in CLIENTS for each in _asked(title, count, able)]
    return figures + [absent(title, YARDSTICKS[name], why) for name, why in wrong.items()]


def _first_answer(make: Callable[[], Client], right: Callable[[list[Any]], bool]) -> str | None:
    """What is wrong with a server's answer; None: nothing."""
    try:
        ask, close = make()
        answer = ask()
        close()
    except Exception as error:  # noqa: BLE001 - whatever a peer's client raises
        return f"refused ({type(error).__name__})"
    return None if isinstance(answer, list) and right(answer) else "another answer"


@dataclass
class Asked:
    """Times of single questions in seconds, and how long the asking went on."""

    times: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Questions answered per second, by all clients together."""
        return len(self.times) / self.seconds


def _asked(title: str, clients: int, makers: Makers) -> list[Figure]:
    say(f"latency: {title}, {clients} clients: {', '.join(makers)}")
    asked = {name: Asked() for name in makers}
    for _ in range(ROUNDS):
        for name, make in makers.items():
            _ask(clients, make, asked[name])
    ours = asked["ours"]
    title = f"{title}, {clients} client{'s' if clients > 1 else ''}"
    return [
        Figure(f"{title}, {what}", value, unit, yardstick, against)
        for name, yardstick in YARDSTICKS.items()
        if (other := asked.get(name)) is not None
        for what, value, unit, against in (
            ("p50", *_ms(ours, 0.5), _ms(other, 0.5)[0]),
            ("p99", *_ms(ours, 0.99), _ms(other, 0.99)[0]),
            ("all together", ours.per_second, "/s", other.per_second),
        )
    ]


def _ms(asked: Asked, share: float) -> tuple[float, str]:
    return quantile(asked.times, share) * 1000, "ms"


def _sql_client(uri: str, sql: str) -> Callable[[], Client]:
    """A prepared statement each time, as ADBC's cursor does: four calls."""

    def make() -> Client:
        connection = flightsql.connect(uri, autocommit=True)
        cursor = connection.cursor()

        def ask() -> object:
            cursor.execute(sql)
            return cursor.fetchall()

        def close() -> None:
            cursor.close()
            connection.close()

        return ask, close

    return make


def _tables_client(uri: str) -> Callable[[], Client]:
    descriptor = fl.FlightDescriptor.for_command(codec.encode_command(messages.GetTables()))

    def make() -> Client:
        client = fl.connect(uri)

        def ask() -> object:
            info = client.get_flight_info(descriptor)
            return client.do_get(info.endpoints[0].ticket).read_all().to_pylist()

        return ask, client.close

    return make


def _ask(clients: int, make: Callable[[], Client], asked: Asked) -> None:
    """So many clients ask at once, without a pause; adds to ``asked``."""
    ready = threading.Barrier(clients)

    def body() -> None:
        ask, close = make()
        ask()
        ready.wait()
        limit = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < limit:
            ask()
            asked.times.append(time.perf_counter() - began)
        close()

    threads = [threading.Thread(target=body) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked.seconds += SECONDS


# --- the kernel ---------------------------------------------------------------------------------


class _Constant(ReadOnlyBackend):
    """No engine: what is left is the kernel."""

    def plan(self, _statement: Statement, _call: Call) -> Planned:
        return Planned(ONE.schema, b"one")

    def open(self, _payload: bytes, _call: Call) -> Rows:
        return Batches(ONE.schema, iter(ONE.to_batches()))

    def tables(self, _call: Call) -> list[TableEntry]:
        return []


def _kernel(bare_port: int) -> list[Figure]:
    """Median times of one request inside the kernel, beside one call of a bare Flight server."""
    say("latency: the kernel")
    service = Service(_Constant(), Sealer([b"a key of thirty-two bytes or so."]))
    session, _ = service.sessions.resolve(None, "anybody")
    call = Call(Principal("anybody"), session)
    prepared = codec.encode_command(messages.PreparedStatementQuery(_handle(service, call)))

    def info() -> bytes:
        command, route = routes.find_command(prepared, "info")
        service.authorize(route.permission, call.principal)
        assert route.info is not None
        (ticket,) = route.info(service, command, call).tickets
        return ticket

    ticket = info()

    def get() -> object:
        command, route = routes.find_command(ticket, "get")
        service.authorize(route.permission, call.principal)
        assert route.get is not None
        return route.get(service, command, call)

    with fl.connect(f"grpc://127.0.0.1:{bare_port}") as client:
        described = fl.FlightDescriptor.for_command(b"x")
        transport = _median_ms(lambda: client.get_flight_info(described), 2_000)
    yardstick = "GetFlightInfo of a bare Flight server"
    return [
        below(
            Figure(f"kernel: {what}", _median_ms(body, 20_000), "ms", yardstick, transport),
            KERNEL_MS,
        )
        for what, body in (
            ("route, unseal a statement, seal a ticket", info),
            ("route, unseal a ticket", get),
        )
    ]


def _handle(service: Service, call: Call) -> bytes:
    """A statement handle, as CreatePreparedStatement gives it."""
    request = messages.CreatePreparedStatement("select 1")
    (body,) = routes.ACTIONS[type(request)].act(service, request, call)
    name = f"{messages.SQL_PACKAGE}.ActionCreatePreparedStatementResult"
    wrapped = codec._parse("google.protobuf.Any", body)  # noqa: SLF001 - the client's half
    sealed: bytes = codec._parse(name, wrapped.value).prepared_statement_handle  # noqa: SLF001
    return sealed


def _median_ms(body: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        body()
        times.append(time.perf_counter() - began)
    return quantile(times, 0.5) * 1000
