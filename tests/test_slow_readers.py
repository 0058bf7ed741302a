"""A client that reads a byte a second: it keeps its connection, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType

import pyarrow as pa
import pytest
from pyarrow import flight
from support_engine import FolderTables
from support_flight import descriptor, fetch, hand, make_service, serving, until

from flight_server.backend import EngineBackend
from flight_server.engine import Engine
from flight_server.limits import Limits
from flight_server.metrics import QueryLog
from flight_server.plans import Options, Statement
from flight_server.protocol import messages
from flight_server.protocol.errors import DeadlineExceeded

ENDLESS = messages.StatementQuery("select value from generate_series(1, 100000000000000)")
#: Enough for the headers of a call and the schema, too little for the first batch.
FREE_BYTES = 4096


class Trickle:
    """Between client and server: answers pass at a byte a second once a few KB have passed."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._closed = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                server.connect(("127.0.0.1", self._upstream))
                self._open += [client, server]
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    @staticmethod
    def _up(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(512 if self.passed < FREE_BYTES else 1):
                client.sendall(data)
                self.passed += len(data)
                if self.passed >= FREE_BYTES and self._closed.wait(1.0):
                    return

    def close(self) -> None:
        """Ends every connection."""
        self._closed.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """One statement at a time, for a second and a half."""
    tables = FolderTables(tmp_path)
    limits = Limits(concurrency=1, statement_timeout_s=1.5, slow_reader_s=1000)
    made = Engine(tables, tables, limits)
    yield made
    made.close()


def read_on(port: int, errors: list[Exception]) -> None:
    """A stock client, reading what comes."""
    with flight.connect(f"grpc://127.0.0.1:{port}") as client:
        try:
            ticket = client.get_flight_info(descriptor(ENDLESS)).endpoints[0].ticket
            for _ in client.do_get(ticket):
                pass
        except pa.ArrowException as error:
            errors.append(error)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_reader_of_a_byte_a_second_loses_its_slot_at_the_statements_timeout(
    engine: Engine,
) -> None:
    """Its thread stays in a write that does not end; slot and engine are free for others."""
    log = QueryLog()
    service = make_service(EngineBackend(engine, log))
    with serving(service) as server, hand(server) as other:
        one = messages.StatementQuery("select 1 as one")
        fetch(other, one)
        files = open_files()
        trickle = Trickle(server.port)
        errors: list[Exception] = []
        reader = threading.Thread(target=read_on, args=(trickle.port, errors))
        reader.start()
        until(lambda: engine.admission.running == 1)
        until(lambda: engine.admission.running == 0)
        assert len(service.running) == 1  # still being sent
        assert trickle.passed < 2 * FREE_BYTES
        for _ in range(5):
            assert fetch(other, one)["one"].to_pylist() == [1]
        assert not errors
        trickle.close()
        reader.join()
        (error,) = errors
        assert "Traceback" not in str(error)
        until(lambda: len(service.running) == 0)
        until(lambda: open_files() <= files)
        (slow,) = [record for record in log.records() if "series" in record.statement]
        assert slow.state != "finished"


def test_the_engine_stops_at_the_timeout_though_nobody_reads(engine: Engine) -> None:
    """What its stream holds is freed; the reader learns why at its next batch."""
    stream = engine.stream(engine.plan(Statement(ENDLESS.query), Options()))
    batches = iter(stream)
    assert next(batches).num_rows > 0
    until(lambda: engine.admission.running == 0)
    source = stream._source
    assert isinstance(source, GeneratorType)
    assert source.gi_frame is None  # closed, with all that it held
    with pytest.raises(DeadlineExceeded):
        next(batches)
    assert engine.admission.running == 0


def test_rows_after_a_pause_beyond_the_timeout_are_an_error_and_no_short_answer(
    engine: Engine,
) -> None:
    """What was given up while nobody read must never look like the end of the rows."""
    backend = EngineBackend(engine, QueryLog())
    with serving(make_service(backend)) as server, hand(server) as client:
        ticket = client.get_flight_info(descriptor(ENDLESS)).endpoints[0].ticket
        reader = client.do_get(ticket)
        assert reader.read_chunk().data.num_rows > 0
        until(lambda: engine.admission.running == 0)
        time.sleep(0.1)
        with pytest.raises(flight.FlightTimedOutError, match="time limit"):
            for _ in reader:
                pass
