"""Iceberg tables that Trino writes, and what it reads of them: for ``fixtures.py``.

Trino runs as the server that it is, with its connector alone, over the test stack's REST catalog
and S3 store; it is asked by its HTTP protocol. Its Java (24 or newer) is the wheel's.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from support_foreign import BUCKET, float_text
from support_stack import POMS, S3_KEY, S3_SECRET, Stack, free_port, jars, java

#: The engine's name, and its tables' namespace.
ENGINE, NAMESPACE = "trino", "t"
#: Longest start, and longest answer, in seconds.
START_S, ANSWER_S = 180.0, 60.0
_HEADERS = {
    "X-Trino-User": "k2",
    "X-Trino-Catalog": "k2",
    "X-Trino-Schema": NAMESPACE,
    "X-Trino-Time-Zone": "UTC",
    "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",  # else moments have milliseconds
}
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # moments are told in UTC
_MICROSECOND = dt.timedelta(microseconds=1)

#: A statement → its rows, in the words of tests/stack/fixtures/Answers.java.
Ask = Callable[[str], list[list[Any]]]


def write(stack: Stack, bucket: Path, scratch: Path) -> None:
    """Trino's tables into the bucket, its answers beside them."""
    answers = bucket / ENGINE / "answers"
    answers.mkdir(parents=True)
    rest = stack.state(
        "iceberg-rest", warehouse=f"s3://{BUCKET}/{ENGINE}", endpoint=stack.state("s3")["endpoint"]
    )
    text = (POMS / ENGINE / "tables.sql").read_text()
    told = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    statements = told.strip().removesuffix(";").split(";\n")
    with _server(stack.state("s3")["endpoint"], rest, scratch) as ask:
        ask(f"CREATE SCHEMA {NAMESPACE}")
        for statement in statements:
            ask(statement)
        for [name] in ask("SHOW TABLES"):
            answer = _answer(ask, name)
            url = f"{rest['uri']}/v1/namespaces/{NAMESPACE}/tables/{name}"
            answer["metadata"] = httpx.get(url).raise_for_status().json()["metadata-location"]
            written = ",\n ".join(f'"{key}": {_json(answer[key])}' for key in sorted(answer))
            (answers / f"{name}.json").write_text(f"{{{written}}}\n")


