"""Counts and checks from outside: SQL over the server, the feed's reports, the broker's watermarks.

Nothing here is told by the ingest about itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from confluent_kafka import Consumer, KafkaException, TopicPartition

from catalog.errors import BrokerUnavailable
from flight_server.demo.folder import KINDS, Run
from flight_server.sqlclient import Client, ClientError

#: Seconds between two measurements of freshness.
SAMPLE_S = 0.1
#: Samples kept; the newest ones decide.
_SAMPLES = 100_000
#: Longest wait for the broker's watermarks, seconds.
_WATERMARKS_S = 10.0

Places = Mapping[tuple[str, int], int]


class FeedReports:
    """Reads the feed's JSON lines on a thread of its own; ``newest`` is replaced, never changed."""

    def __init__(self, lines: IO[bytes]) -> None:
        self.newest: Mapping[str, object] = {}
        self._lines = lines
        self._thread = threading.Thread(target=self._read, name="k2-demo-feed", daemon=True)
        self._thread.start()

    def delivered(self) -> dict[tuple[str, int], int]:
        """(topic, partition) → messages that the broker acknowledged."""
        topics = self.newest.get("delivered", {})
        if not isinstance(topics, dict):
            return {}
        return {
            (topic, int(partition)): count
            for topic, parts in topics.items()
            for partition, count in parts.items()
        }

    def join(self) -> Mapping[str, object]:
        """The last report, after the feed has ended."""
        self._thread.join()
        return self.newest

    def _read(self) -> None:
        for line in self._lines:
            self.newest = json.loads(line)
        self._lines.close()


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one statement's version of all tables."""

    history: int
    live: int
    #: Rows above or below one per offset from 0 to the greatest, by partition.
    surplus: int
    missing: int

    @property
    def rows(self) -> int:
        """History and live."""
        return self.history + self.live


def count_split(client: Client, run: Run) -> Split:
    """A cheap count: rows against the greatest offset of each partition."""
    history = live = surplus = missing = 0
    for kind in KINDS:
        runs, tail = run.part(kind, "runs"), run.part(kind, "live")
        rows = _rows(
            client,
            f"""select _partition, count(*) as n, max(_offset) + 1 as high,
                       sum(case when part = 'live' then 1 else 0 end) as live
                from (select _partition, _offset, 'history' as part from {runs}
                      union all select _partition, _offset, 'live' as part from {tail})
                group by _partition""",
        )
        for row in rows:
            live += row["live"]
            history += row["n"] - row["live"]
            surplus += max(0, row["n"] - row["high"])
            missing += max(0, row["high"] - row["n"])
    return Split(history, live, surplus, missing)


@dataclass(frozen=True, slots=True)
class Audit:
    """The exact comparison with what the broker holds and has acknowledged."""

    rows: int
    history: int
    live: int
    duplicates: int
    gaps: int
    commits: int


def audit(client: Client, run: Run, produced: Places, bootstrap: str) -> Audit:
    """Counts every offset of every partition.

    Args:
        client: a connection to the server.
        run: whose tables.
        produced: messages acknowledged to the feed.
        bootstrap: the broker, asked for its high watermarks.

    Raises:
        BrokerUnavailable: the broker does not tell its watermarks.
    """
    watermarks = read_watermarks(bootstrap, tuple(produced))
    split = count_split(client, run)
    rows = distinct = gaps = commits = 0
    for kind, topic in run.topics().items():
        seen = {
            row["_partition"]: row
            for row in _rows(
                client,
                f"""select _partition, count(*) as n, count(distinct _offset) as d
                    from {run.table(kind)} group by _partition""",
            )
        }
        rows += sum(row["n"] for row in seen.values())
        distinct += sum(row["d"] for row in seen.values())
        for place, count in produced.items():
            if place[0] == topic:
                expected = max(count, watermarks[place])
                held = seen.get(place[1], {"d": 0})["d"]
                gaps += max(0, expected - held)
        commits += _rows(client, f"select count(*) as n from {run.part(kind, 'snapshots')}")[0]["n"]
    return Audit(rows, split.history, split.live, rows - distinct, gaps, commits)


def read_watermarks(bootstrap: str, places: tuple[tuple[str, int], ...]) -> Places:
    """High watermarks, from the broker itself.

    Raises:
        BrokerUnavailable: no answer.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "k2-demo", "log_level": 3})
    try:
        return {
            place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=_WATERMARKS_S)[1]
            for place in places
        }
    except KafkaException as error:
        raise BrokerUnavailable("the embedded broker does not tell its watermarks") from error
    finally:
        consumer.close()


@dataclass(slots=True)
class Freshness:
    """Age of the newest row of an answer when it arrives, in milliseconds; one thread samples.

    Errors between a server's end and its restart are no samples; they are counted.
    """

    connect: Callable[[], Client]
    statement: str
    samples: list[float] = field(default_factory=list)
    failures: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to sample."""
        self._thread = threading.Thread(target=self._run, name="k2-demo-freshness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends; the samples stay."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def quantile_ms(self, share: float) -> float | None:
        """None where nothing was measured."""
        ordered = sorted(self.samples[-_SAMPLES:])
        if not ordered:
            return None
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self.connect() as client:
                    while not self._stop.wait(SAMPLE_S):
                        self._sample(client)
            except ClientError:
                self.failures += 1
                self._stop.wait(SAMPLE_S)

    def _sample(self, client: Client) -> None:
        newest = _rows(client, self.statement)[0]["newest"]
        if newest is not None:
            self.samples.append(time.time() * 1000 - newest)


def newest_row_statement(run: Run) -> str:
    """The time of the newest trade's record, in milliseconds since 1970."""
    return f"""select cast(max(_kafka_timestamp) as bigint) / 1000 as newest
               from {run.table("trades")}"""


def _rows(client: Client, sql: str) -> list[dict[str, int]]:
    with client.query(sql) as result:
        return [row for batch in result.batches for row in batch.to_pylist()]
