"""A schema registry over HTTP that knows what a test told it: Confluent's REST protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class RegistryServer:
    """What the server answers with.

    Attributes:
        schemas: id → schema text.
        subjects: subject → ids of its versions, oldest first.
        references: id → (name, subject, version) of what a schema refers to.
        types: id → schema type where it is not Avro.
        user: ``name:password`` that is asked for.
        silent: accept requests and never answer.
        requests: the paths asked for.
    """

    schemas: Mapping[int, str] = field(default_factory=dict)
    subjects: Mapping[str, Sequence[int]] = field(default_factory=dict)
    references: Mapping[int, Sequence[tuple[str, str, int]]] = field(default_factory=dict)
    types: Mapping[int, str] = field(default_factory=dict)
    user: str | None = None
    status: int | None = None
    silent: threading.Event | None = None
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The address for ``registry.url``."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str) -> tuple[int, object]:
        """Status and body for a GET."""
        self.requests.append(path)
        match path.partition("?")[0].strip("/").split("/"):
            case ["schemas", "ids", number] if int(number) in self.schemas:
                return 200, self._body(int(number))
            case ["subjects", subject, "versions", version] if subject in self.subjects:
                ids = self.subjects[subject]
                place = len(ids) if version == "latest" else int(version)
                if place <= len(ids):
                    one = ids[place - 1]
                    more = {"subject": subject, "version": place, "id": one}
                    return 200, {**self._body(one), **more}
        return 404, {"error_code": 40403, "message": "not found"}

    def _body(self, schema_id: int) -> dict[str, Any]:
        body: dict[str, Any] = {"schema": self.schemas[schema_id]}
        if schema_id in self.types:
            body["schemaType"] = self.types[schema_id]
        if schema_id in self.references:
            names = ("name", "subject", "version")
            refs = self.references[schema_id]
            body["references"] = [dict(zip(names, r, strict=True)) for r in refs]
        return body


class _Handler(BaseHTTPRequestHandler):
    registry: ClassVar[RegistryServer]

    def do_GET(self) -> None:
        registry = self.registry
        if registry.silent is not None:
            registry.silent.wait()
            return
        wanted = registry.user and base64.b64encode(registry.user.encode()).decode()
        if wanted and self.headers.get("Authorization") != f"Basic {wanted}":
            status, body = 401, {"error_code": 401, "message": "Unauthorized"}
        elif registry.status:
            status, body = registry.status, {"error_code": registry.status, "message": "busy"}
        else:
            status, body = registry.answer(self.path)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing on stderr."""


@contextmanager
def serving(registry: RegistryServer) -> Iterator[RegistryServer]:
    """Serves until the block ends, on a free loopback port."""
    handler = type("Handler", (_Handler,), {"registry": registry})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        registry.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield registry
        finally:
            if registry.silent is not None:
                registry.silent.set()
            server.shutdown()
            thread.join()
