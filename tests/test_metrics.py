"""The query log and the figures behind the Prometheus endpoint."""

from __future__ import annotations

import threading
import urllib.request

import pytest

from flight_server.metrics import (
    QUERIES_SCHEMA,
    STATEMENT_CHARS,
    Metrics,
    MetricsEndpoint,
    QueryLog,
)
from flight_server.protocol.errors import ResourceExhausted


def test_a_statement_is_logged_from_its_start_to_its_last_batch() -> None:
    log = QueryLog()
    query = log.begin("ann", "select 1")
    assert [record.state for record in log.records()] == ["running"]
    query.planned(["market_data.trades@7"])
    query.sent(10, 100)
    query.sent(15, 150)
    query.finish()
    (record,) = log.records()
    assert (record.state, record.rows, record.bytes) == ("finished", 15, 150)
    assert record.planning_ms is not None
    assert record.total_ms >= record.planning_ms
    assert record.pins == ("market_data.trades@7",)


def test_system_queries_has_the_declared_columns() -> None:
    log = QueryLog()
    log.begin("ann", "select 1")
    log.begin("bob", "select 2").finish("NOT_FOUND")
    table = log.to_arrow()
    assert table.schema == QUERIES_SCHEMA
    assert table["user"].to_pylist() == ["ann", "bob"]
    assert table["state"].to_pylist() == ["running", "failed"]
    assert table["error_code"].to_pylist() == [None, "NOT_FOUND"]


def test_an_error_that_leaves_the_block_is_recorded_with_its_code() -> None:
    log = QueryLog()

    def fail() -> None:
        with log.begin("ann", "select 1"):
            raise ResourceExhausted("too much")

    with pytest.raises(ResourceExhausted):
        fail()
    assert log.records()[0].error_code == ResourceExhausted.code


def test_finishing_twice_counts_once() -> None:
    metrics = Metrics()
    query = QueryLog(metrics).begin("ann", "select 1")
    query.finish("CANCELLED")
    query.finish()
    count = metrics.registry.get_sample_value
    assert count("k2_queries_total", {"state": "cancelled", "code": "CANCELLED"}) == 1
    assert count("k2_queries_running") == 0


def test_the_log_is_bounded_and_forgets_the_oldest_finished_one() -> None:
    log = QueryLog(remembered=3)
    still_running = log.begin("ann", "select 0")
    for number in range(1, 6):
        log.begin("ann", f"select {number}").finish()
    texts = [record.statement for record in log.records()]
    assert texts == ["select 0", "select 3", "select 4", "select 5"]
    still_running.finish()


def test_a_long_statement_is_cut() -> None:
    log = QueryLog()
    log.begin("ann", "x" * 10_000)
    assert len(log.records()[0].statement) == STATEMENT_CHARS


def test_many_threads_lose_no_statement() -> None:
    metrics = Metrics()
    log = QueryLog(metrics, remembered=10_000)

    def work() -> None:
        for _ in range(200):
            with log.begin("ann", "select 1") as query:
                query.sent(1, 8)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = log.records()
    assert len({record.id for record in records}) == len(records) == 1600
    assert metrics.registry.get_sample_value("k2_query_rows_total") == 1600


def test_the_endpoint_answers_in_prometheus_text() -> None:
    metrics = Metrics()
    QueryLog(metrics).begin("ann", "select 1").finish()
    endpoint = MetricsEndpoint("127.0.0.1", 0, metrics.registry)
    try:
        url = f"http://127.0.0.1:{endpoint.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"k2_queries_total" in answer.read()
    finally:
        endpoint.close()
