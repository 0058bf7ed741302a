"""Flight SQL over pyarrow's gRPC server: boundary → route → reply. The only user of pyarrow.flight.

Every method answers inside one frame (:meth:`FlightSqlServer._answer`), the only one that raises to
pyarrow. What it raises carries a status and one line of text, never a traceback.
"""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar  # Any: pyarrow.flight has no types

import pyarrow as pa
from pyarrow import flight

from flight_server.protocol import routes
from flight_server.protocol.backend import Call, Principal
from flight_server.protocol.credentials import (
    Authenticator,
    BearerToken,
    Headers,
    UserPassword,
    cookies,
    read_credentials,
)
from flight_server.protocol.defaults import Anybody
from flight_server.protocol.errors import (
    FlightSqlError,
    HandleRefused,
    Internal,
    InvalidArgument,
    MalformedMessage,
    StaleHandle,
    Unauthenticated,
    Unimplemented,
    sent_message,
    sent_status,
)
from flight_server.protocol.handles import Purpose
from flight_server.protocol.statements import Info, Service, Stream

T = TypeVar("T")
log = logging.getLogger(__name__)

_MIDDLEWARE = "k2"
#: The name that the protocol suggests for the cookie of a session.
SESSION_COOKIE = "arrow_flight_session_id"
#: How long the bearer token lives that a login gets, in seconds.
TOKEN_LIFE_S = 24 * 3600.0
#: Largest message sent: ADBC takes 16 MiB, Grafana and tonic 4 MiB; 2 MiB is also the fastest.
MAX_BATCH_BYTES = 2 * 1024 * 1024


# --- errors --------------------------------------------------------------------------------------


class _Bare:
    """Marks what is raised to pyarrow without a traceback."""


class _NotFound(KeyError, _Bare):
    """The only way to NOT_FOUND."""

    def __str__(self) -> str:
        return str(self.args[0])


class _InvalidArgument(ValueError, _Bare):
    """The only way to INVALID_ARGUMENT."""


class _Unimplemented(NotImplementedError, _Bare):
    """The only way to UNIMPLEMENTED."""


_CARRIERS: Mapping[str, type[Exception]] = {
    "NOT_FOUND": _NotFound,
    "INVALID_ARGUMENT": _InvalidArgument,
    "UNIMPLEMENTED": _Unimplemented,
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "DEADLINE_EXCEEDED": flight.FlightTimedOutError,
    "CANCELLED": flight.FlightCancelledError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "INTERNAL": flight.FlightInternalError,
    "UNKNOWN": flight.FlightServerError,
}


def to_carrier(error: BaseException) -> Exception:
    """What pyarrow turns into the status and the text of ``error``.

    Anything but a :class:`FlightSqlError` is a defect of ours: logged with its stack, and sent
    without a word of it.
    """
    if not isinstance(error, FlightSqlError):
        log.error("unexpected error", exc_info=error)
        error = Internal("the server made a mistake; its log has the details")
    return _CARRIERS[sent_status(error)](sent_message(error))


def _silence_tracebacks() -> None:
    """Let pyarrow, which sends ``traceback.format_exception(…)`` of what is raised, send none."""
    original = traceback.format_exception
    if getattr(original, "k2_silenced", False):
        return

    @wraps(original)
    def format_exception(*args: Any, **kwargs: Any) -> list[str]:
        if any(isinstance(arg, _Bare) for arg in args):
            return []
        return original(*args, **kwargs)

    format_exception.k2_silenced = True  # type: ignore[attr-defined]  # a mark on our own function
    traceback.format_exception = format_exception


# --- who calls -----------------------------------------------------------------------------------


