"""A real server over a small lake for other people's clients, and how their programs are made.

Each program lies in ``tests/clients/<name>/`` with its versions pinned. What it needs is fetched
once by its own package tool and kept in ``.stack/``, apart by the digest of the files that pin it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyiceberg.catalog import load_catalog
from support_flight import until
from support_lake import sqlite_properties
from support_stack import ROOT, SMALL_JVM, StackUnavailable, jars, java, kept

from flight_server.app import build_server
from flight_server.config import load
from flight_server.protocol import FlightSqlServer

CLIENTS = ROOT / "tests" / "clients"
#: They protect nothing: the servers listen on loopback for the length of a test run.
USER, PASSWORD, TOKEN = "alice", "alice's-pass:word", "a-token-of-carol"
#: Longest life of a client's program, in seconds: ten times what it takes on an idle machine.
PROGRAM_S = 120

# --- the server ---------------------------------------------------------------------------------

NUMBERS = pa.table(
    {"n": [1, 2, 3, 4, 5], "label": ["one", "two", None, "four", "five"]},
    schema=pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("label", pa.string())]),
)
AT = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)  # noqa: DTZ001 - without a zone is the case
#: One row of values and one of nulls, a column per type that Iceberg has.
TYPES = pa.table(
    {
        "id": pa.array([1, 2], pa.int32()),
        "yes": pa.array([True, None]),
        "small": pa.array([-7, None], pa.int32()),
        "big": pa.array([2**62, None], pa.int64()),
        "real": pa.array([0.5, None], pa.float32()),
        "double": pa.array([-1.25e300, None], pa.float64()),
        "price": pa.array([Decimal("12345678901234.5678"), None], pa.decimal128(18, 4)),
        "wide": pa.array([Decimal("-1234567890123456789012345678.9012345678"), None]).cast(
            pa.decimal128(38, 10)
        ),
        "day": pa.array([AT.date(), None], pa.date32()),
        "clock": pa.array([AT.time(), None], pa.time64("us")),
        "at": pa.array([AT, None], pa.timestamp("us")),
        "at_utc": pa.array([AT, None], pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
        "text": pa.array(["täxt ✓", None]),
        "bytes": pa.array([b"\x00\xff", None]),
        "four": pa.array([b"abcd", None], pa.binary(4)),
        "list": pa.array([[1, None, 3], None], pa.list_(pa.int64())),
        "map": pa.array([[("a", 1), ("b", None)], None], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array(
            [{"x": 1, "y": "one"}, None], pa.struct([("x", pa.int64()), ("y", pa.string())])
        ),
    }
)

#: What the examples ask for.
TRADES = pa.table(
    {
        "symbol": ["A", "B", "A"],
        "timestamp": pa.array([AT] * 3, pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.5")] * 3, pa.decimal128(18, 4)),
    }
)


@dataclass(frozen=True, slots=True)
class House:
    """Three servers over one lake.

    Attributes:
        open: anybody may call.
        users: :data:`USER` with :data:`PASSWORD`, and carol with :data:`TOKEN`.
        tls: the same, encrypted.
        authority: the PEM file of who signed its certificate.
    """

    open: FlightSqlServer
    users: FlightSqlServer
    tls: FlightSqlServer
    authority: Path

    @property
    def uri(self) -> str:
        """The open server."""
        return f"grpc://127.0.0.1:{self.open.port}"

    def states(self, pattern: str) -> set[str]:
        """How the statements like ``pattern`` ended; waits for those that still run."""
        mine = "statement like ? and statement not like '%system.queries%'"

        def states() -> set[str]:
            with dbapi.connect(self.uri, autocommit=True) as one, one.cursor() as cursor:
                cursor.execute(
                    f"select distinct state from system.queries where {mine}", (pattern,)
                )
                return {row[0] for row in cursor.fetchall()}

        until(lambda: "running" not in states())
        return states()


@contextlib.contextmanager
def house(folder: Path) -> Iterator[House]:
    """The servers as ``k2 serve`` builds them, from a configuration."""
    _fill(folder)
    authority = _certificate(folder)
    auth = f'[server.users]\n{USER} = "{PASSWORD}"\n[server.tokens]\ncarol = "{TOKEN}"\n'
    tls = 'tls_certificate = "server.pem"\ntls_key = "server.key"\n'
    with contextlib.ExitStack() as stack:

        def serve(more: str) -> FlightSqlServer:
            config = folder / "k2.toml"
            properties = "".join(f'{k} = "{v}"\n' for k, v in sqlite_properties(folder).items())
            config.write_text(f"[catalog]\n{properties}[server]\nport = 0\n{more}")
            return build_server(load(config, {}), stack)[0]

        yield House(serve(""), serve(auth), serve(tls + auth), authority)


def _fill(folder: Path) -> None:
    catalog = load_catalog("lake", **sqlite_properties(folder))
    for namespace in ("demo", "market_data"):
        catalog.create_namespace(namespace)
    tables = {"demo.numbers": NUMBERS, "demo.types": TYPES, "market_data.trades": TRADES}
    for name, rows in tables.items():
        catalog.create_table(name, schema=rows.schema).append(rows)


def _certificate(folder: Path) -> Path:
    """An authority, and ``server.pem`` with ``server.key`` of 127.0.0.1 signed by it."""
    authority, mine = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _signed("k2 test authority", authority.public_key(), authority, ca=True)
    leaf = _signed("localhost", mine.public_key(), authority, ca=False)
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem))
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.key").write_bytes(mine.private_bytes(pem, kind, plain))
    return folder / "authority.pem"


def _signed(
    subject: str, key: ec.EllipticCurvePublicKey, by: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = dt.datetime.now(dt.UTC)
    host = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder(name("k2 test authority"), name(subject), key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(host), critical=False)
        .sign(by, hashes.SHA256())
    )


# --- programs -----------------------------------------------------------------------------------


def program(name: str, argv: Sequence[str], given: str = "", **environ: str) -> list[Any]:
    """Runs a client's program to its end; each line that it prints is one JSON value.

    Raises:
        AssertionError: it failed; holds what it wrote.
    """
    done = subprocess.run(
        argv,
        input=given,
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, f"{name}: {done.stderr[-4000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def required_or_skipped(make: Callable[[], list[str]]) -> list[str]:
    """The command line of a client; where it cannot be made the test is skipped, or fails."""
    try:
        return make()
    except StackUnavailable as error:
        if os.environ.get("K2_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"{error} (K2_REQUIRE_CLIENTS=1)", pytrace=False)
        pytest.skip(str(error))


def jdbc() -> list[str]:
    """The JDBC driver: jars by Maven, compiled by one of them, so that a runtime is enough.

    Raises:
        StackUnavailable: Maven or Java is missing.
    """
    folder, virtual_machine = CLIENTS / "jdbc", java()
    lib = jars("jdbc", CLIENTS)

    def compile_it(part: Path) -> None:
        compiled(virtual_machine, f"{lib}/*", folder / "Client.java", part)

    classes = kept("jdbc-classes", [folder / "pom.xml", folder / "Client.java"], compile_it)
    opened = "--add-opens=java.base/java.nio=ALL-UNNAMED"
    return [virtual_machine, *SMALL_JVM, opened, "-cp", f"{classes}:{lib}/*", "Client"]


def compiled(virtual_machine: str, jars: str, source: Path, folder: Path) -> None:
    """A Java source's classes, by the compiler that is one of the jars.

    Raises:
        StackUnavailable: it does not compile.
    """
    compiler = ("-cp", jars, "org.eclipse.jdt.internal.compiler.batch.Main")
    options = ("-source", "17", "-target", "17", "-encoding", "UTF-8", "-failOnWarning")
    run([virtual_machine, *compiler, *options, "-d", str(folder), str(source)])


def tool(name: str, package: str) -> str:
    """The path of a command.

    Raises:
        StackUnavailable: it is not there; says what to install.
    """
    found = shutil.which(name)
    if found is None:
        raise StackUnavailable(f"{name} is missing: install {package}")
    return found


def run(command: Sequence[str], cwd: Path | None = None, **environ: str) -> None:
    """A step of making a client.

    Raises:
        StackUnavailable: it failed; holds the end of what it wrote.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise StackUnavailable(
            f"{' '.join(command[:3])} failed: {(done.stdout + done.stderr)[-1500:]}"
        )


