"""The kernel over gRPC, with a small backend: errors, callers, tickets, cancelling, refusals."""

# ruff: noqa: D102, ARG002, FBT001, SIM117 - the small backends here implement documented protocols;
# booleans come from parametrize; servers, clients and expectations nest as the test reads

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight
from support_flight import (
    KEY,
    NUMBERS,
    Numbers,
    act,
    bare,
    connect,
    descriptor,
    fetch,
    hand,
    make_service,
    read,
    serving,
    until,
    unwrapped,
)

import flight_server.protocol.errors as errors_module
from flight_server.auth import StaticUsers
from flight_server.protocol import (
    Batches,
    Call,
    Facts,
    FlightSqlServer,
    Permission,
    Planned,
    Principal,
    Rows,
    Sealer,
    Statement,
    Tls,
    codec,
    messages,
    routes,
)
from flight_server.protocol.errors import (
    MAX_MESSAGE_BYTES,
    Cancelled,
    FlightSqlError,
    Internal,
    sent_message,
    sent_status,
)
from flight_server.protocol.messages import OptionValue
from flight_server.protocol.server import MAX_BATCH_BYTES
from flight_server.protocol.sizes import sliced

QUERY = messages.StatementQuery("select n from numbers")
ERRORS = sorted(
    (
        c
        for c in vars(errors_module).values()
        if isinstance(c, type) and issubclass(c, FlightSqlError)
    ),
    key=lambda c: c.__name__,
)
#: What a pyarrow client raises per status.
PYARROW = {
    "INVALID_ARGUMENT": pa.ArrowInvalid,
    "NOT_FOUND": pa.ArrowKeyError,
    "UNIMPLEMENTED": pa.ArrowNotImplementedError,
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "DEADLINE_EXCEEDED": flight.FlightTimedOutError,
    "CANCELLED": flight.FlightCancelledError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "INTERNAL": flight.FlightInternalError,
}
#: What an ADBC client says, where it has no word of its own.
ADBC = {
    "PERMISSION_DENIED": "UNAUTHORIZED",
    "DEADLINE_EXCEEDED": "TIMEOUT",
    "UNIMPLEMENTED": "NOT_IMPLEMENTED",
    "UNAVAILABLE": "IO",
}


class Failing(Numbers):
    """Raises what it is told, while planning or in the middle of a stream."""

    error: BaseException = Internal("nothing was set")
    in_stream = False

    def plan(self, statement: Statement, call: Call) -> Planned:
        if not self.in_stream:
            raise self.error
        return super().plan(statement, call)

    def open(self, payload: bytes, call: Call) -> Rows:
        def batches() -> Iterator[pa.RecordBatch]:
            yield from super(Failing, self).open(payload, call)
            raise self.error

        return Batches(NUMBERS.schema, batches())


class Slow(Numbers):
    """Sends one batch, then blocks until it is cancelled."""

    def __init__(self) -> None:
        self.opened: list[SlowRows] = []

    def open(self, payload: bytes, call: Call) -> Rows:
        self.opened.append(SlowRows())
        return self.opened[-1]


class SlowRows:
    """See :class:`Slow`."""

    schema = NUMBERS.schema

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.closed = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        yield from NUMBERS.to_batches()
        assert self.cancelled.wait(60)
        raise Cancelled("the caller went away")

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def numbers() -> Iterator[FlightSqlServer]:
    with serving(make_service(Numbers())) as server:
        yield server


