"""The decoders, one function each: any bytes give a value or a typed error, and nothing else.

A target raises what it must not see; atheris, hypothesis and the test of the corpus all call it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from support_avro import SPEC, chunk_of, decoder
from support_engine import FolderTables
from support_flight import KEY, Numbers

from catalog.avro import RecordOf, RegistrySchema, parse_record
from catalog.decode import Decoder
from catalog.errors import CatalogError
from catalog.heads import marker_of_property
from catalog.manifest import Manifest
from catalog.offsets import POSITIONS_KEY, marker_from_summary
from catalog.schemas import declare
from catalog.strict import MalformedError, plain_record
from flight_server import params
from flight_server.backend import EngineBackend
from flight_server.engine import Engine
from flight_server.limits import Limits
from flight_server.metrics import QueryLog
from flight_server.payloads import read_payload
from flight_server.protocol import Call, Principal, Sealer, Service, codec, messages, routes
from flight_server.protocol.callers import CallerFactory
from flight_server.protocol.defaults import Anybody
from flight_server.protocol.errors import FlightSqlError, sent_message, sent_status
from flight_server.protocol.handles import Purpose
from flight_server.protocol.server import _received
from flight_server.sessions import SessionStore
from flight_server.sqltext import Bounds, read

#: Handles of the corpus are sealed at this moment, and it is always now.
NOW_S = 1_800_000_000.0
PARAMETERS = pa.schema(
    [
        ("$1", pa.int32()),
        ("$2", pa.decimal128(18, 8)),
        ("$3", pa.utf8()),
        ("$4", pa.timestamp("us", "UTC")),
        ("$5", pa.null()),
    ]
)
TRADE = {
    "type": "record",
    "name": "trade",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "size", "type": "long"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18}},
        {"name": "side", "type": {"type": "enum", "name": "side", "symbols": ["buy", "sell"]}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "int"}},
        {"name": "more", "type": {"type": "map", "values": "double"}},
    ],
}


@cache
def sealer() -> Sealer:
    """A key of the corpus' own, at a clock that stands still."""
    return Sealer([KEY], clock=lambda: NOW_S)


@cache
def service() -> Service:
    """The kernel over the smallest backend."""
    return Service(Numbers(), sealer(), SessionStore(sealer()))


def call() -> Call:
    """Somebody without a cookie."""
    session, _ = service().sessions.resolve(None, "anonymous")
    return Call(Principal("anonymous"), session)


def _typed(body: Callable[[], object]) -> None:
    """Typed errors have a status and a text that can be sent."""
    try:
        body()
    except FlightSqlError as error:
        assert sent_status(error)  # noqa: PT017 - what is raised is looked at if it is
        assert len(sent_message(error).encode()) < 4096  # noqa: PT017 - see above


def command(data: bytes) -> None:
    """A descriptor's command or a ticket: decoded, and encoded again to the same."""

    def body() -> None:
        decoded = codec.decode_command(data)
        assert codec.decode_command(codec.encode_command(decoded)) == decoded

    _typed(body)


def info(data: bytes) -> None:
    """GetFlightInfo and GetSchema of any bytes."""
    for part in ("info", "schema"):

        def body(part: str = part) -> None:
            found, route = routes.find_command(data, part)
            getattr(route, part)(service(), found, call())

        _typed(body)


def ticket(data: bytes) -> None:
    """DoGet of any bytes, to the last row."""

    def body() -> None:
        found, route = routes.find_command(data, "get")
        assert route.get is not None
        stream = route.get(service(), found, call())
        try:
            for batch in stream.rows:
                batch.validate(full=True)
        finally:
            stream.rows.close()

    _typed(body)


ACTIONS = sorted(messages.ACTIONS)


def action(data: bytes) -> None:
    """DoAction: the first byte says which, the others are its body."""
    if not data:
        return
    name = ACTIONS[data[0] % len(ACTIONS)]

    def body() -> None:
        request, route = routes.find_action(name, data[1:])
        list(route.act(service(), request, call()))

    _typed(body)


def handle(data: bytes) -> None:
    """Sealed bytes of every kind, by any principal."""
    for purpose in Purpose:
        _typed(lambda purpose=purpose: sealer().unseal_for(purpose, data, "anonymous"))


def headers(data: bytes) -> None:
    """``name: value`` lines, as a client may send them with any call."""
    found: dict[str, list[str | bytes]] = {}
    for line in data.decode("latin-1").split("\n"):
        name, _, value = line.partition(":")
        found.setdefault(name.strip().lower(), []).append(value.strip())
    factory = CallerFactory(service(), Anybody())
    _typed(lambda: factory._caller(found))


class _Chunk:
    def __init__(self, data: pa.RecordBatch) -> None:
        self.data = data


