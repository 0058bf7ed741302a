"""Large records: what the ingest's process holds does not follow what was sent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import pytest
from support_ingest import World, committed, framed_text
from support_kafka import Broker
from support_log import NAME, Child, Log

#: The client's usual bound on a record is 1,000,000 bytes, frame and all.
RECORD_BYTES = 990_000
RECORDS = 700
#: Arrow bytes at which a flush is due, and twice of which stop the consumer.
FLUSH_BYTES = 16 * 1024**2
#: Less than the records are, more than what is bounded: the client's queue, two chunks on their way
#: as bytes and as Arrow, and a flush that sorts two flushes' worth.
BOUND_BYTES = 600 * 1024**2


class Peak:
    """The most private memory that a process was seen to hold while the block ran.

    Mapped segments are the kernel's to take back, and count as resident all the same; the kernel's
    own peak (VmHWM) tells them not apart.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for line in self._status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.bytes = max(self.bytes, 1024 * int(line.split()[1]))


@pytest.mark.broker
@pytest.mark.skipif(sys.platform != "linux", reason="private memory is read from /proc")
def test_records_of_a_megabyte_do_not_pile_up_in_memory(kafka: Broker, tmp_path: Path) -> None:
    """The peak of a real process that starts 700 MB behind."""
    topic = kafka.create_topic(1)
    producer = kafka.producer()
    for number in range(RECORDS):
        producer.produce(topic, framed_text(f"{number:09d}" * (RECORD_BYTES // 9), number))
        producer.poll(0 if number % 50 else 5)
    assert producer.flush(60) == 0
    world = World.make(tmp_path, kafka.properties)
    settings = {"flush_bytes": FLUSH_BYTES, "flush_rows": 10**9}
    with Child(world, Log(kafka, topic, 1), **settings) as child, Peak(child.process.pid) as peak:
        for part in range(1, 5):
            world.wait(NAME, committed(topic, RECORDS * part // 4))
    assert 0 < peak.bytes < BOUND_BYTES, f"{peak.bytes >> 20} MiB"


READER = """
import sys
from flight_server.lean import without_huge_pages
if sys.argv[1] == "without":
    without_huge_pages()
from datafusion import SessionContext
assert SessionContext().sql("select 1").collect()
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("THP_enabled:")))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or "THP_enabled" not in Path("/proc/self/status").read_text(),
    reason="whether a process may have huge pages is read from /proc",
)
@pytest.mark.parametrize(("word", "allowed"), [("with", "1"), ("without", "0")])
def test_the_engines_memory_has_pages_of_the_usual_size(word: str, allowed: str) -> None:
    """The engine's allocator tells the kernel; what it saves is measured by the memory lane."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MIMALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", READER, word], env=plain, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [allowed]
