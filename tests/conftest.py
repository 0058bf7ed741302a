"""Fixtures that start the real servers, one of each kind per test session (see support_stack)."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from support_clients import House, house
from support_compatibility import Recorder
from support_kafka import Broker
from support_log import mock_cluster
from support_stack import S3_KEY, S3_SECRET, START_S, Stack, StackUnavailable

_FOLDER = "K2_TEST_STACK"
# Tests draw the same examples every time; `make fuzz` and `make differential` draw new and more.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=5_000, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("K2_FUZZ") == "1" else "default")
_owned = pytest.StashKey[contextlib.ExitStack]()


@dataclass(frozen=True, slots=True)
class S3Store:
    """A running S3 store; its one identity protects nothing."""

    endpoint: str
    folder: Path
    access_key: str = S3_KEY
    secret_key: str = S3_SECRET
    region: str = "us-east-1"

    def create_bucket(self, name: str | None = None) -> str:
        """A new bucket, returns its name (unique unless given)."""
        bucket = name or f"k2-{uuid.uuid4().hex[:12]}"
        (self.folder / bucket).mkdir()
        return bucket

    @property
    def properties(self) -> dict[str, str]:
        """The pyiceberg properties for this store."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.access-key-id": self.access_key,
            "s3.secret-access-key": self.secret_key,
            "s3.region": self.region,
            "s3.path-style-access": "true",
        }


@dataclass(frozen=True, slots=True)
class RestCatalog:
    """A running Iceberg REST catalog over the S3 store; use namespaces of your own."""

    uri: str
    warehouse: str
    s3: S3Store

    @property
    def properties(self) -> dict[str, str]:
        """The pyiceberg properties for this catalog and its store."""
        return {
            "type": "rest",
            "uri": self.uri,
            "warehouse": self.warehouse,
            **self.s3.properties,
        }

    @staticmethod
    def unique_namespace() -> str:
        """A namespace name that no other test uses."""
        return f"ns_{uuid.uuid4().hex[:12]}"


def pytest_configure(config: pytest.Config) -> None:
    """The session's main process owns the servers; xdist workers find them by the environment."""
    if _FOLDER not in os.environ:
        stack = contextlib.ExitStack()
        os.environ[_FOLDER] = str(stack.enter_context(Stack.own()).folder)
        config.stash[_owned] = stack
    if not hasattr(config, "workerinput"):
        whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        whole = whole and not (config.option.keyword or config.option.markexpr)
        config.pluginmanager.register(Recorder(whole=whole))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test shows travels with its report (see support_compatibility)."""
    for mark in item.iter_markers("feature"):
        item.user_properties.append(("feature", list(mark.args)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the servers said last stands beside a failure."""
    report = yield
    if report.failed:
        said = Stack(Path(os.environ[_FOLDER])).said()
        report.sections.extend((f"Last output of {name}", text) for name, text in said)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the servers."""
    if _owned in config.stash:
        os.environ.pop(_FOLDER)
        config.stash[_owned].close()


def server_state(name: str, **options: str) -> Mapping[str, str]:
    """The running server's state; skips the test, or fails it, where it cannot be started."""
    try:
        return Stack(Path(os.environ[_FOLDER])).state(name, **options)
    except StackUnavailable as error:
        if os.environ.get("K2_REQUIRE_BROKER") == "1":
            pytest.fail(f"{error} (K2_REQUIRE_BROKER=1)", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka() -> Broker:
    """A real Apache Kafka broker; ``K2_TEST_KAFKA=host:port`` names another one."""
    broker = Broker(os.environ.get("K2_TEST_KAFKA") or server_state("kafka")["bootstrap"])
    broker.wait_until_answers()
    return broker


@pytest.fixture(scope="session")
def s3() -> S3Store:
    """A real S3 store."""
    state = server_state("s3")
    return S3Store(state["endpoint"], Path(state["folder"]))


@pytest.fixture(scope="session")
def iceberg_rest(s3: S3Store) -> RestCatalog:
    """A real Iceberg REST catalog over ``s3``."""
    (s3.folder / "lake").mkdir(exist_ok=True)
    state = server_state("iceberg-rest", warehouse="s3://lake/rest", endpoint=s3.endpoint)
    return RestCatalog(state["uri"], state["warehouse"], s3)


@pytest.fixture(scope="session")
def postgres() -> int:
    """The port of a real PostgreSQL server (user k2, no password; a new database per test)."""
    port = int(server_state("postgres")["port"])
    limit = time.monotonic() + START_S
    while True:  # it accepts connections while it is starting up, and refuses to talk
        try:
            psycopg.connect(f"user=k2 host=127.0.0.1 port={port} dbname=postgres").close()
        except psycopg.OperationalError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)
        else:
            return port


@pytest.fixture(scope="session")
def schema_registry() -> str:
    """The URL of a real Confluent-compatible schema registry (compatibility BACKWARD)."""
    return server_state("schema-registry")["url"]


@pytest.fixture(scope="session")
def client_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Servers over a small lake, for other people's clients."""
    with house(tmp_path_factory.mktemp("house")) as servers:
        yield servers


@pytest.fixture
def mock_broker() -> Iterator[Broker]:
    """A mock cluster of one's own."""
    with mock_cluster() as broker:
        yield broker
