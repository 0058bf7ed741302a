"""Flight servers that answer at once, and a client of theirs: what the transport alone costs."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.flight as fl

from flight_server.protocol import codec, sqlinfo

#: A client's question, and what closes it.
Client = tuple[Callable[[], object], Callable[[], None]]


class Bare(fl.FlightServerBase):  # type: ignore[misc] # pyarrow has no types
    """Gives the same table whatever it is asked."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._table = table

    def get_flight_info(self, _context: object, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """One endpoint, here."""
        endpoint = fl.FlightEndpoint(b"x", [f"grpc://127.0.0.1:{self.port}"])
        return fl.FlightInfo(self._table.schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _context: object, _ticket: fl.Ticket) -> fl.RecordBatchStream:
        """The table."""
        return fl.RecordBatchStream(self._table)


#: What :class:`BareSql` says to everything.
ONE = pa.table({"Int64(1)": [1]})
_INFO = pa.Table.from_batches([], sqlinfo.SQL_INFO)  # ADBC asks when it connects


class BareSql(fl.FlightServerBase):  # type: ignore[misc] # pyarrow has no types
    """Flight SQL by the least that ADBC's four calls need: constants, no engine, no kernel."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        nothing = pa.schema([]).serialize().to_pybytes()
        self._prepared = fl.Result(
            pa.py_buffer(
                codec.prepared_result(
                    b"h" * 64, ONE.schema.serialize().to_pybytes(), nothing, is_update=False
                )
            )
        )

    def get_flight_info(self, _context: object, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """One endpoint, here."""
        about = b"CommandGetSqlInfo" in descriptor.command
        schema = _INFO.schema if about else ONE.schema
        endpoint = fl.FlightEndpoint(b"about" if about else b"one", [])
        return fl.FlightInfo(schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _context: object, ticket: fl.Ticket) -> fl.RecordBatchStream:
        """The constant."""
        return fl.RecordBatchStream(_INFO if ticket.ticket == b"about" else ONE)

    def do_action(self, _context: object, action: fl.Action) -> list[fl.Result]:
        """A prepared statement; closing it has no answer."""
        return [self._prepared] if action.type == "CreatePreparedStatement" else []


@contextlib.contextmanager
def bare_sql() -> Iterator[str]:
    """A :class:`BareSql` in a process of its own, as the other servers are; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.bare"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def bare_client(port: int) -> Client:
    """GetFlightInfo, then DoGet."""
    client = fl.connect(f"grpc://127.0.0.1:{port}")

    def ask() -> object:
        info = client.get_flight_info(fl.FlightDescriptor.for_command(b"x"))
        return client.do_get(info.endpoints[0].ticket).read_all()

    return ask, client.close


def _serve() -> None:
    """Says its port and answers until it is ended."""
    with BareSql() as served:
        sys.stdout.write(f"{served.port}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    _serve()
