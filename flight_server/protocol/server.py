"""Flight SQL over pyarrow's gRPC server: boundary → route → reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any  # pyarrow.flight has no types

import pyarrow as pa
from pyarrow import flight

from flight_server.protocol import routes
from flight_server.protocol.backend import Call
from flight_server.protocol.boundary import answer, silence_tracebacks, to_carrier
from flight_server.protocol.callers import (
    MIDDLEWARE,
    CallerFactory,
    CertifiedFactory,
    NoHandshake,
    call_of,
)
from flight_server.protocol.credentials import Authenticator
from flight_server.protocol.defaults import Anybody
from flight_server.protocol.errors import (
    Internal,
    InvalidArgument,
    MalformedMessage,
    Unimplemented,
)
from flight_server.protocol.sizes import sliced
from flight_server.protocol.statements import Info, Service, Stream

#: Largest message sent: ADBC takes 16 MiB, Grafana and tonic 4 MiB; 2 MiB is also the fastest.
MAX_BATCH_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes of the server's certificate chain and key.

    Attributes:
        clients: certificates of the authorities that sign clients' certificates. With them, a
            client needs one, it says who calls, and there is no Handshake: an auth handler would
            erase that identity.
    """

    certificate: bytes
    key: bytes
    clients: bytes | None = None

    def __repr__(self) -> str:
        return "Tls(…)"


class FlightSqlServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Flight SQL on one address. ``shutdown`` waits for the calls under way.

    Args:
        service: backend, keys, sessions, policy.
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 takes a free one.
        authenticator: who calls; None: anybody, or whom the client's certificate names.
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
        silence_tracebacks()
        self._service = service
        super().__init__(
            location,
            tls_certificates=[] if tls is None else [(tls.certificate, tls.key)],
            **_callers(service, authenticator, tls),
        )

    def stop(self) -> None:
        """Cancel what is being sent, then stop to serve. Idempotent."""
        self._service.running.stop()
        self.shutdown()

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """Plan, and seal the plan into the endpoints' tickets."""
        return answer(lambda: self._info(call_of(context), descriptor))

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        """The schema that the stream would have."""
        return answer(lambda: self._schema(call_of(context), descriptor), bare=True)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Stream what the ticket stands for."""
        return answer(lambda: self._stream(context, ticket))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Bind parameters."""
        answer(lambda: self._put(call_of(context), descriptor, reader, writer))

    def do_action(self, context: Any, action: Any) -> Any:
        """Run an action; its results are few, and there before the first one goes."""
        return answer(lambda: self._act(call_of(context), action))

    def list_actions(self, context: Any) -> Any:
        """What the route table offers."""
        del context
        return [flight.ActionType(name, text) for name, text in routes.list_actions(self._service)]

    def list_flights(self, context: Any, criteria: bytes) -> Any:
        """Not offered."""
        del context, criteria
        answer(lambda: _refuse("ListFlights"))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Not offered."""
        del context, descriptor, reader, writer
        answer(lambda: _refuse("DoExchange"))

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
        call = call_of(context)
        command, route = routes.find_command(ticket.ticket, "get")
        self._service.authorize(route.permission, call.principal)
        assert route.get is not None  # noqa: S101 - find_command looked
        stream = route.get(self._service, command, call)
        batches = self._batches(stream, context.is_cancelled)
        next(batches)  # into its try: from here on its finally runs, even if nobody reads
        options = pa.ipc.IpcWriteOptions(compression=stream.compression)
        return flight.GeneratorStream(stream.schema, batches, options)

    def _batches(self, stream: Stream, gone: Callable[[], bool]) -> Iterator[pa.RecordBatch | None]:
        """Runs on the RPC's own thread, its ``finally`` too, whether the client stays or goes.

        The first item is None.
        """
        try:
            with self._service.running.watch(stream.rows, gone, stream.ticket_id):
                if stream.ticket_id in self._service.retired:  # cancelled while it was opened
                    stream.rows.cancel()
                yield None
                for batch in stream.rows:
                    _require(batch, stream.schema)
                    if batch.num_rows:  # pyarrow gives up after 128 empty ones
                        yield from (piece for piece, _ in sliced(batch, MAX_BATCH_BYTES))
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


def _callers(
    service: Service, authenticator: Authenticator | None, tls: Tls | None
) -> dict[str, Any]:
    """Arguments of pyarrow's server: who calls stands in the headers, or in the certificate."""
    if tls is None or tls.clients is None:
        factory = CallerFactory(service, authenticator or Anybody())
        return {"auth_handler": NoHandshake(), "middleware": {MIDDLEWARE: factory}}
    if authenticator is not None:
        raise ValueError("a listener takes certificates or credentials, not both")
    return {
        "verify_client": True,
        "root_certificates": tls.clients,
        "middleware": {MIDDLEWARE: CertifiedFactory(service)},
    }


def _refuse(name: str) -> None:
    raise Unimplemented(f"{name}: {routes.UNSUPPORTED[name]}")


def _command(descriptor: Any) -> bytes:
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise MalformedMessage("a path is no Flight SQL command: use a Flight SQL client")
    command: bytes = descriptor.command
    return command


def _flight_info(info: Info, descriptor: Any) -> Any:
    expires = None
    if info.expires_s is not None:
        expires = pa.scalar(int(info.expires_s * 1e9), pa.timestamp("ns", "UTC"))
    endpoints = [flight.FlightEndpoint(ticket, [], expires) for ticket in info.tickets]
    ordered = len(endpoints) == 1
    return flight.FlightInfo(info.schema, descriptor, endpoints, -1, -1, ordered)


def _received(reader: Any) -> Iterator[pa.RecordBatch]:
    """The client's batches, each checked in full: forged offsets would end the process."""
    while True:
        try:
            batch = reader.read_chunk().data
            batch.validate(full=True)
            _read_names(batch.schema)
            _ = batch.columns
        except StopIteration:
            return
        # All that pyarrow raises here; the last two: a name that is no UTF-8, a type (intervals of
        # months) that pyarrow has no class for.
        except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, KeyError) as error:
            raise InvalidArgument("the uploaded Arrow data is not valid") from error
        yield batch


def _read_names(fields: Any) -> None:
    """Nobody has looked at the names yet, and whoever does first would fail."""
    for field in fields:
        _ = field.name
        if field.type.num_fields:
            _read_names(field.type.field(place) for place in range(field.type.num_fields))


def _require(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    """Pyarrow checks this too, and sends its traceback."""
    if batch.schema != schema:
        raise Internal("the engine gave a batch of another schema than the stream's")
