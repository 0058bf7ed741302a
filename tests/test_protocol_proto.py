"""The vendored protocol files, their compiled form, and the private pool they live in."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from flight_server.protocol import codec, messages, routes
from flight_server.protocol.server import FlightSqlServer

PROTO = Path(codec.__file__).parent / "proto"
SOURCES = ("Flight.proto", "FlightSql.proto")


def test_the_compiled_descriptors_are_those_of_the_vendored_files(tmp_path: Path) -> None:
    """What ``make proto`` would write; versions of the compiler may differ in bytes only."""
    compiled = tmp_path / "again.desc"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_imports"]
    command += [f"--descriptor_set_out={compiled}", *SOURCES, "google/protobuf/any.proto"]
    subprocess.run(command, cwd=PROTO, check=True)
    kept, again = (
        {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(data).file}
        for data in ((PROTO / "flight_sql.desc").read_bytes(), compiled.read_bytes())
    )
    assert set(kept) == set(again)
    for name in SOURCES:
        assert kept[name] == again[name]


@pytest.mark.parametrize("name", SOURCES)
def test_the_vendored_files_are_unchanged_and_carry_their_licence(name: str) -> None:
    text = (PROTO / name).read_bytes()
    (digest,) = re.findall(rf"\| {name} \| (\w+) \|", (PROTO / "README.md").read_text())
    assert hashlib.sha256(text).hexdigest() == digest
    assert b"Licensed to the Apache Software Foundation" in text


def test_another_copy_of_the_protocol_can_be_loaded_beside_ours() -> None:
    """A client library registers the same names in the default pool of this very process."""
    script = f"""
from pathlib import Path
from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2
import flight_server.protocol.codec as ours
compiled = Path({str(PROTO / "flight_sql.desc")!r}).read_bytes()
files = descriptor_pb2.FileDescriptorSet.FromString(compiled)
theirs = descriptor_pool.Default()
for file in files.file:
    if file.name.startswith("Flight"):
        theirs.AddSerializedFile(file.SerializeToString())
name = "arrow.flight.protocol.sql.CommandGetTables"
assert theirs.FindMessageTypeByName(name) is not ours.POOL.FindMessageTypeByName(name)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_default_pool_knows_nothing_of_ours() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(messages.GetTables.proto)


def _requests() -> list[str]:
    """Every message of the two files that a client sends as a command, ticket or action."""
    pattern = re.compile(r"(Command|Ticket).+|.+Request")
    names = []
    for file in SOURCES:
        described = codec.POOL.FindFileByName(file)
        names += [m.full_name for m in described.message_types_by_name.values()]
    handshake = {"arrow.flight.protocol.HandshakeRequest"}  # a call of its own
    return sorted(
        n for n in names if pattern.fullmatch(n.rpartition(".")[2]) and n not in handshake
    )


@pytest.mark.parametrize("name", _requests())
def test_every_command_and_action_has_a_route_or_a_reason(name: str) -> None:
    """The protocol's descriptors are walked: nothing of it is forgotten."""
    routed = {kind.proto for kind in (*routes.COMMANDS, *routes.ACTIONS)}
    short = name.rpartition(".")[2]
    assert (name in routed) != (short in routes.UNSUPPORTED)
    decoded = {kind.proto for kind in (*messages.COMMANDS.values(), *messages.ACTIONS.values())}
    assert name in decoded


def test_there_are_as_many_requests_as_the_protocol_has() -> None:
    """The walk above finds what it should."""
    assert len(_requests()) == 17 + 13


def test_every_call_of_the_service_is_answered_or_has_a_reason() -> None:
    service = codec.POOL.FindServiceByName("arrow.flight.protocol.FlightService")
    methods = {method.name for method in service.methods}
    offered = {
        name
        for name in methods
        if re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() in vars(FlightSqlServer)
    }
    assert methods - offered - set(routes.UNSUPPORTED) == {"Handshake"}  # the auth handler


def test_no_reason_is_left_over() -> None:
    """A name in UNSUPPORTED exists in the protocol."""
    service = codec.POOL.FindServiceByName("arrow.flight.protocol.FlightService")
    calls = {method.name for method in service.methods}
    known = {name.rpartition(".")[2] for name in _requests()} | calls
    assert set(routes.UNSUPPORTED) <= known
