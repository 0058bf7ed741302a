"""Faults on the wire: proxies on loopback that lose, cut, repeat, delay and hold real traffic.

``TcpProxy`` knows bytes (Kafka, PostgreSQL, Flight), ``HttpProxy`` knows requests (a REST catalog,
an S3 store). Both ask a *rule* what to do with what a client sends, and count what they did.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Literal

Kind = Literal[
    "reset", "lose", "hole", "delay", "answer", "refuse", "twice", "late", "cut", "cut_upload"
]
#: A hole without a length ends when its client gives up, or after so many seconds.
HOLE_S = 120.0
#: Counts holes that their clients left, each by a time limit of its own.
GIVEN_UP = "hole given up"
#: Bytes per read.
CHUNK = 256 * 1024
#: Longest silence of the server behind a proxy, in seconds.
UPSTREAM_S = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request, or to one chunk of bytes.

    Attributes:
        kind: reset: thrown away, connection reset; lose: forwarded, then the connection is reset
            without its answer; hole: thrown away, and silence; delay: forwarded later. Requests
            only: answer: forwarded, answered with ``status``; refuse: the same, not forwarded;
            twice: forwarded two times, the second answer counts; late: reset, and forwarded when
            :meth:`HttpProxy.release` is called; cut: half of the answer, then a reset;
            cut_upload: half of the body is forwarded, then both sides are reset.
        status: of answer and refuse.
        seconds: of delay, and of hole (0: until the client gives up).
    """

    kind: Kind
    status: int = 503
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """How it is counted."""
        return f"{self.kind} {self.status}" if self.kind in ("answer", "refuse") else self.kind


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a rule sees it.

    Attributes:
        method, path: of an HTTP request; "" for bytes.
        raw: all of it.
        body: where in ``raw`` its body begins.
        upward: whether it comes from the client (bytes travel both ways).
    """

    method: str
    path: str
    raw: bytes
    body: int = 0
    upward: bool = True


Rule = Callable[[Request], Fault | None]


class Armed:
    """A rule for campaigns: the next traffic takes the oldest fault that was armed."""

    def __init__(self) -> None:
        self._faults: deque[Fault] = deque()

    def arm(self, fault: Fault) -> None:
        """One more."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Those that met no traffic are forgotten."""
        self._faults.clear()

    @property
    def waiting(self) -> int:
        """How many have met no traffic yet."""
        return len(self._faults)

    def __call__(self, _: Request) -> Fault | None:
        """The rule."""
        with contextlib.suppress(IndexError):
            return self._faults.popleft()
        return None


class Times:
    """A rule for tests: the first ``n`` requests that match suffer ``fault``."""

    def __init__(self, fault: Fault, matches: Callable[[Request], bool], n: int = 1) -> None:
        self._fault, self._matches, self._left = fault, matches, n
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """The rule."""
        with self._lock:
            if self._left and self._matches(request):
                self._left -= 1
                return self._fault
        return None


