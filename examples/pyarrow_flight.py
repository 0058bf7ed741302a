"""A statement's batches with nothing but pyarrow: python examples/pyarrow_flight.py "select 1".

Flight SQL over plain Flight: the statement travels as a protobuf message wrapped in an Any, which
is two nested fields here. Each endpoint's ticket is fetched on the same connection.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

URI = os.environ.get("URI", "grpc://127.0.0.1:32010")
SQL = "select symbol, count(*) as trades from market_data.trades group by symbol order by symbol"
QUERY = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes or text."""
    size, length = bytearray(), len(content)
    while length >> 7:
        size.append(length & 127 | 128)
        length >>= 7
    size.append(length)
    return bytes([number << 3 | 2]) + bytes(size) + content


def batches(client: flight.FlightClient, sql: str) -> Iterator[pa.RecordBatch]:
    """The rows as they come."""
    command = field(1, QUERY) + field(2, field(1, sql.encode()))
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    for endpoint in info.endpoints:
        for chunk in client.do_get(endpoint.ticket):
            yield chunk.data


def main() -> None:
    with flight.connect(URI) as client:
        for batch in batches(client, sys.argv[1] if len(sys.argv) > 1 else SQL):
            for row in zip(*batch.to_pydict().values(), strict=True):
                print(*row)


if __name__ == "__main__":
    main()
