"""The chaos campaign, short; and its own parts: torn rows show, the journal is the log."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from chaos.campaign import Campaign
from chaos.judge import Judge, Letter
from chaos.market import content_hashes, encode, pool, trade
from chaos.plan import Outcome, Plan, summary
from chaos.producer import Order, produce
from chaos.reader import Asked
from chaos.site import processes
from chaos.wires import KINDS, Surroundings
from checker import Answer, Digest
from confluent_kafka import Consumer, TopicPartition
from conftest import RestCatalog, server_state
from support_kafka import Broker

COLUMNS = {
    "source_sequence": pa.int64(),
    "symbol": pa.utf8(),
    "price": pa.decimal128(18, 8),
    "quantity": pa.decimal128(18, 8),
    "timestamp": pa.timestamp("us"),
    "platform_sequence": pa.int64(),
}


def rows(numbers: list[int]) -> pa.Table:
    trades = [trade(number) for number in numbers]
    return pa.table(
        {name: pa.array([t[name] for t in trades], kind) for name, kind in COLUMNS.items()}
    )


def test_a_sound_row_carries_its_number() -> None:
    numbers = [1, 2, 3, 2**40 - 1, *pool(seed=5, size=200)[0].tolist()]
    assert content_hashes(rows(numbers)).tolist() == numbers


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "source_sequence"])
def test_a_torn_column_shows(column: str) -> None:
    """The columns of one row and the number of another."""
    table = rows([12_345_678_901, 98_765_432_102])
    torn = table.set_column(
        table.schema.get_field_index(column), column, pc.take(table[column], pa.array([1, 0]))
    )
    assert content_hashes(torn).tolist() == [0, 0]


@pytest.mark.broker
def test_the_journal_holds_what_a_committed_reader_sees(kafka: Broker, tmp_path: Path) -> None:
    """Aborted records are neither in the journal nor visible; poison stands there as poison."""
    topic = kafka.create_topic(2)
    spawn = multiprocessing.get_context("spawn")
    journals = []
    for number, transactional in enumerate((False, True)):
        journals.append(tmp_path / f"{number}.bin")
        stop = spawn.Event()
        order = Order(
            *(kafka.bootstrap, topic, 2, number),
            transactional=transactional,
            poison_every=50,
            journal=journals[-1],
            budget=spawn.Value("q", 5_000),
            mark=spawn.Value("d", 0.0),
            stop=stop,
        )
        process = spawn.Process(target=produce, args=(order,), daemon=True)
        process.start()
        while order.mark.value == 0.0 and process.is_alive():
            process.join(0.1)
        stop.set()
        process.join(30)
        assert process.exitcode == 0

    judge = Judge(topic, journals)
    judge.settle(1.0)
    assert judge.records == 0  # no answer waited, so nothing was read
    judge.load()
    assert 5_000 < judge.records < 10_000  # of the 5,000 in transactions some were aborted
    answer, letters = _consume(kafka, topic, 2)
    judge.take(Asked(0, "whole", 0.0, answer=answer, live=1, history=1))
    judge.settle(1.0)
    assert judge.verdict.faults == []
    assert judge.verdict.mixed == 1
    judge.settle_complete(Asked(0, "whole", 0.0, answer=answer))
    judge.settle_letters(letters)
    assert judge.verdict.faults == []
    assert judge.verdict.letters == letters.total() > 0


def _consume(kafka: Broker, topic: str, partitions: int) -> tuple[Answer, Counter[Letter]]:
    """The sound records, and those that are cut off."""
    consumer = Consumer(
        {
            **kafka.properties,
            "group.id": "unused",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: dict[int, list[tuple[int, int]]] = {partition: [] for partition in range(partitions)}
    letters, ended = Counter[Letter](), 0
    while ended < partitions:
        for message in consumer.consume(10_000, 1):
            if message.error():
                ended += 1
                continue
            number = int.from_bytes(message.key(), "little", signed=True)
            if message.value() == encode(abs(number)):
                found[message.partition()].append((message.offset(), number))
            else:
                letters[topic, message.partition(), message.offset(), -number] += 1
    consumer.close()
    answer = Answer(
        {
            (topic, partition): (
                np.array([offset for offset, _ in entries], np.int64),
                np.array([number for _, number in entries], np.uint64),
            )
            for partition, entries in found.items()
        }
    )
    return answer, letters


_OWNER = """
import sys, time
from pathlib import Path
from chaos.site import Process, lay_out
layout = lay_out(Path(sys.argv[1]), "127.0.0.1:1", "t", 10)
layout.config.write_text(layout.config.read_text().split("[[table]]")[0])
Process(layout, ["serve", "--no-ingest"])
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS cannot tell a child of its parent's end")
def test_a_killed_run_leaves_no_process_behind(tmp_path: Path) -> None:
    site = tmp_path / "site"
    here = Path(__file__).parent
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(site)], cwd=here)
    config = str(site / "k2.toml")
    try:
        _until(lambda: any(config in command for _, _, command in processes()))
    finally:
        owner.kill()
        owner.wait()
    _until(lambda: not any(config in command for _, _, command in processes()))


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.fixture
def around() -> Iterator[Surroundings]:
    """Our own broker, for one campaign at a time: it advertises one place for a proxy."""
    state = server_state("kafka")
    broker = Broker(state["bootstrap"])
    broker.wait_until_answers()
    with (Path(os.environ["K2_TEST_STACK"]) / "chaos.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Surroundings(broker, (int(state["inner"]), int(state["outer"])))


@pytest.mark.broker
def test_answers_stay_exact_while_everything_dies(around: Surroundings, tmp_path: Path) -> None:
    """Rules 1, 4, 5, 10, 12, 14, 16, 20: every answer is an exact prefix, nothing goes back.

    A kill at some of the named places and two from outside; `make chaos` does it by the hundred,
    and test_ingest.py and test_dead_letters.py kill at each.
    """
    named = len(Plan().points) // 3
    plan = Plan(
        legs=1,
        catalog="sqlite",
        faults=0,
        pause_s=0.02,
        kills=named + 2,
        named=named,
        rows=80_000,
        answers=50,
        flush_rows=4_000,
        poison_every=500,
        seed=11,
    )
    outcome = _campaign(plan, around, tmp_path)
    assert sum(outcome.kills.values()) >= plan.kills
    assert {f"point:{point}" for point in plan.points[:named]} <= set(outcome.kills)


@pytest.mark.broker
def test_answers_stay_exact_while_every_wire_fails(
    around: Surroundings, iceberg_rest: RestCatalog, tmp_path: Path
) -> None:
    """Rules 5, 6, 16, 20: broker, catalog, store and clients behind proxies that lie and lose."""
    plan = Plan(
        legs=1,
        catalog="rest",
        faults=40,
        calm_s=0.1,
        pause_s=0.02,
        kills=2,
        named=1,
        rows=60_000,
        answers=40,
        flush_rows=8_000,
        poison_every=500,
        seed=12,
    )
    outcome = _campaign(plan, replace(around, rest=iceberg_rest.properties), tmp_path)
    assert {kind.partition(":")[0] for kind in outcome.faults} >= set(KINDS)


def _campaign(plan: Plan, around: Surroundings, tmp_path: Path) -> Outcome:
    outcome = Campaign(plan, around, tmp_path / "site", lambda _: None).run()
    assert not outcome.verdict.faults, summary(outcome)
    assert outcome.rows >= plan.rows
    assert outcome.verdict.mixed >= plan.answers
    assert sum(outcome.faults.values()) >= plan.faults
    assert outcome.verdict.letters > plan.rows // plan.poison_every // 2
    return outcome


@pytest.mark.parametrize(
    ("found", "word"),
    [([], "missing"), ([5, 5], "doubled"), ([5, 6], "foreign"), ([0], "missing")],
)
def test_a_dead_letter_is_wanted_once(tmp_path: Path, found: list[int], word: str) -> None:
    """Lost, twice, one of a sound record, and one whose value is another's."""
    journal = tmp_path / "0"
    journal.write_bytes(np.array([[0, 0, 4], [0, 1, -5]], np.int64).tobytes())
    judge = Judge("t", [journal])
    judge.load()
    assert judge.records == 1
    judge.settle_letters(Counter(("t", 0, 1, number) for number in found))
    assert any(word in fault for fault in judge.verdict.faults)


def test_a_log_that_grows_out_of_order_is_kept_in_order(tmp_path: Path) -> None:
    """What a transaction's journal adds late lies below what another producer's added before."""
    journals = [tmp_path / "0", tmp_path / "1"]
    for journal in journals:
        journal.touch()
    judge = Judge("t", journals)
    entries = np.array([[n % 2, n // 2, n + 1] for n in range(20_000)], np.int64)
    late = entries[:, 2] % 7 == 0
    for first in range(0, len(entries), 5_000):
        part = slice(first, first + 5_000)
        for journal, mine in zip(journals, (~late, late), strict=True):
            with journal.open("ab") as file:
                file.write(entries[part][mine[part]].tobytes())
            judge.load()
    found = {}
    for partition in (0, 1):
        mine = entries[entries[:, 0] == partition]
        found["t", partition] = (mine[:, 1], mine[:, 2].astype(np.uint64))
    judge.settle_complete(Asked(0, "whole", 0.0, answer=Answer(found)))
    digests = {
        place: Digest(
            len(offsets),
            int(offsets[-1]),
            (int(offsets.sum()), int(numbers.sum()), int(numbers.sum()) + len(offsets)),
        )
        for place, (offsets, numbers) in found.items()
    }
    judge.settle_complete(Asked(0, "digest", 0.0, digests=digests))
    assert judge.verdict.faults == []
    short = {**digests, ("t", 0): replace(digests["t", 0], rows=9_999)}
    judge.settle_complete(Asked(0, "digest", 0.0, digests=short))
    assert any("missing" in fault for fault in judge.verdict.faults)
