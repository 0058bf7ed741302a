"""A REST catalog that vends credentials: a real one behind a proxy that adds them to its answers.

Source: Iceberg REST catalog specification, LoadTableResult: ``config``, ``storage-credentials``.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Table → what its next load vends, and where (a prefix of locations).
Vend = Callable[[str], Mapping[str, str]]


@dataclass
class Vending:
    """A running one.

    Attributes:
        uri: of the catalog with credentials.
        vend: table → the properties vended with it; may be replaced.
        loads: table → how often it was loaded.
    """

    uri: str
    vend: Vend
    loads: Counter[str] = field(default_factory=Counter)


@contextmanager
def vending(catalog: str, vend: Vend) -> Iterator[Vending]:
    """The catalog at ``catalog``, whose loaded tables come with credentials."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length) or None
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _HOPS}
            request = urllib.request.Request(  # noqa: S310 - loopback
                catalog + self.path, body, kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
                    status, data = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, data = error.code, error.read()
            levels = self.path.partition("?")[0].split("/")
            if self.command == "GET" and status == 200 and levels[-2] == "tables":
                state.loads[levels[-1]] += 1
                loaded = json.loads(data)
                credential = {"prefix": "s3://", "config": dict(state.vend(levels[-1]))}
                loaded["storage-credentials"] = [credential]
                data = json.dumps(loaded).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else data)

        do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Vending(f"http://127.0.0.1:{server.server_port}", vend)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


#: Headers that are the connection's own.
_HOPS = frozenset({"host", "content-length", "connection", "accept-encoding"})