class _Caller(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One RPC's principal and session, and the headers to send back."""

    def __init__(self, call: Call, reply: dict[str, str]) -> None:
        self.call = call
        self._reply = reply

    def sending_headers(self) -> dict[str, str]:
        """Once: pyarrow asks twice for GetFlightInfo, and would send everything twice."""
        reply, self._reply = self._reply, {}
        return reply


class _CallerFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self, service: Service, authenticator: Authenticator) -> None:
        self._service = service
        self._authenticator = authenticator

    def start_call(self, info: Any, headers: Headers) -> _Caller:
        """Raises to pyarrow by itself: a Handshake has no other frame of ours."""
        del info
        try:
            return self._caller(headers)
        except Exception as error:  # noqa: BLE001 - the boundary
            raise to_carrier(error) from None

    def _caller(self, headers: Headers) -> _Caller:
        principal, token = self._authenticate(headers)
        cookie = cookies(headers).get(SESSION_COOKIE)
        session, new_cookie = self._service.sessions.resolve(cookie, principal.name)
        reply = {}
        if token is not None:
            reply["authorization"] = f"Bearer {token}"
        if new_cookie is not None:
            reply["set-cookie"] = f"{SESSION_COOKIE}={new_cookie}"
        return _Caller(Call(principal, session), reply)

    def _authenticate(self, headers: Headers) -> tuple[Principal, str | None]:
        """The principal, and the token that a login by password gets."""
        credentials = read_credentials(headers)
        if isinstance(credentials, BearerToken):
            known = self._from_token(credentials.token)
            if known is not None:
                return known, None
        principal = self._authenticator.authenticate(credentials)
        if isinstance(credentials, UserPassword):
            return principal, self._to_token(principal)
        return principal, None

    def _from_token(self, token: str) -> Principal | None:
        """The principal of a token of ours; None where it is somebody else's."""
        try:
            sealed = base64.urlsafe_b64decode(token.encode())
            opened = self._service.sealer.unseal(Purpose.TOKEN, sealed)
        except (HandleRefused, ValueError):
            return None
        except StaleHandle as error:
            raise Unauthenticated("the login has expired; connect again") from error
        return Principal(opened.principal, frozenset(json.loads(opened.payload)))

    def _to_token(self, principal: Principal) -> str:
        roles = json.dumps(sorted(principal.roles)).encode()
        sealer, name = self._service.sealer, principal.name
        return base64.urlsafe_b64encode(
            sealer.seal(Purpose.TOKEN, name, roles, TOKEN_LIFE_S)
        ).decode()


