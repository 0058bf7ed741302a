"""Writes the corpus' first files: sound bytes of every kind. ``python -m fuzz.seeds``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from support_live import at, manifest_of

from catalog.heads import marker_property
from catalog.offsets import Marker, Offsets
from catalog.records import Part, Segment
from flight_server.protocol import codec, messages
from flight_server.protocol.handles import Purpose
from fuzz import targets

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


def seeds() -> Iterator[tuple[str, bytes]]:
    """(target, bytes)."""
    yield from _protocol()
    yield from _texts()
    batch = pa.record_batch({"a": [1, 2], "b": ["x", None], "c": [[1], []]})
    for each in (batch, pa.record_batch({"p": pa.array(["a", "b"]).dictionary_encode()})):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, each.schema) as writer:
            writer.write_batch(each)
        yield "put", sink.getvalue().to_pybytes()
    marker = Marker(Offsets({("t", 0): 5}), (), 1, "w", 7, 0)
    yield "marker", marker_property(5, marker).encode()
    yield "marker", b'{"t":{"0":12}}'
    segment = Segment("t/1.arrow", 3, 900, (Part("t", 0, 0, 4, 0, 3),), 17)
    yield "manifest", manifest_of([segment], at(1, 2), at(4, 2)).to_json()
    yield "avro_schema", json.dumps(targets.TRADE).encode()
    yield "record", targets.GOOD
    yield "record", targets.GOOD[5:]


def _protocol() -> Iterator[tuple[str, bytes]]:
    query = messages.StatementQuery("select n from numbers")
    prepared = messages.PreparedStatementQuery(targets._statement())
    sealer = targets.sealer()
    (ticket,) = (
        targets.routes.COMMANDS[messages.StatementQuery]
        .info(  # type: ignore[misc]
            targets.service(), query, targets.call()
        )
        .tickets
    )
    metadata = (
        messages.GetTables("lake", "d%", None, ("VIEW",), True),
        messages.GetDbSchemas("lake", "%"),
        messages.GetSqlInfo((0, 3, 504)),
    )
    for each in (query, prepared, *metadata):
        encoded = codec.encode_command(each)
        for target in ("command", "info", "ticket"):
            yield target, encoded
    yield "command", ticket
    yield "ticket", ticket
    values = messages.SetSessionOptions(
        {"schema": "x", "endpoints": 5, "compression": "lz4", "statement_timeout": 0.5, "l": ("a",)}
    )
    yield "options", codec.encode_bare(values)
    for request in (
        messages.CreatePreparedStatement(query.query),
        messages.ClosePreparedStatement(targets._statement()),
        messages.CancelFlightInfo((ticket,)),
        messages.RenewFlightEndpoint(ticket),
        values,
    ):
        name = messages.action_type(type(request))
        wrapped = request.proto.startswith(messages.SQL_PACKAGE + ".")
        body = codec.encode_command(request) if wrapped else codec.encode_bare(request)
        yield "action", bytes([targets.ACTIONS.index(name)]) + body
    for purpose in Purpose:
        yield "handle", sealer.seal(purpose, "anonymous", b"payload" * 300, 60)
        yield "handle", sealer.seal(purpose, "anonymous", b"payload", 60)


def _texts() -> Iterator[tuple[str, bytes]]:
    yield "headers", b"authorization: Basic YWxpY2U6c2VjcmV0\ncookie: arrow_flight_session_id=abc"
    yield "headers", b"authorization: Bearer abc\ncookie: a=1; b=2"
    yield "sql", b"select \"a\", 'b', 1e5, ? from t where x = $$q$$ -- end\n"
    yield "sql", b"with c as (select 1) select * from c, c as d where (a between 1 and 2)"
    head = json.dumps({"q": "select 1", "o": ["s", "UTC", None], "p": [], "s": None}).encode()
    yield "payload", len(head).to_bytes(4) + head
    pin = {"n": ["a", "t"], "u": "x", "k": "plain", "t": [], "s": 1, "m": "m", "i": 0}
    pin |= {"c": {"t": {"0": 4}}, "e": {"t": {"0": 9}}, "h": ""}
    full = json.dumps(
        {"q": "?", "o": ["s", "UTC", 1.5], "p": [pin], "s": ["offset", 0, 5]}
    ).encode()
    yield "payload", len(full).to_bytes(4) + full


def write() -> None:
    """Each under the digest of its bytes, as libFuzzer names what it finds."""
    for target, data in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    write()
