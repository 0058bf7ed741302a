"""Real server processes: one key on two of them, cores after a cancel, clients that die."""

# ruff: noqa: FBT001 - booleans come from parametrize

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight
from support_backend import Site
from support_flight import act, bare, descriptor, fetch, read, until, unwrapped

from flight_server.lifeline import Child
from flight_server.protocol import Sealer, codec, messages
from flight_server.protocol.handles import Purpose

KEY = "one key for all the servers of a house"
ALL = messages.StatementQuery("select * from market_data.ticks")
ENDLESS = messages.StatementQuery("select sum(value) from generate_series(1, 100000000000000)")
ENDLESS_ROWS = messages.StatementQuery("select value from generate_series(1, 100000000000000)")
ENDLESS_GROUPS = messages.StatementQuery(
    "select value % 1000 as v, count(*) from generate_series(1, 100000000000000) group by 1"
)
USERS = {"alice": "token-of-alice", "bob": "token-of-bob"}


def as_user(name: str) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {USERS[name]}".encode())])


ALICE, BOB = as_user("alice"), as_user("bob")


class Server:
    """A ``k2 serve`` child over a site's catalog and live folder."""

    def __init__(self, site: Site, name: str, key: str = KEY) -> None:
        config = site.folder / f"{name}.toml"
        tokens = ", ".join(f'{user} = "{token}"' for user, token in USERS.items())
        config.write_text(f"""
[server]
port = 0
ticket_key = "{key}"
tokens = {{ {tokens} }}
[catalog]
uri = "sqlite:///catalog.db"
warehouse = "warehouse"
[live]
folder = "live"
[limits]
concurrency = 3
spill_folder = "spill-{name}"
[[table]]
name = "market_data.ticks"
topics = ["ticks"]
sort = ["symbol", "at"]
""")
        command = [sys.executable, "-m", "flight_server.child", "server", str(config)]
        log = site.folder / f"{name}.log"
        with log.open("wb") as stderr:
            self.child = Child(command, stderr=stderr)
        ready = self.child.wait_ready(60)
        assert ready is not None, log.read_text()
        self.port = ready["port"]

    def client(self) -> flight.FlightClient:
        """A bare client; the test closes it."""
        return flight.connect(f"grpc://127.0.0.1:{self.port}")

    def cpu_s(self) -> float:
        """Processor time that all threads of the process have taken."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_it_rests(self) -> None:
        """Wait for a second in which it takes less than a tenth of a core."""

        def rests() -> bool:
            before = self.cpu_s()
            time.sleep(1.0)
            return self.cpu_s() - before < 0.1

        until(rests, within_s=15.0)

    def wait_until_it_works(self) -> None:
        """Wait until a statement has taken a noticeable time."""
        before = self.cpu_s()
        until(lambda: self.cpu_s() - before > 0.5)

    def close(self) -> None:
        """End the process."""
        self.child.end(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(Site(tmp_path_factory.mktemp("site"))) as site:
        site.consume(50)
        site.flush()
        site.consume(5)
        site.publish()
        yield site


@pytest.fixture(scope="module")
def servers(site: Site) -> Iterator[tuple[Server, Server, Server]]:
    """Two with one key, a third with another."""
    with ExitStack() as stack:
        made = [Server(site, "one"), Server(site, "two"), Server(site, "odd", "another key" * 3)]
        for server in made:
            stack.callback(server.close)
        yield made[0], made[1], made[2]


@pytest.fixture
def clients(servers: tuple[Server, Server, Server]) -> Iterator[list[flight.FlightClient]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server.client()) for server in servers]


def rows(table: pa.Table) -> pa.Table:
    return table.sort_by([("_partition", "ascending"), ("_offset", "ascending")])


# --- two servers, one key ------------------------------------------------------------------------


def test_servers_with_one_key_redeem_each_others_tickets(
    clients: list[flight.FlightClient],
) -> None:
    one, two, _ = clients
    ticket = one.get_flight_info(descriptor(ALL), ALICE).endpoints[0].ticket
    mine, theirs = read(one.do_get(ticket, ALICE)), read(two.do_get(ticket, ALICE))
    assert mine.num_rows == 110
    assert rows(mine) == rows(theirs)
    (body,) = act(two, messages.RenewFlightEndpoint(ticket.ticket), options=ALICE)
    renewed = flight.Ticket(bare(body, "FlightEndpoint").ticket.ticket)
    assert rows(read(one.do_get(renewed, ALICE))) == rows(mine)


def test_servers_with_one_key_take_each_others_statement_handles(
    clients: list[flight.FlightClient],
) -> None:
    """Prepared on one, bound on the other, executed on the first: nothing is kept anywhere."""
    one, two, _ = clients
    query = "select _offset from market_data.ticks where _partition = ? and _offset < ?"
    (body,) = act(one, messages.CreatePreparedStatement(query), options=ALICE)
    handle = unwrapped(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
    values = pa.table({"p": [0], "o": [20]})
    writer, reader = two.do_put(
        descriptor(messages.PreparedStatementQuery(handle)), values.schema, ALICE
    )
    writer.write_table(values)
    writer.done_writing()
    name = f"{messages.SQL_PACKAGE}.DoPutPreparedStatementResult"
    bound = codec._parse(name, reader.read().to_pybytes()).prepared_statement_handle
    writer.close()
    command = messages.PreparedStatementQuery(bound)
    expected = rows(fetch(one, ALL, options=ALICE)).to_pylist()
    offsets = [r["_offset"] for r in expected if r["_partition"] == 0 and r["_offset"] < 20]
    for client in (one, two):
        assert sorted(fetch(client, command, options=ALICE)["_offset"].to_pylist()) == offsets


def test_a_login_at_one_server_is_good_at_the_other(clients: list[flight.FlightClient]) -> None:
    """The bearer token is sealed too; another key's is none."""
    sealed = Sealer([KEY.encode()]).seal(Purpose.TOKEN, "alice", b"[]", 60)
    import base64  # noqa: PLC0415 - only here

    token = b"Bearer " + base64.urlsafe_b64encode(sealed)
    options = flight.FlightCallOptions(headers=[(b"authorization", token)])
    for client in clients[:2]:
        assert fetch(client, ALL, options=options).num_rows == 110
    with pytest.raises(flight.FlightUnauthenticatedError):
        fetch(clients[2], ALL, options=options)