@pytest.fixture
def client(numbers: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with hand(numbers) as client:
        yield client


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_stream", [False, True], ids=["planning", "streaming"])
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_each_error_reaches_a_pyarrow_client_with_status_and_text(
    kind: type[FlightSqlError],
    in_stream: bool,
) -> None:
    backend = Failing()
    backend.error, backend.in_stream = kind("täble 'x' is gone"), in_stream
    with serving(make_service(backend)) as server, hand(server) as client:
        with pytest.raises(PYARROW[sent_status(backend.error)]) as caught:
            fetch(client, QUERY)
    text = str(caught.value)
    assert sent_message(backend.error) in text
    assert "Traceback" not in text
    assert ".py" not in text


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_each_error_reaches_an_adbc_client_with_status_and_text(kind: type[FlightSqlError]) -> None:
    backend = Failing()
    backend.error = kind("täble 'x' is gone")
    status = sent_status(backend.error)
    with serving(make_service(backend)) as server, connect(server) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_sql_query(QUERY.query)
            with pytest.raises(connection.Error) as caught:
                cursor.adbc_statement.execute_query()
    assert str(caught.value).startswith(f"{ADBC.get(status, status)}: ")
    assert "täble 'x' is gone" in str(caught.value)
    if status != kind.code:
        assert f"{kind.code}: " in str(caught.value)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_get_schema_sends_no_traceback_either(kind: type[FlightSqlError]) -> None:
    """It is the one call whose FlightErrors pyarrow does not catch: they go as UNKNOWN."""
    backend = Failing()
    backend.error = kind("gone")
    with serving(make_service(backend)) as server, hand(server) as client:
        with pytest.raises(pa.ArrowException) as caught:
            client.get_schema(descriptor(QUERY))
    bare = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}
    if sent_status(backend.error) in bare:
        assert isinstance(caught.value, PYARROW[sent_status(backend.error)])
    if kind.code not in bare:
        assert f"{kind.code}: gone" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert ".py" not in str(caught.value)


SECRETS = [
    ValueError("/etc/secret"),
    RuntimeError("password"),
    KeyError("columnx"),
    BaseException("panic"),
]


