"""The stage: a real broker, a site with the system's processes, and data in the right places."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos.market import pool
from chaos.site import Layout, Process, lay_out, pid_of
from confluent_kafka import Producer
from support_kafka import Broker
from support_site import logs
from support_stack import S3_KEY, S3_SECRET, Stack

from catalog.manifest import Manifest
from catalog.segments import LiveReader
from catalog.spec import TableName

TABLE = TableName("market_data", "trades")
#: Different records; 20,000 × 250 bytes stay in a core's cache no better than real ones.
POOL = 20_000
#: Longest wait for the ingest, in seconds.
PATIENCE_S = 600.0
PARTITIONS = 4
#: All that is generated derives from it.
SEED = 1


@dataclass(frozen=True)
class Stage:
    """A broker and a temporary folder.

    Attributes:
        broker: the real one.
        folder: each site gets a sub-folder.
        shrink: everything so many times smaller; 1 is what the page shows.
        stack: starts further servers.
    """

    broker: Broker
    folder: Path
    shrink: int
    stack: Stack

    @property
    def quick(self) -> bool:
        """Whether the figures are nobody's."""
        return self.shrink > 1

    @property
    def timed(self) -> bool:
        """Whether anybody looks at times at all; tests look at answers only."""
        return self.shrink <= 10

    def scaled(self, rows: int) -> int:
        """``rows``, or the part of them that a smaller run takes."""
        return rows // self.shrink

    def turns(self, whole: int) -> int:
        """``whole``, or one where nobody looks at times."""
        return whole if self.timed else 1

    def seconds(self, whole: float) -> float:
        """``whole``, or less in a smaller run, but a third of a second at least."""
        return max(whole / self.shrink, 1 / 3)

    def site(self, name: str, flush_rows: int) -> Layout:
        """A new topic, table and configuration."""
        topic = self.broker.create_topic(PARTITIONS)
        return lay_out(self.folder / name, self.broker.bootstrap, topic, flush_rows)

    def s3_site(self, name: str, flush_rows: int) -> Layout:
        """The same with its lake in an S3 store."""
        layout = self.site(name, flush_rows)
        state = self.stack.state("s3")
        (Path(state["folder"]) / name).mkdir()
        properties = {
            "warehouse": f"s3://{name}/lake",
            "s3.endpoint": state["endpoint"],
            "s3.access-key-id": S3_KEY,
            "s3.secret-access-key": S3_SECRET,
            "s3.region": "us-east-1",
            "s3.path-style-access": "true",
        }
        text = layout.config.read_text()
        local = f'"warehouse" = "file://{layout.folder / "lake"}"'
        assert local in text
        far = "\n".join(f'"{key}" = "{value}"' for key, value in properties.items())
        layout.config.write_text(text.replace(local, far))
        return layout


@functools.cache
def records(seed: int) -> list[bytes]:
    """The pool's records, encoded once."""
    return pool(seed, POOL)[1]


def fill(
    broker: Broker, topic: str, rows: int, seed: int = SEED, *, poison_every: int = 0
) -> float:
    """Writes ``rows`` trades round robin over the partitions; returns rows/s.

    With ``poison_every`` one record in so many is cut off.
    """
    values = records(seed)
    producer = Producer(
        {
            **broker.properties,
            "linger.ms": 20,
            "compression.type": "lz4",
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
        }
    )
    began = time.perf_counter()
    for number in range(rows):
        record = values[number % POOL]
        if poison_every and number % poison_every == poison_every // 2:
            record = record[:-1]
        while True:
            try:
                producer.produce(topic, record, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.05)
    while producer.flush(10):
        pass
    return rows / (time.perf_counter() - began)


def set_keys(layout: Layout, **keys: object) -> None:
    """Replaces keys of the site's configuration file."""
    lines = layout.config.read_text().splitlines()
    for key, value in keys.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    layout.config.write_text("\n".join(lines) + "\n")


#: Role → the most memory that a process of it ever had resident since the dictionary was cleared.
peaks: dict[str, int] = {}

#: What :func:`running` has started and not ended.
_started: list[tuple[Layout, Process]] = []


@contextlib.contextmanager
def running(layout: Layout, *arguments: str) -> Iterator[Process]:
    """A ``k2`` process for the length of the block; notes its :data:`peaks` (on Linux)."""
    process = Process(layout, arguments)
    _started.append((layout, process))
    try:
        yield process
    finally:
        _started.remove((layout, process))
        for role in ("server", "ingest"):
            pid = pid_of(layout, role)
            if pid is not None:
                peaks[role] = max(peaks.get(role, 0), peak_bytes(pid))
        process.end()


def peak_bytes(pid: int) -> int:
    """The most memory that a living process ever had resident; 0 where the system cannot say."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    return 0


def manifest(layout: Layout) -> Manifest | None:
    """What the ingest has published."""
    return LiveReader(layout.folder / "live").manifest(TABLE)


def wait_for(layout: Layout, *, visible: int = 0, committed: int = 0) -> float:
    """Waits until so many positions are visible and committed; returns the moment.

    Raises:
        TimeoutError: it took longer than :data:`PATIENCE_S`.
        RuntimeError: the table was stopped, or a process of this layout ended.
    """
    limit = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < limit:
        if any(of == layout and process.code is not None for of, process in _started):
            raise RuntimeError(f"a process ended: {logs(layout)}")
        now = manifest(layout)
        if now is not None:
            if now.state == "stopped":
                raise RuntimeError(f"the table was stopped: {now.error} {logs(layout)}")
            if sum(now.high.values()) >= visible and sum(now.committed.values()) >= committed:
                return time.perf_counter()
        time.sleep(0.005)
    raise TimeoutError(f"{layout.topic} was not ingested in time: {logs(layout)}")


def settle(layout: Layout) -> None:
    """Waits until nothing is published for two seconds: merges are over."""
    before = None
    while (now := manifest(layout)) != before:
        before = now
        time.sleep(2)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    listing = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(listing.stdout) * 1024


def say(line: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