def go() -> list[str]:
    """The ``database/sql`` driver; Go keeps what it compiled, so only the first time is long.

    Raises:
        StackUnavailable: Go is missing, or could not fetch or build.
    """
    folder, compiler = CLIENTS / "go", tool("go", "Go 1.25 or newer")

    def build(part: Path) -> None:
        options = ("-mod=readonly", "-trimpath", "-ldflags=-s -w")
        run([compiler, "build", *options, "-o", str(part / "client"), "."], folder, CGO_ENABLED="0")

    made_of = [folder / name for name in ("go.mod", "go.sum", "main.go")]
    return [str(kept("go-client", made_of, build) / "client")]


def npm() -> list[str]:
    """The npm client; its native part comes with the package, no script of a package runs.

    Raises:
        StackUnavailable: Node.js or npm is missing, or could not fetch.
    """
    folder, node, manager = CLIENTS / "npm", tool("node", "Node.js 18 or newer"), tool("npm", "npm")
    made_of = [folder / name for name in ("package.json", "package-lock.json", "client.mjs")]

    def install(part: Path) -> None:
        part.mkdir(parents=True)
        for path in made_of:
            shutil.copy(path, part)
        run([manager, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], part)

    return [node, str(kept("npm-client", made_of, install) / "client.mjs")]


def sqlalchemy() -> list[str]:
    """SQLAlchemy through flightsql-dbapi, in an environment of its own: it wants old versions.

    Raises:
        StackUnavailable: its packages cannot be fetched.
    """
    folder = CLIENTS / "sqlalchemy"
    wanted = folder / "requirements.txt"

    def install(part: Path) -> None:
        run([sys.executable, "-m", "venv", "--without-pip", str(part)])
        pip = [sys.executable, "-m", "pip", "--python", str(part / "bin" / "python"), "install"]
        run([*pip, "--quiet", "--require-hashes", "-r", str(wanted)])

    minor = sys.version_info.minor
    environment = kept(f"sqlalchemy-py3{minor}", [wanted], install)
    return [str(environment / "bin" / "python"), str(folder / "client.py")]
