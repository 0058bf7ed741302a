"""A Flight server that answers at once, and its client: what the transport alone costs."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.flight as fl

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


def bare_client(port: int) -> Client:
    """GetFlightInfo, then DoGet."""
    client = fl.connect(f"grpc://127.0.0.1:{port}")

    def ask() -> object:
        info = client.get_flight_info(fl.FlightDescriptor.for_command(b"x"))
        return client.do_get(info.endpoints[0].ticket).read_all()

    return ask, client.close