class _Listener:
    """Accepts connections and gives each a thread; ``_open`` holds their sockets, by a lock."""

    def __init__(self, serve: Callable[[socket.socket], None], port: int) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="proxy")
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._start(self._one, self._socket.accept()[0])

    def _one(self, client: socket.socket) -> None:
        with self.holding(client), contextlib.suppress(OSError, ValueError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(client)

    @contextlib.contextmanager
    def holding(self, one: socket.socket) -> Iterator[socket.socket]:
        """A socket that :meth:`close` ends, closed with the block."""
        with self._lock:
            self._open.add(one)
        try:
            yield one
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()

    def close(self) -> None:
        """Ends every connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        limit = time.monotonic() + 10
        while time.monotonic() < limit and any(thread.is_alive() for thread in self._threads):
            with self._lock:
                for one in self._open:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
            time.sleep(0.01)


class TcpProxy:
    """Bytes to ``upstream`` and back; the rule sees every chunk of either direction."""

    def __init__(self, upstream: int, rule: Rule = lambda _: None, *, port: int = 0) -> None:
        self.rule = rule
        self.hits: Counter[str] = Counter()
        self._upstream = upstream
        self._listener = _Listener(self._serve, port)

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self._listener.port

    def close(self) -> None:
        """Ends every connection."""
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._upstream), 5)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lost = False
        with self._listener.holding(server):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(CHUNK)
                    if not data:
                        return None
                    if lost and source is server:
                        return _reset(client)
                    fault = self.rule(Request("", "", data, upward=source is client))
                    if fault is not None:
                        self.hits[fault.name] += 1
                        if not _passes(fault, client, self.hits):
                            return None
                        lost = lost or fault.kind == "lose"
                    (server if source is client else client).sendall(data)


class HttpProxy:
    """Requests to ``upstream`` and their answers; the rule sees every request before it is sent."""

    def __init__(self, upstream: int, rule: Rule = lambda _: None, *, port: int = 0) -> None:
        self.rule = rule
        self.hits: Counter[str] = Counter()
        self.requests = 0
        self._upstream = upstream
        self._held: list[Request] = []
        self._listener = _Listener(self._serve, port)

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self._listener.port

    @property
    def uri(self) -> str:
        """The same, as clients want it."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Ends every connection."""
        self._listener.close()

    def release(self) -> list[int]:
        """Forwards the requests that were held by ``late``; the statuses of their answers."""
        held, self._held = self._held, []
        return [int(self._forward(request).split(b" ", 2)[1]) for request in held]

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb", CHUNK) as reader:
            while (request := _read_request(client, reader)) is not None:
                self.requests += 1
                fault = self.rule(request)
                if fault is not None:
                    self.hits[fault.name] += 1
                    if fault.kind == "late":
                        self._held.append(request)
                    if not _passes(fault, client, self.hits):
                        return None
                answer = self._answer(request, fault)
                if answer is None:
                    return _reset(client)
                client.sendall(answer)
                if fault is not None and fault.kind == "cut":
                    return _reset(client)
            return None

    def _answer(self, request: Request, fault: Fault | None) -> bytes | None:
        """What the client gets; None: a reset."""
        kind = fault.kind if fault is not None else ""
        if kind == "refuse" and fault is not None:
            return _made_up(request, fault.status)
        if kind == "cut_upload":
            half = request.body + (len(request.raw) - request.body) // 2
            with self._connected() as server:
                server.sendall(request.raw[:half])
                _reset(server)
            return None
        answer = self._forward(request)
        if kind == "twice":
            answer = self._forward(request)
        if kind == "answer" and fault is not None:
            return _made_up(request, fault.status)
        if kind == "cut":
            return answer[: len(answer) // 2]
        return None if kind == "lose" else answer

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        server = socket.create_connection(("127.0.0.1", self._upstream), UPSTREAM_S)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._listener.holding(server):
            yield server

    def _forward(self, request: Request) -> bytes:
        with self._connected() as server, server.makefile("rb", CHUNK) as reader:
            server.sendall(request.raw)
            return _read_answer(reader, request.method)


def _passes(fault: Fault, client: socket.socket, hits: Counter[str]) -> bool:
    """Does what happens before anything is forwarded; whether to go on."""
    if fault.kind == "delay":
        time.sleep(fault.seconds)
    elif fault.kind == "hole":
        hits[GIVEN_UP] += _swallow(client, fault.seconds or HOLE_S)
        return False
    elif fault.kind in ("reset", "late"):
        _reset(client)
        return False
    return True


def _swallow(client: socket.socket, seconds: float) -> bool:
    """Reads and answers nothing until the client is gone (True), or the time is up: a reset."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            if not client.recv(CHUNK):
                return True
        except TimeoutError:
            break
        except OSError:
            return True
    _reset(client)
    return False


def _reset(one: socket.socket) -> None:
    """A reset (RST) in place of an orderly end."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def _read_head(reader: BufferedReader) -> tuple[bytes, dict[str, str]]:
    lines = []
    while line := reader.readline():
        lines.append(line)
        if line in (b"\r\n", b"\n"):
            break
    pairs = (line.decode("latin-1").partition(":") for line in lines[1:-1])
    return b"".join(lines), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _read_body(reader: BufferedReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return reader.read(int(headers.get("content-length", "0")))
    parts = []
    while True:
        size = reader.readline()
        parts.append(size)
        length = int(size.split(b";")[0], 16)
        parts.append(reader.read(length + 2))
        if length == 0:
            return b"".join(parts)


def _read_request(client: socket.socket, reader: BufferedReader) -> Request | None:
    head, headers = _read_head(reader)
    if not head:
        return None
    if headers.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    return Request(method, path, head + _read_body(reader, headers), len(head))


def _read_answer(reader: BufferedReader, method: str) -> bytes:
    while True:
        head, headers = _read_head(reader)
        if not head:
            raise ConnectionError("the server ended the connection")
        status = int(head.split(b" ", 2)[1])
        if status >= 200:
            break
    if method == "HEAD" or status in (204, 304):
        return head
    return head + _read_body(reader, headers)


def _made_up(request: Request, status: int) -> bytes:
    """An answer as gateways give it: no word of the protocol behind them."""
    body = b"" if request.method == "HEAD" else b"<html>made up by the test's proxy</html>"
    head = (
        f"HTTP/1.1 {status} Injected\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}\r\n".encode() + body


def draw(chance: random.Random, kinds: dict[str, int], longest_s: float) -> Fault:
    """A fault of a campaign: its kind by weight ("answer 503": 3), delays and holes by length."""
    (name,) = chance.choices(list(kinds), list(kinds.values()))
    kind, _, status = name.partition(" ")
    return Fault(kind, int(status or 503), chance.uniform(0.02, longest_s))  # type: ignore[arg-type]