class _NoHandshake(flight.ServerAuthHandler):  # type: ignore[misc]  # pyarrow has no types
    """Makes Handshake succeed: the headers have been read by then."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        """Nothing is exchanged."""

    def is_valid(self, token: bytes) -> bytes:
        """Who calls stands in the middleware."""
        del token
        return b""


# --- the server ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes of the server's certificate chain and key."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Tls(…)"


class FlightSqlServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Flight SQL on one address. ``shutdown`` waits for the calls under way.

    Args:
        service: backend, keys, sessions, policy.
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 takes a free one.
        authenticator: who calls; None: anybody.
        tls: for ``grpc+tls``.
    """

    def __init__(
        self,
        service: Service,
        location: str,
        *,
        authenticator: Authenticator | None = None,
        tls: Tls | None = None,
    ) -> None:
        _silence_tracebacks()
        self._service = service
        super().__init__(
            location,
            auth_handler=_NoHandshake(),
            tls_certificates=[] if tls is None else [(tls.certificate, tls.key)],
            middleware={_MIDDLEWARE: _CallerFactory(service, authenticator or Anybody())},
        )

    def stop(self) -> None:
        """Cancel what is being sent, then stop to serve. Idempotent."""
        self._service.running.stop()
        self.shutdown()

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """Plan, and seal the plan into the only endpoint's ticket."""
        return _answer(lambda: self._info(_call(context), descriptor))

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        """The schema that the stream would have."""
        return _answer(lambda: self._schema(_call(context), descriptor))

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Stream what the ticket stands for."""
        return _answer(lambda: self._stream(context, ticket))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Bind parameters."""
        _answer(lambda: self._put(_call(context), descriptor, reader, writer))

    def do_action(self, context: Any, action: Any) -> Any:
        """Run an action; its results are few, and there before the first one goes."""
        return _answer(lambda: self._act(_call(context), action))

    def list_actions(self, context: Any) -> Any:
        """What the route table offers."""
        del context
        return [flight.ActionType(name, text) for name, text in routes.list_actions()]

    def list_flights(self, context: Any, criteria: bytes) -> Any:
        """Not offered."""
        del context, criteria
        _answer(lambda: _refuse("ListFlights"))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Not offered."""
        del context, descriptor, reader, writer
        _answer(lambda: _refuse("DoExchange"))

    def _info(self, call: Call, descriptor: Any) -> Any:
        command, route = routes.find_command(_command(descriptor), "info")
        self._service.authorize(route.permission, call.principal)
        assert route.info is not None  # noqa: S101 - find_command looked
        return _flight_info(route.info(self._service, command, call), descriptor)

    def _schema(self, call: Call, descriptor: Any) -> Any:
        command, route = routes.find_command(_command(descriptor), "schema")
        self._service.authorize(route.permission, call.principal)
        assert route.schema is not None  # noqa: S101 - find_command looked
        return flight.SchemaResult(route.schema(self._service, command, call))

    def _stream(self, context: Any, ticket: Any) -> Any:
        call = _call(context)
        command, route = routes.find_command(ticket.ticket, "get")
        self._service.authorize(route.permission, call.principal)
        assert route.get is not None  # noqa: S101 - find_command looked
        stream = route.get(self._service, command, call)
        batches = self._batches(stream, context.is_cancelled)
        next(batches)  # into its try: from here on its finally runs, even if nobody reads
        return flight.GeneratorStream(stream.schema, batches)

    def _batches(self, stream: Stream, gone: Callable[[], bool]) -> Iterator[pa.RecordBatch | None]:
        """Runs on the RPC's own thread, its ``finally`` too, whether the client stays or goes.

        The first item is None.
        """
        try:
            with self._service.running.watch(stream.rows, gone, stream.ticket_id):
                yield None
                for batch in stream.rows:
                    if batch.num_rows:  # pyarrow gives up after 128 empty ones
                        yield from split(batch)
        except GeneratorExit:
            stream.rows.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary of a stream
            raise to_carrier(error) from None
        finally:
            stream.rows.close()

    def _put(self, call: Call, descriptor: Any, reader: Any, writer: Any) -> None:
        command, route = routes.find_command(_command(descriptor), "put")
        self._service.authorize(route.permission, call.principal)
        assert route.put is not None  # noqa: S101 - find_command looked
        writer.write(pa.py_buffer(route.put(self._service, command, _received(reader), call)))

    def _act(self, call: Call, action: Any) -> Any:
        request, route = routes.find_action(action.type, action.body.to_pybytes())
        self._service.authorize(route.permission, call.principal)
        bodies = route.act(self._service, request, call)
        return [flight.Result(pa.py_buffer(body)) for body in bodies]


def _answer(work: Callable[[], T]) -> T:
    """The boundary: the only frame that raises to pyarrow (streams have theirs)."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - an engine's panics are no Exceptions
        raise to_carrier(error) from None


def _refuse(name: str) -> None:
    raise Unimplemented(f"{name}: {routes.UNSUPPORTED[name]}")


def _call(context: Any) -> Call:
    caller: _Caller = context.get_middleware(_MIDDLEWARE)
    return caller.call


def _command(descriptor: Any) -> bytes:
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise MalformedMessage("a path is no Flight SQL command: use a Flight SQL client")
    command: bytes = descriptor.command
    return command


def _flight_info(info: Info, descriptor: Any) -> Any:
    expires = None
    if info.expires_s is not None:
        expires = pa.scalar(int(info.expires_s * 1e9), pa.timestamp("ns", "UTC"))
    endpoint = flight.FlightEndpoint(info.ticket, [], expires)
    return flight.FlightInfo(info.schema, descriptor, [endpoint], -1, -1)


def _received(reader: Any) -> Iterator[pa.RecordBatch]:
    """The client's batches, each checked in full: forged offsets would end the process."""
    while True:
        try:
            batch = reader.read_chunk().data
        except StopIteration:
            return
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InvalidArgument("the uploaded Arrow data is not valid") from error
        yield batch


def split(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """``batch`` in halves of halves, until each takes :data:`MAX_BATCH_BYTES` or is one row."""
    if batch.num_rows <= 1 or batch.nbytes <= MAX_BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from split(batch.slice(0, half))
    yield from split(batch.slice(half))
