"""What one small request costs: ``select 1`` through ADBC, and the kernel without the network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as fl
from support_site import connect as connected

from bench.bare import Bare, Client, bare_client
from bench.figures import Figure, at_least, at_most, below
from bench.roapi import BINARY, roapi
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
SECONDS, ROUNDS = 2.0, 3
#: The kernel's own share of a request, in milliseconds.
KERNEL_MS = 0.2


def lane(stage: Stage) -> list[Figure]:
    """``select 1`` with 1, 8 and 64 clients, then the kernel."""
    layout = stage.site("latency", flush_rows=1000)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(layout, "serve", "--no-ingest"))
        stack.enter_context(connected(layout))
        bare = stack.enter_context(Bare(ONE))
        makers: dict[str, Callable[[], Client]] = {
            "ours": lambda: _sql_client(layout.uri),
            "bare": lambda: bare_client(bare.port),
        }
        if BINARY.exists():
            peer = stack.enter_context(roapi(stage.folder / "roapi"))
            makers["roapi"] = lambda: _sql_client(peer)
        else:
            say("latency: ROAPI is not installed here: make bench installs it")
        figures = [each for clients in (1, 8, 64) for each in _select_one(clients, makers)]
        return figures + _kernel(bare.port)


@dataclass
class Asked:
    """Times of single questions in seconds, and how long the asking went on."""

    times: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Questions answered per second, by all clients together."""
        return len(self.times) / self.seconds


def _select_one(clients: int, makers: Mapping[str, Callable[[], Client]]) -> list[Figure]:
    say(f"latency: select 1, {clients} clients")
    asked = {name: Asked() for name in makers}
    for _ in range(ROUNDS):
        for name, make in makers.items():
            _ask(clients, make, asked[name])
    ours = asked["ours"]
    title = f"`select 1` through ADBC, {clients} client{'s' if clients > 1 else ''}"
    figures = []
    for name, yardstick in (("roapi", "ROAPI"), ("bare", "bare Flight (info + get)")):
        if name not in asked:
            continue
        other = asked[name]
        p50, p99, rate = (
            Figure(f"{title}, {what}", value, unit, yardstick, against)
            for what, value, unit, against in (
                ("p50", *_ms(ours, 0.5), _ms(other, 0.5)[0]),
                ("p99", *_ms(ours, 0.99), _ms(other, 0.99)[0]),
                ("all together", ours.per_second, "/s", other.per_second),
            )
        )
        if name == "roapi":
            p50 = at_most(p50, 1.0) if clients == 1 else p50
            rate = at_least(rate, 2.0) if clients == 64 else rate
        figures += [p50, p99, rate]
    return figures


def _ms(asked: Asked, share: float) -> tuple[float, str]:
    return quantile(asked.times, share) * 1000, "ms"


def _sql_client(uri: str) -> Client:
    connection = flightsql.connect(uri, autocommit=True)
    cursor = connection.cursor()

    def ask() -> object:
        cursor.execute("select 1")
        return cursor.fetchone()

    def close() -> None:
        cursor.close()
        connection.close()

    assert ask() == (1,)
    return ask, close


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
