"""Big results: 5 M rows of few and of many columns, from history and from the tail.

The same client fetches a raw Flight stream of the same rows from memory, so that the yardstick
differs in one thing: where the rows come from.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as fl
from chaos.site import Layout
from support_clients import CLIENTS, compiled
from support_stack import SMALL_JVM, StackUnavailable, jars, java, kept

from bench.bare import Bare, bare_client
from bench.figures import Figure, absent, at_least, at_most
from bench.loaded import add_live, linked_history, with_history
from bench.peers import Ask, Peers, engine_asking, roapi_asking
from bench.stage import Stage, running, say
from bench.suite import asked
from bench.turns import alternate
from flight_server.protocol.codec import encode_command
from flight_server.protocol.messages import StatementQuery

ROWS = 5_000_000
#: All columns of the table: nested and null ones, and where each row comes from in Kafka.
SHAPES = {"4 columns": "symbol, timestamp, price, quantity", "20 columns": "*"}
#: JDBC makes an object of every value: a part of the rows is enough to know its rate.
JDBC_ROWS = {"4 columns": 2_000_000, "20 columns": 500_000}
REPEATS = 3
STREAM, LARGER = "raw Flight stream from memory", "larger of in-process collect and raw stream"
ROAPI = "ROAPI over the same files, the same client"


@dataclass(frozen=True)
class Fetch:
    """One result.

    Attributes:
        name: as the page calls it.
        columns: of the table.
        part: ``runs`` or ``live``.
    """

    name: str
    columns: str
    part: str

    @property
    def sql(self) -> str:
        """All rows of that part."""
        return f'select {self.columns} from market_data."trades${self.part}"'


def lane(stage: Stage) -> list[Figure]:
    """Both shapes, both sides, three clients."""
    rows = stage.scaled(ROWS)
    layout = with_history(stage, "fetch", rows, "key = true\n")
    files = linked_history(layout, stage.folder / "fetched")
    figures: list[Figure] = []
    with running(layout, "serve"), Peers() as peers, asked(layout) as adbc:
        add_live(stage, layout, rows, 2 * rows)
        peers.add("engine", engine_asking({"trades": files}))
        peers.add("ROAPI", roapi_asking(stage.folder / "fetch-roapi", {"trades": files}))
        for shape, columns in SHAPES.items():
            for part, where in (("runs", "of history"), ("live", "live")):
                name = f"fetch {rows / 1e6:g} M rows {where} × {shape}"
                say(name)
                fetch = Fetch(name, columns, part)
                figures += _fetched(fetch, rows, layout.uri, adbc, peers.asks)
        figures += [absent("fetch through ADBC", name, why) for name, why in peers.missing.items()]
        figures += _through_jdbc(stage, layout)
    return figures


def _fetched(
    fetch: Fetch, rows: int, uri: str, adbc: Ask, peers: Mapping[str, Ask]
) -> list[Figure]:
    theirs = f"select {fetch.columns} from trades"
    with fl.connect(uri) as client:
        arrow = _flight(client, fetch.sql)
        found = arrow()
        assert found.num_rows == rows, f"{fetch.name}: {found.num_rows} rows"
        with Bare(found) as bare:
            stream, close = bare_client(bare.port)
            turns: dict[str, Callable[[], object]] = {
                "arrow": arrow,
                "adbc": lambda: adbc(fetch.sql),
                "raw": stream,
            }
            if fetch.part == "runs":
                turns |= {name: lambda ask=ask: ask(theirs) for name, ask in peers.items()}
            for name, turn in turns.items():
                answer = turn()
                assert isinstance(answer, pa.Table)
                assert same_columns(found, answer), f"{fetch.name}: {name} gave other rows"
                del answer
            times = alternate(turns, REPEATS)
            close()
    by = {"arrow": f"{fetch.name}, pyarrow", "adbc": f"{fetch.name}, ADBC"}
    if fetch.part == "live":
        return [
            at_least(times.rate(name, rows, who, STREAM, "raw"), 0.8) for who, name in by.items()
        ]
    figures = [
        at_most(times.figure(name, who, LARGER, "engine", "raw"), 1.25) for who, name in by.items()
    ]
    if "ROAPI" in times:
        figures.append(at_least(times.rate(by["adbc"], rows, "adbc", ROAPI, "ROAPI"), 2.0))
    return figures


def same_columns(one: pa.Table, other: pa.Table) -> bool:
    """Whether rows and the sum over what every row holds agree, whatever their order and types."""
    return one.num_rows == other.num_rows and _checksum(one) == _checksum(other)


def _checksum(table: pa.Table) -> tuple[object, ...]:
    """Quantities, prices and times added up."""
    columns = (table[name] for name in ("quantity", "price"))
    numbers = (pc.sum(column.cast(pa.decimal128(38, 8))).as_py() for column in columns)
    return (*numbers, pc.sum(table["timestamp"].cast(pa.int64())).as_py())


def _flight(client: fl.FlightClient, sql: str) -> Callable[[], pa.Table]:
    """The statement with the client of the raw stream."""
    descriptor = fl.FlightDescriptor.for_command(encode_command(StatementQuery(sql)))

    def fetch() -> pa.Table:
        info = client.get_flight_info(descriptor)
        return client.do_get(info.endpoints[0].ticket).read_all()

    return fetch


# --- JDBC ---------------------------------------------------------------------------------------


def _through_jdbc(stage: Stage, layout: Layout) -> list[Figure]:
    """Rows per second as a Java program gets them, every value looked at."""
    name = "fetch {} × {}, JDBC, every value read"
    try:
        argv = _java()
    except StackUnavailable as error:
        return [absent("fetch through JDBC", "", f"not here: {str(error)[:80]}")]
    figures = []
    with _jdbc(argv, layout.port, stage.folder / "jdbc.log") as ask:
        for shape, columns in SHAPES.items():
            rows = stage.scaled(JDBC_ROWS[shape])
            for part, where in (("runs", "of history"), ("live", "live")):
                title = name.format(where, shape)
                say(title)
                sql = f'select {columns} from market_data."trades${part}" limit {rows}'
                taken = []
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    assert ask(sql) == rows, title
                    taken.append(time.perf_counter() - began)
                figures.append(Figure(title, rows / sorted(taken)[REPEATS // 2], "rows/s"))
    return figures


def _java() -> list[str]:
    """The command that reads statements, but for the address.

    Raises:
        StackUnavailable: Java or the driver is missing.
    """
    machine, lib = java(), jars("jdbc", CLIENTS)
    source = Path(__file__).with_name("Fetch.java")
    classes = kept(
        "bench-classes",
        [CLIENTS / "jdbc" / "pom.xml", source],
        lambda part: compiled(machine, f"{lib}/*", source, part),
    )
    opened = "--add-opens=java.base/java.nio=ALL-UNNAMED"
    return [machine, "-Xmx1g", SMALL_JVM[0], opened, "-cp", f"{classes}:{lib}/*", "Fetch"]


@contextlib.contextmanager
def _jdbc(argv: list[str], port: int, log: Path) -> Iterator[Callable[[str], int]]:
    """A Java process for the length of the block: statement → rows that it read."""
    url = f"jdbc:arrow-flight-sql://127.0.0.1:{port}/?useEncryption=false"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*argv, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(sql: str) -> int:
        process.stdin.write(f"{sql}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Java program ended: {log.read_text()[-2000:]}")
        return int(line.split(" ")[0])

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