@pytest.mark.parametrize("in_stream", [False, True], ids=["planning", "streaming"])
@pytest.mark.parametrize("error", SECRETS, ids=lambda error: type(error).__name__)
def test_a_defect_says_nothing_about_itself(
    error: BaseException,
    in_stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Anything that is no FlightSqlError is INTERNAL; its text and stack go to the log."""
    backend = Failing()
    backend.error, backend.in_stream = error, in_stream
    with serving(make_service(backend)) as server, hand(server) as client:
        with pytest.raises(flight.FlightInternalError) as caught:
            fetch(client, QUERY)
    assert str(caught.value).startswith("the server made a mistake; its log has the details")
    assert str(error.args[0]) not in str(caught.value)
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_long_messages_are_cut(kind: type[FlightSqlError]) -> None:
    """Trailers above 8 KiB break clients: at most 1 KiB goes, in whole characters."""
    text = sent_message(kind("ä" * 5000))
    assert MAX_MESSAGE_BYTES - 3 <= len(text.encode()) <= MAX_MESSAGE_BYTES
    assert text.endswith("ä…")


def test_a_long_message_arrives_at_both_clients() -> None:
    backend = Failing()
    backend.error = errors_module.NotFound("ä" * 5000)
    with serving(make_service(backend)) as server:
        with hand(server) as client, pytest.raises(pa.ArrowKeyError, match="ä…"):
            fetch(client, QUERY)
        with connect(server) as connection, connection.cursor() as cursor:
            with pytest.raises(connection.ProgrammingError, match="ä…"):
                cursor.execute(QUERY.query)


# --- refusals ------------------------------------------------------------------------------------


def test_list_actions_names_exactly_what_is_offered(client: flight.FlightClient) -> None:
    listed = [action.type for action in client.list_actions()]
    offered = {kind for kind, action in routes.ACTIONS.items() if action.description is not None}
    offered.remove(messages.CreatePreparedSubstraitPlan)  # this backend does not take plans
    assert listed == sorted(messages.action_type(kind) for kind in offered)
    assert "BeginTransaction" not in listed


def test_calls_without_a_command_are_refused(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match="path"):
        client.get_flight_info(flight.FlightDescriptor.for_path("a"))
    with pytest.raises(pa.ArrowInvalid, match="Flight SQL client"):
        client.get_flight_info(flight.FlightDescriptor.for_command(b"select 1"))
    with pytest.raises(pa.ArrowInvalid, match="Flight SQL client"):
        client.do_get(flight.Ticket(b"junk"))
    with pytest.raises(pa.ArrowNotImplementedError, match="ListFlights"):
        list(client.list_flights())
    with pytest.raises(pa.ArrowNotImplementedError, match="no action 'x'"):
        list(client.do_action(flight.Action("x", b"")))


def test_a_part_that_a_command_lacks_is_unimplemented(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="CommandStatementQuery"):
        client.do_get(flight.Ticket(codec.encode_command(QUERY)))


def test_transaction_ids_are_refused_in_words(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="no transactions"):
        client.get_flight_info(descriptor(messages.StatementQuery("select 1", b"t")))
    with pytest.raises(pa.ArrowNotImplementedError, match="no transactions"):
        act(client, messages.CreatePreparedStatement("select 1", b"t"))


# --- permissions ---------------------------------------------------------------------------------


def _every_call() -> list[tuple[str, Permission, Callable[[flight.FlightClient], object]]]:
    calls: list[tuple[str, Permission, Callable[[flight.FlightClient], object]]] = []
    blank: dict[Any, Any] = {messages.GetPrimaryKeys: (None, None, "t")}
    blank |= dict.fromkeys((messages.GetExportedKeys, messages.GetImportedKeys), (None, None, "t"))
    blank[messages.GetCrossReference] = (None, None, "t", None, None, "t")
    one = (messages.TicketStatementQuery, messages.PreparedStatementQuery, messages.StatementQuery)
    blank |= dict.fromkeys(one, (b"x",)) | {messages.StatementQuery: ("x",)}
    blank |= {messages.StatementUpdate: ("x",), messages.PreparedStatementUpdate: (b"x",)}
    blank[messages.StatementSubstraitPlan] = (None,)
    blank[messages.StatementIngest] = (None, "t", None, None, False, None, {})
    for kind, route in routes.COMMANDS.items():
        data = codec.encode_command(kind(*blank.get(kind, ())))
        wanted = flight.FlightDescriptor.for_command(data)
        name = kind.__name__
        if route.info:
            calls.append(
                (f"{name}-info", route.permission, lambda c, d=wanted: c.get_flight_info(d))
            )
        if route.schema:
            calls.append((f"{name}-schema", route.permission, lambda c, d=wanted: c.get_schema(d)))
        if route.get:
            ticket = flight.Ticket(data)
            calls.append((f"{name}-get", route.permission, lambda c, t=ticket: read(c.do_get(t))))
        if route.put:
            calls.append((f"{name}-put", route.permission, lambda c, d=wanted: _put(c, d)))
    bodies = {
        messages.CreatePreparedStatement: ("x",),
        messages.ClosePreparedStatement: (b"x",),
        messages.CreatePreparedSubstraitPlan: (None,),
        messages.CancelQuery: (b"",),
        messages.CancelFlightInfo: ((),),
        messages.RenewFlightEndpoint: (b"x",),
        messages.BeginSavepoint: (b"x", "x"),
        messages.EndTransaction: (b"x", 1),
        messages.EndSavepoint: (b"x", 1),
    }
    for kind, action in routes.ACTIONS.items():
        request = kind(*bodies.get(kind, ()))
        calls.append((kind.__name__, action.permission, lambda c, r=request: act(c, r)))
    return calls


def _put(client: flight.FlightClient, wanted: flight.FlightDescriptor) -> bytes:
    writer, reader = client.do_put(wanted, NUMBERS.schema)
    writer.done_writing()
    assert reader.read() is None
    writer.close()
    return b""


@pytest.mark.parametrize(("name", "permission", "call"), _every_call(), ids=lambda v: str(v)[:40])
def test_every_route_asks_for_its_permission(
    name: str, permission: Permission, call: Callable[[flight.FlightClient], object]
) -> None:
    """The policy is asked before anything else is done, with the route's permission."""
    asked: list[Permission] = []

    def nobody(wanted: Permission, principal: Principal) -> bool:
        asked.append(wanted)
        assert principal.name == "anonymous"
        return False

    with serving(make_service(Numbers(), policy=nobody)) as server, hand(server) as client:
        # GetSchema can send no status of Flight's own: see above
        refused = pa.ArrowException if name.endswith("-schema") else flight.FlightUnauthorizedError
        with pytest.raises(refused, match=f"lacks the permission '{permission.value}'"):
            call(client)
    assert asked == [permission], name


# --- who calls -----------------------------------------------------------------------------------


USERS = StaticUsers({"alice": "wonder:land"}, {"bob": "token-of-bob"})


@pytest.fixture
def guarded() -> Iterator[FlightSqlServer]:
    with serving(make_service(Numbers()), authenticator=USERS) as server:
        yield server


@pytest.mark.parametrize(
    "options",
    [
        {"username": "alice", "password": "wonder:land"},
        {"adbc.flight.sql.authorization_header": "Bearer token-of-bob"},
    ],
    ids=["password", "token"],
)
def test_known_callers_are_let_in(guarded: FlightSqlServer, options: dict[str, str]) -> None:
    """ADBC's Basic header is unpadded base64; the token that comes back is used from then on."""
    with connect(guarded, **options) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY.query)
        assert cursor.fetch_arrow_table().num_rows == 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"username": "alice", "password": "looking glass"},
        {"username": "nobody", "password": ""},
        {"username": "bob", "password": "token-of-bob"},
        {"adbc.flight.sql.authorization_header": "Bearer token-of-eve"},
        {"adbc.flight.sql.authorization_header": "Bearer None"},
        {"adbc.flight.sql.authorization_header": "Digest x"},
        {"adbc.flight.sql.authorization_header": "Basic ?"},
    ],
    ids=lambda options: " ".join(options.values()) or "none",
)
def test_unknown_callers_are_unauthenticated(
    guarded: FlightSqlServer, options: dict[str, str]
) -> None:
    with pytest.raises(Exception, match="UNAUTHENTICATED") as caught:
        with connect(guarded, **options) as connection, connection.cursor() as cursor:
            cursor.execute(QUERY.query)
    assert "looking glass" not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer None", "Bearer anything", "Basic YTpi", ""])