class _Reader:
    """What pyarrow gives do_put: the batches of an Arrow stream, not validated."""

    def __init__(self, data: bytes) -> None:
        self._reader = pa.ipc.open_stream(data)

    def read_chunk(self) -> _Chunk:
        return _Chunk(self._reader.read_next_batch())


def put(data: bytes) -> None:
    """An Arrow stream bound to a prepared statement, and its values cast to inferred types."""
    try:
        reader: Any = _Reader(data)
    except (pa.ArrowException, OSError, MemoryError):
        return  # pyarrow's own reader of DoPut refuses it before it comes to us
    batches: list[pa.RecordBatch] = []

    def body() -> None:
        batches.extend(_received(reader))
        bound = messages.PreparedStatementQuery(_statement())
        route = routes.COMMANDS[messages.PreparedStatementQuery]
        assert route.put is not None
        route.put(service(), bound, iter(batches), call())

    _typed(body)
    for batch in batches:
        count = min(batch.num_columns, len(PARAMETERS))
        few = batch.select(range(count)) if batch.num_columns else batch

        def values(few: pa.RecordBatch = few, count: int = count) -> None:
            for row in range(params.sets(few, 10)):
                params.bound(pa.schema(list(PARAMETERS)[:count]), few, row)

        _typed(values)


@cache
def _statement() -> bytes:
    request = messages.CreatePreparedStatement("select n from numbers")
    (body,) = routes.ACTIONS[type(request)].act(service(), request, call())
    wrapped = codec._parse("google.protobuf.Any", body)
    name = f"{messages.SQL_PACKAGE}.ActionCreatePreparedStatementResult"
    sealed: bytes = codec._parse(name, wrapped.value).prepared_statement_handle
    return sealed


@cache
def _backend() -> EngineBackend:
    tables = FolderTables(Path(tempfile.mkdtemp(prefix="k2-fuzz-")))
    return EngineBackend(Engine(tables, tables, Limits()), QueryLog())


def options(data: bytes) -> None:
    """Session options of any type and value, each judged by the real backend."""

    def body() -> None:
        request = codec.decode_as(messages.SetSessionOptions, data)
        for name, value in request.session_options.items():
            _typed(lambda name=name, value=value: _backend().check_option(name, value))

    _typed(body)


def sql(data: bytes) -> None:
    """The text of a statement: lexed, bounded, rewritten."""
    text = data.decode(errors="replace")

    def body() -> None:
        found = read(text, Bounds())
        for offset in range(0, len(found.rewritten), 7):
            assert 0 <= found.origin(offset) <= len(found.sql)

    _typed(body)


def payload(data: bytes) -> None:
    """What a ticket says, sealed by another version of this server."""
    with suppress(CatalogError):
        read_payload(data)


def manifest(data: bytes) -> None:
    """The file that ingest and server share."""
    with suppress(CatalogError):
        found = Manifest.from_json(data)
        assert Manifest.from_json(found.to_json()) == found


def marker(data: bytes) -> None:
    """Positions in a snapshot's summary, and their copy in a table property."""
    text = data.decode(errors="replace")
    with suppress(CatalogError):
        marker_of_property(text)
    keys = ("epoch", "writer", "schema-id", "gc")
    summary = {f"k2.{key}": "1" for key in keys} | {"k2.topics": "[]", POSITIONS_KEY: text}
    with suppress(CatalogError):
        marker_from_summary(summary)


def avro_schema(data: bytes) -> None:
    """A writer's schema, as a registry may answer it."""
    with suppress(ValueError, RecursionError):  # the registry's client parses the JSON
        found = json.loads(data)
        if isinstance(found, dict):
            with suppress(CatalogError):
                declare(RegistrySchema(7, found), SPEC)


#: As many fields as a trade's, in Avro's plainest encoding, framed.
GOOD = b"\0\0\0\0\x07" + b"\x02a" + b"\x04" + b"\x02\x05" + b"\0" + b"\0" + b"\0" + b"\0"


@cache
def _decoder() -> Decoder:
    return decoder(TRADE)[0]


@cache
def _trade() -> RecordOf:
    return parse_record(RegistrySchema(7, TRADE), "refuse")


def record(data: bytes) -> None:
    """The value of a Kafka message: rejected or a row, and its neighbours are rows in any case."""
    with suppress(MalformedError):
        plain = plain_record(_trade(), data)
        assert plain_record(_trade(), plain) == plain
    decoded = _decoder().decode(chunk_of([GOOD, data, GOOD]))
    decoded.batch.validate(full=True)
    offsets = decoded.batch["_offset"].to_pylist()
    assert offsets == ([100, 102] if decoded.rejects else [100, 101, 102])


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(command, info, ticket, action, handle, headers, put, options, sql, payload),
        *(manifest, marker, avro_schema, record),
    )
}