def test_a_foreign_servers_ticket_is_refused(clients: list[flight.FlightClient]) -> None:
    one, _, odd = clients
    ticket = odd.get_flight_info(descriptor(ALL), ALICE).endpoints[0].ticket
    with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
        one.do_get(ticket, ALICE)
    with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
        act(one, messages.CancelFlightInfo((ticket.ticket,)), options=ALICE)
    with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
        act(one, messages.RenewFlightEndpoint(ticket.ticket), options=ALICE)


def test_another_users_an_expired_and_a_tampered_ticket_are_refused_elsewhere_too(
    clients: list[flight.FlightClient],
) -> None:
    one, two, _ = clients
    ticket = one.get_flight_info(descriptor(ALL), ALICE).endpoints[0].ticket
    with pytest.raises(flight.FlightUnauthorizedError, match="another user"):
        two.do_get(ticket, BOB)
    sealed = codec.decode_command(ticket.ticket)
    assert isinstance(sealed, messages.TicketStatementQuery)
    payload = Sealer([KEY.encode()]).unseal(Purpose.TICKET, sealed.statement_handle).payload
    expired = Sealer([KEY.encode()]).seal(Purpose.TICKET, "alice", payload, -1)
    with pytest.raises(pa.ArrowInvalid, match="expired"):
        two.do_get(_ticket(expired), ALICE)
    for place in range(0, len(sealed.statement_handle), 37):
        bad = bytearray(sealed.statement_handle)
        bad[place] ^= 1
        with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
            two.do_get(_ticket(bytes(bad)), ALICE)


def _ticket(handle: bytes) -> flight.Ticket:
    return flight.Ticket(codec.encode_command(messages.TicketStatementQuery(handle)))


# --- cancelling ----------------------------------------------------------------------------------


class Reading(threading.Thread):
    """Reads a ticket until an error ends it."""

    def __init__(self, client: flight.FlightClient, ticket: flight.Ticket) -> None:
        super().__init__(daemon=True)
        self._client, self._ticket = client, ticket
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Keeps the error."""
        try:
            for _ in self._client.do_get(self._ticket, ALICE):
                pass
        except (pa.ArrowException, flight.FlightError) as error:
            self.error = error


@pytest.mark.parametrize("query", [ENDLESS, ENDLESS_ROWS, ENDLESS_GROUPS], ids=["sum", "*", "by"])
@pytest.mark.parametrize("deprecated", [False, True], ids=["CancelFlightInfo", "CancelQuery"])
def test_a_cancel_frees_the_cores(
    servers: tuple[Server, Server, Server], query: messages.StatementQuery, deprecated: bool
) -> None:
    """Looked at from outside: the process takes no more processor time, and the slot is free."""
    server = servers[0]
    server.wait_until_it_rests()
    with server.client() as client, server.client() as other:
        info = client.get_flight_info(descriptor(query), ALICE)
        reading = Reading(client, info.endpoints[0].ticket)
        server.wait_until_it_works()
        request: messages.Message = messages.CancelFlightInfo((info.endpoints[0].ticket.ticket,))
        if deprecated:
            request = messages.CancelQuery(info.serialize())
        act(other, request, options=ALICE)
        reading.join(20)
        assert isinstance(reading.error, flight.FlightCancelledError)
        server.wait_until_it_rests()
        assert fetch(other, ALL, options=ALICE).num_rows == 110


_DYING = """
import sys
from pyarrow import flight
client = flight.connect(sys.argv[1])
options = flight.FlightCallOptions(headers=[(b"authorization", sys.argv[2].encode())])
if sys.argv[3] == "get":
    info = client.get_flight_info(
        flight.FlightDescriptor.for_command(bytes.fromhex(sys.argv[4])), options)
    print("reading", flush=True)
    for _ in client.do_get(info.endpoints[0].ticket, options):
        pass
