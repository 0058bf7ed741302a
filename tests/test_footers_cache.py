"""Footers that are kept in memory: they are read once, and ``limits.footers_bytes`` bounds them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import col
from datafusion import functions as f

from catalog.scan import listing
from catalog.stores import store_options
from flight_server import contexts
from flight_server.contexts import BATCH_SIZE, Contexts
from flight_server.limits import Limits
from flight_server.stores import Reach

SCHEMA = pa.schema([(f"column_{i}", pa.int64()) for i in range(8)])
FILES, ROWS = 6, 10
SUM = sum(range(FILES * ROWS))


@contextmanager
def store(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A bucket over a folder's files, and the ranges that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = (folder / self.path.rpartition("/")[2]).read_bytes()
            first, _, last = (
                (self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")
            )
            start = int(first) if first else len(content) - int(last)
            end = min(int(last) + 1 if first and last else len(content), len(content))
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.send_header("ETag", '"one"')
            self.send_header("Last-Modified", "Fri, 01 Mar 2024 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                asked.append(self.headers["Range"])
                self.wfile.write(content[start:end])

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def requests(
    folder: Path,
    footers_bytes: int,
    time_zone: str = "UTC",
    settings: Mapping[str, str] = MappingProxyType({}),
) -> list[int]:
    """How many ranges the same scan of all files asks for, at first and when it comes again."""
    paths = [f"s3://box/{path.name}" for path in sorted(folder.iterdir())]
    made = Contexts(Limits(footers_bytes=footers_bytes), "lake")
    context = made.shared(time_zone, settings)
    counts = []
    with store(folder) as (url, asked), ExitStack() as resources:
        options = store_options({"s3.endpoint": url, "s3.anonymous": "true"}, paths[0])
        reach = Reach(lambda _: made.stores.lease(context, options, resources))
        for _ in range(2):
            asked.clear()
            scan = listing(context, SCHEMA, reach(paths)).filter(col("column_0") >= 0)
            (batch,) = scan.aggregate([], [f.sum(col("column_0")).alias("s")]).collect()
            assert batch.column(0).to_pylist() == [SUM]
            counts.append(len(asked))
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("footers")
    for number in range(FILES):
        values = range(number * ROWS, (number + 1) * ROWS)
        rows = pa.table([list(values)] * len(SCHEMA), schema=SCHEMA)
        pq.write_table(rows, made / f"{number}.parquet")
    return made


def test_footers_are_read_once_within_their_bound(folder: Path) -> None:
    """Afterwards a file costs one request, for the column that is read."""
    first, again = requests(folder, 1 << 20)
    assert again == FILES < first


def test_a_bound_that_is_too_small_makes_every_statement_read_them(folder: Path) -> None:
    _, again = requests(folder, 1024)
    assert again > FILES


@pytest.mark.parametrize(
    ("time_zone", "settings", "is_major"),
    [
        ("UTC", {}, True),
        ("UTC", {BATCH_SIZE: "8192"}, True),
        ("Europe/Berlin", {}, False),
        ("UTC", {"datafusion.optimizer.prefer_hash_join": "false"}, False),
    ],
    ids=["long answers", "short answers", "another time zone", "a setting of its own"],
)
def test_most_of_the_bound_is_for_utc(
    folder: Path, time_zone: str, settings: dict[str, str], *, is_major: bool
) -> None:
    """UTC's statements of either kind have most of it."""
    size = 256 * 1024  # six footers of eight columns take some 10 KiB each
    _, again = requests(folder, size, time_zone, settings)
    assert (again == FILES) is is_major


def test_the_bound_holds_for_all_contexts_together() -> None:
    major, minor = (contexts._share(zone, {}) for zone in ("UTC", "Europe/Berlin"))
    assert 2 * major + (contexts._MAX_CONTEXTS - 2) * minor <= 1