def _answer(ask: Ask, name: str) -> dict[str, Any]:
    """What Answers.java says of a table, but for where its metadata are."""

    def of(what: str, columns: str) -> list[list[Any]]:
        return ask(f'SELECT {columns} FROM "{name}${what}"')

    snapshots = of("snapshots", "snapshot_id, parent_id, operation, committed_at")
    history = of("history", "snapshot_id, made_current_at, is_current_ancestor")
    return {
        "columns": [column for column, *_ in ask(f"SHOW COLUMNS FROM {name}")],
        "rows": ask(f"SELECT * FROM {name}"),
        "versions": {
            str(number): ask(f"SELECT * FROM {name} FOR VERSION AS OF {number}")
            for number, *_ in snapshots
        },
        "snapshots": [[*kept, at // 10**6] for *kept, at in snapshots],
        "history": [[number, at // 10**6, current] for number, at, current in history],
        "refs": {
            key: [kind.lower(), at] for key, kind, at in of("refs", "name, type, snapshot_id")
        },
        "files": [
            kept
            for content, *kept in of(
                "files", "content, file_path, record_count, file_size_in_bytes, spec_id"
            )
            if content == 0
        ],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- the server ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(store: str, rest: Mapping[str, str], folder: Path) -> Iterator[Ask]:
    home, port = _home(), free_port()
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "node.internal-address": "127.0.0.1",
        "http-server.http.port": str(port),
        "discovery.uri": f"http://127.0.0.1:{port}",
        "plugin.dir": str(home / "connector"),
        "catalog.config-dir": str(folder),
        "query.max-memory-per-node": "300MB",
    }
    catalog = {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "rest",
        "iceberg.rest-catalog.uri": rest["uri"],
        "iceberg.rest-catalog.warehouse": rest["warehouse"],
        "iceberg.unique-table-location": "false",
        "fs.native-s3.enabled": "true",
        "s3.endpoint": store,
        "s3.region": "us-east-1",
        "s3.path-style-access": "true",
        "s3.aws-access-key": S3_KEY,
        "s3.aws-secret-key": S3_SECRET,
    }
    for file, held in (("server.config", settings), ("k2.properties", catalog)):
        (folder / file).write_text("".join(f"{key}={value}\n" for key, value in held.items()))
    node = {"environment": "fixtures", "id": "fixtures", "data-dir": str(folder)}
    command = [
        *(java(), "-Xmx1500m", "-XX:TieredStopAtLevel=1", "-Djdk.attach.allowAttachSelf=true"),
        *(f"-Dnode.{key}={value}" for key, value in node.items()),
        *(f"-Dconfig={folder / 'server.config'}", "-cp", f"{home}/lib/*"),
        "io.trino.server.TrinoServer",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, headers=_HEADERS, timeout=ANSWER_S) as client:
            yield _asked(client, server, folder / "log")
    finally:
        server.kill()
        server.wait()


def _home() -> Path:
    """The server's folder, its connector for Iceberg in ``connector/``."""
    lib = jars(ENGINE)
    [home] = lib.glob("trino-server-core-*/")
    if not (home / "connector").exists():
        [archive] = lib.glob("trino-iceberg-*.zip")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(home / "connector.part")
        (home / "connector.part").rename(home / "connector")
    return home


def _asked(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> Ask:
    """Asks the server, once it answers."""

    def ask(text: str) -> list[list[Any]]:
        page = client.post("/v1/statement", content=text).raise_for_status().json()
        rows: list[list[Any]] = []
        while True:
            if "error" in page:
                raise RuntimeError(f"{text}: {page['error']['message']}")
            for row in page.get("data", []):
                kinds = (column["typeSignature"] for column in page["columns"])
                rows.append([_plain(v, kind) for v, kind in zip(row, kinds, strict=True)])
            if "nextUri" not in page:
                return rows
            page = client.get(page["nextUri"]).raise_for_status().json()

    limit = time.monotonic() + START_S
    while True:
        with contextlib.suppress(httpx.HTTPError, RuntimeError):
            if not client.get("/v1/info").json()["starting"] and ask("SELECT 1") == [[1]]:
                return ask
        if server.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"Trino does not answer: {log.read_text()[-3000:]}")
        time.sleep(0.5)


# --- its values ---------------------------------------------------------------------------------


def _plain(value: Any, kind: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - a line per kind
    """As Answers.java writes it: moments in ns, dates in days, times in µs, bytes in hex."""
    inner = [each["value"] for each in kind["arguments"]]
    if value is None:
        return None
    match kind["rawType"]:
        case "row":
            kinds = (each["typeSignature"] for each in inner)
            return [_plain(v, each) for v, each in zip(value, kinds, strict=True)]
        case "array":
            return [_plain(each, inner[0]) for each in value]
        case "map":
            return [[_plain(k, inner[0]), _plain(v, inner[1])] for k, v in value.items()]
        case "varbinary":
            return base64.b64decode(value).hex()
        case "uuid":
            return value.replace("-", "")
        case "real" | "double" as real:
            wide = struct.Struct("f" if real == "real" else "d")
            return float_text(wide.unpack(wide.pack(float(value)))[0])
        case "timestamp" | "timestamp with time zone" | "date" | "time" as what:
            return _moment(what, value)
    return value


def _moment(what: str, text: str) -> int:
    if what == "date":
        return (dt.date.fromisoformat(text) - _EPOCH.date()).days
    if what == "time":
        moment = dt.datetime.combine(_EPOCH.date(), dt.time.fromisoformat(text))
        return (moment - _EPOCH) // _MICROSECOND
    return (dt.datetime.fromisoformat(text.removesuffix(" UTC")) - _EPOCH) // _MICROSECOND * 1000