else:
    import pyarrow as pa
    batch = pa.record_batch({"x": ["a" * 1000]})
    writer, reader = client.do_put(
        flight.FlightDescriptor.for_command(bytes.fromhex(sys.argv[4])), batch.schema, options)
    writer.write_batch(batch)
    print("writing", flush=True)
    reader.read()
"""


def _die(server: Server, call: str, command: messages.Message) -> None:
    """A client process that is killed in the middle of a call."""
    arguments = [f"grpc://127.0.0.1:{server.port}", f"Bearer {USERS['alice']}", call]
    hexed = codec.encode_command(command).hex()
    with subprocess.Popen(
        [sys.executable, "-c", _DYING, *arguments, hexed], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline().strip() in {b"reading", b"writing"}
        if call == "get":
            server.wait_until_it_works()
        client.kill()


def _descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.child.pid}/fd").iterdir()))


def _require_nothing_left(server: Server, client: flight.FlightClient, before: int) -> None:
    """No work, no slot, and no more files than there were ``before``."""
    server.wait_until_it_rests()
    assert fetch(client, ALL, options=ALICE).num_rows == 110
    until(lambda: _descriptors(server) <= before)


@pytest.mark.parametrize("query", [ENDLESS, ENDLESS_ROWS], ids=["before a row", "among rows"])
def test_a_client_that_dies_in_the_middle_of_a_get_leaves_no_work_slot_or_file(
    servers: tuple[Server, Server, Server], query: messages.StatementQuery
) -> None:
    """More of them than there are slots; nothing is left but what was there."""
    server = servers[1]
    with server.client() as client:
        fetch(client, ALL, options=ALICE)
        before = _descriptors(server)
        for _ in range(4):
            _die(server, "get", query)
        _require_nothing_left(server, client, before)


def test_a_client_that_dies_in_the_middle_of_a_put_leaves_no_file(
    servers: tuple[Server, Server, Server],
) -> None:
    server = servers[1]
    with server.client() as client:
        query = "select symbol from market_data.ticks where symbol = ?"
        (body,) = act(client, messages.CreatePreparedStatement(query), options=ALICE)
        result: Any = unwrapped(body, "ActionCreatePreparedStatementResult")
        command = messages.PreparedStatementQuery(result.prepared_statement_handle)
        before = _descriptors(server)
        for _ in range(4):
            _die(server, "put", command)
        _require_nothing_left(server, client, before)


# --- large results --------------------------------------------------------------------------------

BILLION = 1_000_000_000
#: What a process may grow by while nine tenths of the rows go through it.
_SLACK_BYTES = 64 * 1024 * 1024


def test_a_billion_rows_pass_in_constant_memory(
    servers: tuple[Server, Server, Server], clients: list[flight.FlightClient]
) -> None:
    """Neither side holds more than a few batches, and every row arrives, in order."""
    wish = messages.StatementQuery(f"select value from generate_series(1, {BILLION})")
    info = clients[0].get_flight_info(descriptor(wish), ALICE)
    reader = clients[0].do_get(info.endpoints[0].ticket, ALICE)
    pids = (servers[0].child.pid, os.getpid())
    seen, early = 0, None
    for chunk in reader:
        (values,) = chunk.data.columns
        assert values[0].as_py() == seen + 1
        seen += len(values)
        assert values[-1].as_py() == seen
        if early is None and seen > BILLION // 10:
            early = [_resident_bytes(pid) for pid in pids]
    assert seen == BILLION
    assert early is not None
    grown = [_resident_bytes(pid) - before for pid, before in zip(pids, early, strict=True)]
    assert max(grown) < _SLACK_BYTES, grown


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- the end --------------------------------------------------------------------------------------


def test_a_server_that_is_told_to_end_finishes_what_runs(site: Site) -> None:
    """SIGTERM: the rows that a client is reading arrive, all of them, and the end is in order."""
    server = Server(site, "ending")
    wish = messages.StatementQuery("select value from generate_series(1, 20000000)")
    with server.client() as client:
        info = client.get_flight_info(descriptor(wish), ALICE)
        reader = client.do_get(info.endpoints[0].ticket, ALICE)
        seen = reader.read_chunk().data.num_rows
        server.child.process.terminate()
        while seen < 20_000_000:
            seen += reader.read_chunk().data.num_rows
    assert server.child.end(60) == 0
