"""`k2 verify --log` and the commands: the table beside what Kafka still holds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.expressions import And, EqualTo
from support_house import TOPIC, House, living
from support_ingest import SCHEMA_ID, WAIT_S, World, committed, framed, running
from support_kafka import Broker
from support_log import NAME, Log, real_log, spec_of
from test_cli import k2

from catalog.decode import Decoder
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.schemas import declare
from catalog.seen import WINDOW_OFFSETS
from catalog.spec import TableName
from catalog.verify import Options, Report, verify
from catalog.verify_log import KafkaLog
from flight_server.config import load
from flight_server.exits import ExitCode
from flight_server.lakes import open_lake


def compared(world: World, log: Log, window_offsets: int = WINDOW_OFFSETS) -> Report:
    sources, spec = world.sources(), spec_of(log)
    declared = declare(sources.registry.get(SCHEMA_ID), spec)
    decoder = Decoder(declared, sources.registry, spec)
    with closing(TopicReader(world.kafka, (log.topic,))) as reader:
        compared = KafkaLog(reader, decoder, declared.arrow.names)
        options = Options(window_offsets=window_offsets)
        return verify(world.lake(), NAME, log=compared, options=options)


def said(report: Report, what: str) -> list[tuple[str, str]]:
    return [(one.state, one.detail) for one in report.findings if one.what == what]


def pairs(rows: pa.Table) -> tuple[list[int], list[int]]:
    return rows["number"].to_pylist(), rows["_offset"].to_pylist()


@pytest.mark.broker
@pytest.mark.parametrize("window_offsets", [WINDOW_OFFSETS, 40])
def test_records_of_the_log_and_rows_are_the_same_offsets(
    kafka: Broker, tmp_path: Path, window_offsets: int
) -> None:
    """Aborted records and control records are gaps of the log, so they are gaps of the table."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(50)
    producer = kafka.producer(transactional_id=f"{log.topic}-tx")
    producer.init_transactions(WAIT_S)
    for commits in (False, True):
        producer.begin_transaction()
        for number in range(10):
            producer.produce(log.topic, framed(number), partition=0)
        producer.flush(WAIT_S)
        if commits:
            producer.commit_transaction(WAIT_S)
        else:
            producer.abort_transaction(WAIT_S)
    log.write(5)
    end = 50 + 11 + 11 + 5  # a transaction's end is a record, too, which may come late
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, end))
    report = compared(world, log, window_offsets)
    assert report.state == "proved", report.findings
    assert (report.partitions[0].rows, report.partitions[0].gaps) == (65, end - 65)
    name = f"log {log.topic}[0]"
    rows = f"its 65 records in [0, {end}) are the table's rows"
    assert said(report, name) == [("proved", rows)]
    kafka.delete_records(log.topic, {0: 40})
    rows = f"its 25 records in [40, {end}) are the table's rows"
    assert said(compared(world, log), name) == [("proved", rows)]
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    before = table.scan().to_arrow()
    numbers = pa.array([n + (offset == 49) for n, offset in zip(*pairs(before), strict=True)])
    table.overwrite(before.set_column(1, before.schema.field(1), numbers))
    assert said(compared(world, log, window_offsets), name) == [
        ("broken", "rows do not say what its records say in [0, 65536)")
    ]
    table.overwrite(before)
    assert compared(world, log, window_offsets).state == "proved"
    table.delete(And(EqualTo("_partition", 0), EqualTo("_offset", 45)))
    assert said(compared(world, log, window_offsets), name) == [
        ("broken", f"1 of its records in [40, {end}) are no rows: 45; 0 rejects are recorded")
    ]
    kafka.delete_topic(log.topic)
    kafka.create_topic(1, name=log.topic)
    [(state, detail)] = said(compared(world, log), "log")
    assert state == "unproved"
    assert "is not the one whose records the table holds" in detail


TRADES = TableName("market_data", "trades")


def _committed(lake: Lake) -> bool:
    """Whether the first flush is history."""
    marker = lake.head(TRADES).marker
    return marker is not None and sum(marker.positions.values()) > 0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Three thousand trades, of which flushes of a thousand rows or more are history."""
    with living(tmp_path_factory.mktemp("house"), 3000) as house:
        with closing(open_lake(load(house.config, {}))) as lake:
            limit = time.monotonic() + WAIT_S
            while not _committed(lake):
                assert time.monotonic() < limit
                time.sleep(0.1)
        yield house


def test_verify_says_what_it_proved_and_ends_with_a_code(house: House) -> None:
    folder = house.config.parent
    done = k2("verify", "market_data.trades", "--log", "--json", folder=folder)
    assert done.returncode == ExitCode.OK, done.stderr
    assert len(done.stdout.splitlines()) == 1
    report = json.loads(done.stdout)
    assert report["state"] == "proved"
    assert report["rows"] >= 1000
    assert {one["state"] for one in report["findings"]} == {"proved"}
    shown = k2("verify", "market_data.trades", folder=folder)
    assert "proved: market_data.trades at snapshot" in shown.stdout
    assert f"{TOPIC}[0]" in shown.stdout
    missing = k2("verify", "market_data.nothing", folder=folder)
    assert missing.returncode == ExitCode.FAILED
    assert "there is no such table" in missing.stderr


def test_repair_finds_nothing_and_refuses_to_do_anything(house: House) -> None:
    folder = house.config.parent
    done = k2("repair", "market_data.trades", folder=folder)
    assert (done.returncode, done.stdout) == (
        ExitCode.OK,
        "market_data.trades: nothing is wrong between table and log\n",
    )
    refused = k2("repair", "market_data.trades", "--skip-lost-records", "--yes", folder=folder)
    assert refused.returncode == ExitCode.FAILED
    assert "nothing is lost" in refused.stderr
    wrong = k2("repair", "market_data.trades", "--positions", "x", folder=folder)
    assert wrong.returncode == ExitCode.USAGE
    assert "TOPIC:PARTITION=NEXT" in wrong.stderr