def test_without_authentication_any_header_is_taken(
    client: flight.FlightClient, header: str
) -> None:
    """flightsql-dbapi sends "Bearer None" when it was given no credentials."""
    options = flight.FlightCallOptions(headers=[(b"authorization", header.encode())])
    assert fetch(client, QUERY, options=options).num_rows == 5


def test_a_login_gets_a_token_that_any_server_with_the_key_takes(guarded: FlightSqlServer) -> None:
    with hand(guarded) as client:
        name, token = client.authenticate_basic_token("alice", "wonder:land")
    options = flight.FlightCallOptions(headers=[(name, token)])
    with serving(make_service(Numbers()), authenticator=StaticUsers({})) as other:
        with hand(other) as client:
            assert fetch(client, QUERY, options=options).num_rows == 5


class _Headers(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Remembers the headers of every reply."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[dict[str, list[str]]] = []

    def start_call(self, info: Any) -> flight.ClientMiddleware:
        factory = self

        class Middleware(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow has no types
            def received_headers(self, headers: dict[str, list[str]]) -> None:
                factory.received.append(headers)

        return Middleware()


def test_headers_are_sent_once(numbers: FlightSqlServer) -> None:
    """Pyarrow asks for them twice in GetFlightInfo."""
    seen = _Headers()
    location = f"grpc://127.0.0.1:{numbers.port}"
    basic = flight.FlightCallOptions(headers=[(b"authorization", b"Basic YTpi")])
    with flight.connect(location, middleware=[seen]) as client:
        client.get_flight_info(descriptor(QUERY), basic)
    every = [(name, v) for headers in seen.received for name, vs in headers.items() for v in vs]
    (cookie,) = [value for name, value in every if name == "set-cookie"]
    assert cookie.startswith("arrow_flight_session_id=")
    (login,) = [value for name, value in every if name == "authorization"]
    assert login.startswith("Bearer ")


def test_a_wrong_login_fails_in_the_handshake(guarded: FlightSqlServer) -> None:
    with hand(guarded) as client, pytest.raises(flight.FlightUnauthenticatedError, match="wrong"):
        client.authenticate_basic_token("alice", "x")


def test_a_token_of_another_key_is_no_token(guarded: FlightSqlServer) -> None:
    with hand(guarded) as client:
        name, token = client.authenticate_basic_token("alice", "wonder:land")
    options = flight.FlightCallOptions(headers=[(name, token)])
    service = make_service(Numbers(), sealer=Sealer([b"z" * 32]))
    with serving(service, authenticator=USERS) as other, hand(other) as client:
        with pytest.raises(flight.FlightUnauthenticatedError):
            fetch(client, QUERY, options=options)


# --- tickets and handles -------------------------------------------------------------------------


def test_a_ticket_can_be_read_again_and_elsewhere(client: flight.FlightClient) -> None:
    (endpoint,) = client.get_flight_info(descriptor(QUERY)).endpoints
    assert endpoint.locations == []
    assert endpoint.expiration_time.as_py().timestamp() > time.time() + 60
    first = read(client.do_get(endpoint.ticket))
    with serving(make_service(Numbers())) as other, hand(other) as there:
        again = read(there.do_get(endpoint.ticket))
    assert first == again == NUMBERS


def test_a_tampered_ticket_is_refused(client: flight.FlightClient) -> None:
    (endpoint,) = client.get_flight_info(descriptor(QUERY)).endpoints
    good = codec.decode_command(endpoint.ticket.ticket).statement_handle
    for position in range(0, len(good), 5):
        bad = bytearray(good)
        bad[position] ^= 0x55
        ticket = codec.encode_command(messages.TicketStatementQuery(bytes(bad)))
        with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
            client.do_get(flight.Ticket(ticket))


def test_an_expired_ticket_is_refused() -> None:
    service = make_service(Numbers(), facts=Facts(ticket_life_s=-1))
    with serving(service) as server, hand(server) as client:
        (endpoint,) = client.get_flight_info(descriptor(QUERY)).endpoints
        with pytest.raises(pa.ArrowInvalid, match="expired"):
            client.do_get(endpoint.ticket)


def test_another_users_ticket_is_refused(guarded: FlightSqlServer) -> None:
    with hand(guarded) as client:
        alice = flight.FlightCallOptions(
            headers=[client.authenticate_basic_token("alice", "wonder:land")]
        )
        bob = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer token-of-bob")])
        (endpoint,) = client.get_flight_info(descriptor(QUERY), alice).endpoints
        with pytest.raises(flight.FlightUnauthorizedError, match="another user"):
            client.do_get(endpoint.ticket, bob)
        with pytest.raises(flight.FlightUnauthorizedError, match="another user"):
            act(client, messages.CancelFlightInfo((endpoint.ticket.ticket,)), options=bob)


def test_a_renewed_ticket_lives_longer_and_is_the_same_query() -> None:
    service = make_service(Numbers(), facts=Facts(ticket_life_s=100))
    with serving(service) as server, hand(server) as client:
        (endpoint,) = client.get_flight_info(descriptor(QUERY)).endpoints
        (body,) = act(client, messages.RenewFlightEndpoint(endpoint.ticket.ticket))
        renewed = bare(body, "FlightEndpoint")
        assert renewed.expiration_time.seconds >= int(endpoint.expiration_time.as_py().timestamp())
        assert read(client.do_get(flight.Ticket(renewed.ticket.ticket))) == NUMBERS
        act(client, messages.CancelFlightInfo((endpoint.ticket.ticket,)))
        with pytest.raises(pa.ArrowInvalid, match="cancelled"):
            client.do_get(flight.Ticket(renewed.ticket.ticket))


def test_metadata_tickets_are_the_command_itself(client: flight.FlightClient) -> None:
    command = messages.GetTables(include_schema=True)
    (endpoint,) = client.get_flight_info(descriptor(command)).endpoints
    assert codec.decode_command(endpoint.ticket.ticket) == command
    with pytest.raises(pa.ArrowInvalid, match="statement"):
        act(client, messages.RenewFlightEndpoint(endpoint.ticket.ticket))


def test_a_stream_that_breaks_its_promise_is_refused() -> None:
    """DoGet gives exactly the schema that GetFlightInfo promised, or nothing."""

    class Liar(Numbers):
        def plan(self, statement: Statement, call: Call) -> Planned:
            return Planned(pa.schema([("n", pa.int32())]), super().plan(statement, call).payload)

    with serving(make_service(Liar())) as server, hand(server) as client:
        (endpoint,) = client.get_flight_info(descriptor(QUERY)).endpoints
        with pytest.raises(flight.FlightInternalError, match="promised"):
            client.do_get(endpoint.ticket)


def test_a_batch_of_another_schema_is_a_defect_without_a_stack() -> None:
    """Pyarrow's own check would send its traceback."""

    class Liar(Numbers):
        def open(self, payload: bytes, call: Call) -> Rows:
            return Batches(NUMBERS.schema, iter([pa.record_batch({"n": ["text"]})]))

    with serving(make_service(Liar())) as server, hand(server) as client:
        with pytest.raises(flight.FlightInternalError, match="another schema") as caught:
            fetch(client, QUERY)
    assert "Traceback" not in str(caught.value)


# --- prepared statements -------------------------------------------------------------------------


def prepare(client: flight.FlightClient, query: str = QUERY.query) -> Any:
    (body,) = act(client, messages.CreatePreparedStatement(query))
    return unwrapped(body, "ActionCreatePreparedStatementResult")


def test_a_prepared_statement_by_hand(client: flight.FlightClient) -> None:
    prepared = prepare(client)
    assert pa.ipc.read_schema(pa.BufferReader(prepared.dataset_schema)).equals(NUMBERS.schema)
    assert len(pa.ipc.read_schema(pa.BufferReader(prepared.parameter_schema))) == 0
    command = messages.PreparedStatementQuery(prepared.prepared_statement_handle)
    assert fetch(client, command) == NUMBERS
    assert client.get_schema(descriptor(command)).schema.equals(NUMBERS.schema)
    ticket = flight.Ticket(codec.encode_command(command))
    assert read(client.do_get(ticket)) == NUMBERS


def test_a_closed_statement_is_stale_and_closing_twice_is_fine(client: flight.FlightClient) -> None:
    handle = prepare(client).prepared_statement_handle
    for _ in range(2):
        assert act(client, messages.ClosePreparedStatement(handle)) == []
    with pytest.raises(pa.ArrowInvalid, match=r"FAILED_PRECONDITION.*closed"):
        client.get_flight_info(descriptor(messages.PreparedStatementQuery(handle)))


def test_a_handle_is_no_ticket_and_a_ticket_no_handle(client: flight.FlightClient) -> None:
    handle = prepare(client).prepared_statement_handle
    ticket = codec.encode_command(messages.TicketStatementQuery(handle))
    with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
        client.do_get(flight.Ticket(ticket))


def test_forged_arrow_data_is_refused_before_anything_reads_it(client: flight.FlightClient) -> None:
    """Offsets that point outside would end the process."""
    offsets = pa.array([0, 1_000_000_000, 3], pa.int32()).buffers()[1]
    forged = pa.Array.from_buffers(pa.utf8(), 2, [None, offsets, pa.py_buffer(b"abc")])
    batch = pa.RecordBatch.from_arrays([forged], ["x"])
    handle = prepare(client).prepared_statement_handle
    writer, reader = client.do_put(
        descriptor(messages.PreparedStatementQuery(handle)), batch.schema
    )
    writer.write_batch(batch)
    writer.done_writing()
    assert reader.read() is None
    with pytest.raises(pa.ArrowInvalid, match="not valid"):
        writer.close()


def test_parameters_beyond_the_bound_are_refused_in_words(client: flight.FlightClient) -> None:
    batch = pa.record_batch({"x": pa.array([0] * 300_000, pa.int64())})
    handle = prepare(client).prepared_statement_handle
    writer, reader = client.do_put(
        descriptor(messages.PreparedStatementQuery(handle)), batch.schema
    )
    writer.write_batch(batch)
    writer.done_writing()
    assert reader.read() is None
    with pytest.raises(flight.FlightInternalError, match=r"RESOURCE_EXHAUSTED.*1048576"):
        writer.close()


# --- cancelling ----------------------------------------------------------------------------------


def test_a_client_that_goes_away_stops_a_blocked_stream() -> None:
    """Only the watcher can know: the RPC's own thread is blocked in the engine."""
    backend = Slow()
    service = make_service(backend)
    with serving(service) as server:
        with hand(server) as client:
            reader = client.do_get(client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket)
            reader.read_chunk()
            assert len(service.running) == 1
            reader.cancel()
            until(backend.opened[0].cancelled.is_set)
        until(lambda: backend.opened[0].closed)
        until(lambda: len(service.running) == 0)
    assert backend.opened[0].closed == 1


def test_a_client_that_dies_stops_a_blocked_stream() -> None:
    backend = Slow()
    with serving(make_service(backend)) as server:
        client = hand(server)
        reader = client.do_get(client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket)
        reader.read_chunk()
        del reader
        client.close()
        del client
        until(lambda: backend.opened[0].closed)
    assert backend.opened[0].cancelled.is_set()


@pytest.mark.parametrize("deprecated", [False, True], ids=["CancelFlightInfo", "CancelQuery"])
def test_a_cancel_action_stops_the_stream_and_the_ticket(deprecated: bool) -> None:
    backend = Slow()
    with serving(make_service(backend)) as server, hand(server) as client, hand(server) as other:
        info = client.get_flight_info(descriptor(QUERY))
        ticket = info.endpoints[0].ticket
        reader = client.do_get(ticket)
        reader.read_chunk()
        if deprecated:
            (body,) = act(other, messages.CancelQuery(info.serialize()))
            result = unwrapped(body, "ActionCancelQueryResult").result
        else:
            (body,) = act(other, messages.CancelFlightInfo((ticket.ticket,)))
            result = bare(body, "CancelFlightInfoResult").status
        assert result == messages.CancelStatus.CANCELLED
        with pytest.raises(flight.FlightCancelledError):
            reader.read_chunk()
        with pytest.raises(pa.ArrowInvalid, match="cancelled"):
            client.do_get(ticket)
    assert [rows.closed for rows in backend.opened] == [1]


def test_metadata_cannot_be_cancelled(client: flight.FlightClient) -> None:
    ticket = codec.encode_command(messages.GetCatalogs())
    (body,) = act(client, messages.CancelFlightInfo((ticket,)))
    status = bare(body, "CancelFlightInfoResult").status
    assert status == messages.CancelStatus.NOT_CANCELLABLE


def test_a_stopping_server_cancels_what_it_sends() -> None:
    backend = Slow()
    with serving(make_service(backend)) as server, hand(server) as client:
        reader = client.do_get(client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket)
        reader.read_chunk()
        server.stop()
        server.stop()
        with pytest.raises(flight.FlightCancelledError):
            reader.read_chunk()
    assert backend.opened[0].closed == 1


def test_every_stream_is_closed_once_whatever_happens() -> None:
    closed: list[int] = []

    class Counting(Numbers):
        def open(self, payload: bytes, call: Call) -> Rows:
            rows = super().open(payload, call)
            rows.close = lambda: closed.append(1)  # type: ignore[method-assign]  # counts
            return rows

    service = make_service(Counting())
    with serving(service) as server, hand(server) as client:
        ticket = client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket
        for _ in range(20):
            read(client.do_get(ticket))
        for _ in range(20):
            client.do_get(ticket).cancel()
        until(lambda: len(closed) == 40)
        until(lambda: len(service.running) == 0)


# --- sessions ------------------------------------------------------------------------------------


class Optional(Numbers):
    """Has the one option ``schema``."""

    def check_option(self, name: str, value: OptionValue) -> OptionValue:
        if name == "boom":
            raise Internal("boom")
        if name != "schema":
            return super().check_option(name, value)
        if not isinstance(value, str | None):
            raise errors_module.InvalidArgument("schema is text")
        return value


def test_session_options_live_in_the_cookies_session() -> None:
    with serving(make_service(Optional())) as server:
        with connect(server) as connection, connect(server) as other:
            connection.adbc_current_db_schema = "market_data"
            assert connection.adbc_current_db_schema == "market_data"
            with pytest.raises(other.Error, match="not supported"):
                _ = other.adbc_current_db_schema


def test_option_errors_come_per_name() -> None:
    with serving(make_service(Optional())) as server, hand(server) as client:
        request = messages.SetSessionOptions(
            {"schema": 5, "nope": "x", "boom": True, "other": ("a",)}
        )
        (body,) = act(client, request)
        errors = {k: v.value for k, v in bare(body, "SetSessionOptionsResult").errors.items()}
        assert errors == {"schema": 2, "nope": 1, "boom": 3, "other": 1}
        (body,) = act(client, messages.SetSessionOptions({"schema": "a"}))
        assert not bare(body, "SetSessionOptionsResult").errors


def test_a_session_that_was_never_kept_cannot_be_closed(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowKeyError, match="no session"):
        act(client, messages.CloseSession())


def test_clients_without_cookies_leave_nothing_behind() -> None:
    service = make_service(Numbers())
    with serving(service) as server, hand(server) as client:
        for _ in range(5):
            fetch(client, QUERY)
    assert len(service.sessions) == 0  # type: ignore[arg-type]  # a SessionStore


# --- TLS ---


def test_the_server_speaks_tls(tmp_path: Path) -> None:
    """JDBC's default; a client that trusts the certificate talks, another one does not."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    certificate, key = ((tmp_path / f"{name}.pem").read_bytes() for name in ("cert", "key"))
    tls = Tls(certificate, key)
    assert "PRIVATE" not in repr(tls)
    server = FlightSqlServer(make_service(Numbers()), "grpc+tls://127.0.0.1:0", tls=tls)
    uri = f"grpc+tls://localhost:{server.port}"
    with flight.connect(uri, tls_root_certs=certificate) as client:
        assert fetch(client, QUERY) == NUMBERS
    with flight.connect(uri) as client, pytest.raises(flight.FlightUnavailableError):
        fetch(client, QUERY)
    server.stop()


# --- streams -------------------------------------------------------------------------------------


def test_batches_are_split_for_clients_with_small_limits() -> None:
    """ADBC takes 16 MiB a message, Grafana 4 MiB; a single larger row travels alone."""
    wide = pa.record_batch({"x": ["a" * 3_000_000, "b", "c" * 1_500_000, "d" * 1_500_000]})
    pieces = [piece for piece, _ in sliced(wide, MAX_BATCH_BYTES)]
    sizes = [(piece.num_rows, piece.nbytes <= MAX_BATCH_BYTES) for piece in pieces]
    assert sizes == [(1, False), (1, True), (1, True), (1, True)]
    assert pa.Table.from_batches(pieces) == pa.Table.from_batches([wide])


def test_empty_batches_are_left_out_and_empty_results_keep_their_schema() -> None:
    """Pyarrow's stream gives up after 128 empty batches in a row."""

    class Sparse(Numbers):
        def open(self, payload: bytes, call: Call) -> Rows:
            empty = NUMBERS.schema.empty_table().combine_chunks().to_batches() or [
                pa.RecordBatch.from_pylist([], NUMBERS.schema)
            ]
            return Batches(NUMBERS.schema, iter(empty * 500))

    with serving(make_service(Sparse())) as server, hand(server) as client:
        assert fetch(client, QUERY) == NUMBERS.slice(0, 0)


def test_schemas_name_the_sql_types(client: flight.FlightClient) -> None:
    """JDBC reports precision 0 without them; FlightInfo and the stream agree on them."""
    schema = client.get_schema(descriptor(QUERY)).schema
    assert schema.field("n").metadata == {b"ARROW:FLIGHT:SQL:TYPE_NAME": b"BIGINT"}


def test_every_metadata_command_streams_what_it_announces(client: flight.FlightClient) -> None:
    names = [messages.GetPrimaryKeys, messages.GetExportedKeys, messages.GetImportedKeys]
    for kind in names:
        assert fetch(client, kind(None, None, "numbers")).num_rows == 0
    cross = messages.GetCrossReference(None, None, "a", None, None, "b")
    assert fetch(client, cross).num_rows == 0
    assert fetch(client, messages.GetCatalogs()).to_pylist() == [{"catalog_name": "lake"}]
    assert fetch(client, messages.GetTableTypes()).num_rows == 2
    assert fetch(client, messages.GetXdbcTypeInfo(3)).num_rows == 1
    assert fetch(client, messages.GetSqlInfo((0, 3))).num_rows == 2
    assert fetch(client, messages.GetDbSchemas()).num_rows == 1
    assert fetch(client, messages.GetTables(include_schema=True)).num_rows == 1


def test_the_key_of_the_tests_is_long_enough() -> None:
    assert Sealer([KEY])
