"""How stores are opened: from properties to what the engine's own clients send."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext

from catalog.errors import Unsupported
from catalog.scan import listing
from catalog.stores import StoreOptions, credentials_end_s, store_options
from flight_server import stores
from flight_server.stores import Reach, Stores

SCHEMA = pa.schema([pa.field("n", pa.int64())])
ABFSS = "abfss://box@desk.dfs.core.windows.net/lake/x"


@contextmanager
def listener() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A server that has nothing, and what it was asked: path, headers."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.send_error(404)

        do_GET = do_HEAD  # noqa: N815 - the library's name

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


def context() -> SessionContext:
    return SessionContext(SessionConfig(), RuntimeEnvBuilder())


def _keys(name: str) -> dict[str, str]:
    return {"s3.access-key-id": name, "s3.secret-access-key": "nothing"}


def look(options: StoreOptions, path: str) -> None:
    """Has the engine look for a file that is not there."""
    made = context()
    with ExitStack() as resources:
        reach = Reach(lambda _: Stores().lease(made, options, resources))
        with pytest.raises(Exception, match="404"):
            listing(made, SCHEMA, reach([path])).collect()


def test_s3_without_credentials_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """``s3.anonymous``; and the next client signs again."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment")
    with listener() as (url, asked):
        for anonymous in ("true", "false"):
            properties = {"s3.endpoint": url, "s3.anonymous": anonymous}
            look(store_options(properties, "s3a://box/a b.parquet"), "s3a://box/a b.parquet")
    paths = [path for path, headers in asked if "authorization" not in headers]
    assert paths
    assert paths[0] == "/box/a%20b.parquet"
    assert any("Credential=environment" in h.get("authorization", "") for _, h in asked)


def test_google_cloud_storage_at_an_emulator() -> None:
    with listener() as (url, asked):
        look(store_options({"gcs.service.host": url}, "gs://box/x.parquet"), "gs://box/x.parquet")
    assert asked[0][0] == "/box/x%2Eparquet"
    assert "authorization" not in asked[0][1]


@pytest.mark.parametrize(
    ("properties", "sent"),
    [
        ({"adls.account-key": "Zm9v"}, "SharedKey desk:"),
        ({"adls.token": "abc"}, "Bearer abc"),
        ({"adls.sas-token.desk": "?sv=1&sig=x%2Fy", "adls.account-key": "Zm9v"}, ""),
    ],
)
def test_azure_is_told_its_credentials(
    monkeypatch: pytest.MonkeyPatch, properties: dict[str, str], sent: str
) -> None:
    with listener() as (url, asked):
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", url)
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
        look(store_options(properties, ABFSS), ABFSS)
    path, headers = asked[0]
    assert path.partition("?")[0] == "/box/lake/x"
    assert headers.get("authorization", "").startswith(sent)
    assert ("sig=" in path) == (sent == "")


@pytest.mark.parametrize(
    ("properties", "path", "says"),
    [
        ({"gcs.oauth2.token": "hidden"}, "gs://box/x", "gcs.oauth2.token"),
        ({"adls.connection-string": "AccountKey=hidden"}, ABFSS, "adls.connection-string"),
        ({}, "abfs://box/x", "adls.account-name"),
        ({}, "hdfs://host/x", "hdfs"),
    ],
)
def test_what_the_engine_cannot_be_told_is_refused(
    properties: dict[str, str], path: str, says: str
) -> None:
    with pytest.raises(Unsupported, match=says) as refused:
        store_options(properties, path)
    assert all(value not in str(refused.value) for value in properties.values())


def test_settings_that_contradict_each_other_are_refused() -> None:
    """The bindings panic, with the settings in the text."""
    half = store_options({"s3.access-key-id": "hidden"}, "s3://box/x")
    with ExitStack() as resources, pytest.raises(Unsupported, match="make no client") as refused:
        Stores().lease(context(), half, resources)
    assert refused.value.__context__ is None
    assert "hidden" not in str(refused.value)


def test_no_secret_is_shown() -> None:
    properties = {
        "s3.secret-access-key": "hidden",
        "s3.session-token": "hidden",
        "adls.account-key": "hidden",
        "adls.sas-token": "hidden",
        "adls.token": "hidden",
        "adls.tenant-id": "t",
        "adls.client-id": "c",
        "adls.client-secret": "hidden",
    }
    for path in ("s3://box/x", ABFSS):
        assert "hidden" not in repr(store_options(properties, path))


def test_the_first_end_of_credentials_counts() -> None:
    ends = {
        "s3.session-token-expires-at-ms": "5000",
        "adls.sas-token-expires-at-ms.desk": "4000",
        "gcs.oauth2.token-expires-at": "soon",
    }
    assert credentials_end_s(ends) == 4.0
    assert credentials_end_s({"s3.access-key-id": "k"}) is None


def test_equal_options_share_a_store_and_others_have_their_own() -> None:
    made, found = context(), Stores()
    with ExitStack() as resources:
        first = found.lease(made, store_options(_keys("a"), "s3://box/x"), resources)
        again = found.lease(made, store_options(_keys("a"), "s3://box/x"), resources)
        other = found.lease(made, store_options(_keys("b"), "s3://box/x"), resources)
    assert first == again != other


def test_a_store_in_use_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed credentials do not pile up, and a running statement keeps its own."""
    monkeypatch.setattr(stores, "_MAX_IDLE", 2)
    made, found = context(), Stores()
    with listener() as (url, asked), ExitStack() as running:
        here = {"s3.endpoint": url}
        kept = found.lease(made, store_options({**here, **_keys("0")}, "s3://box/x"), running)
        gone = []
        for number in range(1, 6):
            with ExitStack() as over:
                options = store_options({**here, **_keys(str(number))}, "s3://box/x")
                gone.append(found.lease(made, options, over))
        with pytest.raises(Exception, match="404"):
            listing(made, SCHEMA, [f"{kept}/x"]).collect()
        assert asked
        with pytest.raises(Exception, match="No suitable object store"):
            listing(made, SCHEMA, [f"{gone[0]}/x"]).collect()


def test_a_scan_reads_every_file_from_its_own_store() -> None:
    """The engine would read all files of one scan from the first one's."""
    made, found = context(), Stores()
    with listener() as (url, asked), ExitStack() as resources:
        paths = []
        for box in ("one", "two"):
            options = store_options({"s3.endpoint": url, **_keys("k")}, f"s3://{box}/x")
            paths.append(f"{found.lease(made, options, resources)}/x.parquet")
        plan = listing(made, SCHEMA, paths).logical_plan().display_indent()
        assert plan.count("TableScan") == len(paths)
        for path, box in zip(paths, ("one", "two"), strict=True):
            asked.clear()
            with pytest.raises(Exception, match="404"):
                listing(made, SCHEMA, [path]).collect()
            assert {path.split("/")[1].partition("?")[0] for path, _ in asked} == {box}
