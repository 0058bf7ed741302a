"""The test servers themselves: they start, they do what an operator does, they never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import httpx
import pytest
import support_stack
from conftest import RestCatalog, S3Store
from support_kafka import Broker
from support_stack import Stack, StackUnavailable


def test_without_maven_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_stack, "CACHE", tmp_path / "empty")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackUnavailable, match="apt-get install maven"):
        support_stack.jars("kafka")


@pytest.mark.parametrize(
    ("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_a_missing_broker_skips_or_fails_as_wished(
    required: str,
    outcome: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "kafka.failed").write_text("no Java here")
    monkeypatch.setenv("K2_TEST_STACK", str(tmp_path))
    monkeypatch.setenv("K2_REQUIRE_BROKER", required)
    with pytest.raises(outcome, match="no Java here"):
        conftest.server_state("kafka")


@pytest.mark.broker
def test_a_topic_is_created_grown_trimmed_and_deleted(kafka: Broker) -> None:
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"a", b"b", b"c"], partition=1)
    kafka.add_partitions(topic, 3)
    kafka.delete_records(topic, {1: 2})

    found = kafka.admin.list_topics(topic, timeout=10).topics[topic]
    assert len(found.partitions) == 3

    kafka.delete_topic(topic)
    assert topic not in kafka.admin.list_topics(timeout=10).topics


@pytest.mark.broker
def test_the_catalog_answers_over_the_store(iceberg_rest: RestCatalog) -> None:
    from pyiceberg.catalog import load_catalog  # noqa: PLC0415 - slow, and only needed here

    catalog = load_catalog("t", **iceberg_rest.properties)
    namespace = iceberg_rest.unique_namespace()
    catalog.create_namespace(namespace)
    assert (namespace,) in catalog.list_namespaces()


@pytest.mark.broker
def test_a_bucket_is_there_for_a_stranger(s3: S3Store) -> None:
    import s3fs  # noqa: PLC0415 - slow, and only needed here

    bucket = s3.create_bucket()
    files = s3fs.S3FileSystem(key=s3.access_key, secret=s3.secret_key, endpoint_url=s3.endpoint)
    files.pipe(f"{bucket}/one", b"1")
    assert files.cat(f"{bucket}/one") == b"1"


@pytest.mark.broker
def test_the_registry_answers(schema_registry: str) -> None:
    assert isinstance(httpx.get(f"{schema_registry}/subjects", timeout=10).json(), list)


_OWNER = """
import sys, time
from support_stack import Stack
with Stack.own() as stack:
    print(stack.state("kafka")["pid"], stack.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.broker
def test_a_killed_owner_leaves_no_server_and_no_folder_behind() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    try:
        assert owner.stdout is not None
        line = owner.stdout.readline().split()
        if not line:
            pytest.skip("no broker can be started here")
        pid, folder = int(line[0]), Path(line[1])
        assert _alive(pid)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    limit = time.monotonic() + 30
    while (_alive(pid) or folder.exists()) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not _alive(pid)
    assert not folder.exists()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_of_each_server_the_last_output_is_told(tmp_path: Path) -> None:
    """Of a failure on another machine, it is all that is left of the servers (conftest.py)."""
    assert list(Stack(tmp_path).said()) == []
    for attempt in ("0", "1"):
        (tmp_path / "s3" / attempt).mkdir(parents=True)
        (tmp_path / "s3" / attempt / "output.log").write_text(f"{attempt}{'.' * 599}")
    assert list(Stack(tmp_path).said()) == [("s3", f"1{'.' * 599}")]
