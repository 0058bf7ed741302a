"""The readers: ADBC sessions that ask all the time and hand every answer to the judge."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Literal

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
from checker import OPEN, Answer, Digest, Place, Ranges

from chaos.market import JUDGED, content_hashes, cut_off, encode

Kind = Literal["digest", "window", "parts", "twice", "whole"]
#: How often each kind is asked; a whole answer carries every row.
KINDS: Mapping[Kind, float] = {"digest": 20, "window": 300, "parts": 75, "twice": 5, "whole": 0.2}
#: Offsets per partition that a window reaches back from what was seen last.
WINDOW = 5_000
#: And to both sides of where the live rows began, as far as the reader knows.
BOUNDARY = 1_000
#: Texts by which a driver says that the server is away or wants a retry.
RETRY_WORDS = ("UNAVAILABLE", "Unavailable", "connection", "EOF", "ABORTED", "CANCELLED", "timeout")


@dataclass(frozen=True)
class Asked:
    """One answer, or one failure, as it goes to the judge.

    Attributes:
        reader: who asked.
        kind: what was asked.
        at: when the answer was complete, on the monotonic clock.
        digests: per partition, for digests.
        answer: the rows, for the other kinds.
        ranges: what a window was asked for; None for prefixes.
        live: rows of the answer (for digests: that it adds up) that were live.
        history: those that were history.
        error: what went wrong instead, with ``expected`` False when no retry can help.
    """

    reader: int
    kind: Kind
    at: float
    digests: Mapping[Place, Digest] | None = None
    answer: Answer | None = None
    ranges: Mapping[Place, Ranges] | None = None
    live: int = 0
    history: int = 0
    error: str | None = None
    expected: bool = True


@dataclass(frozen=True)
class Wish:
    """What one reader does: where, about which table, how often at most."""

    number: int
    uri: str
    table: str
    topic: str
    partitions: int
    seed: int
    pause_s: float
    stop: Event
    answers: Queue[Asked]


@dataclass
class _State:
    """What a reader remembers between two questions.

    Attributes:
        ends: per partition the greatest end so far.
        begins: where the live rows began in the last answer that said so.
    """

    ends: dict[Place, int] = field(default_factory=dict)
    begins: dict[Place, int] = field(default_factory=dict)


def read(wish: Wish) -> None:
    """Asks until it is told to stop (the body of a process)."""
    parent = os.getppid()
    chance = random.Random(wish.seed)
    state = _State()
    while not wish.stop.is_set() and os.getppid() == parent:
        try:
            with session(wish.uri) as cursor:
                while not wish.stop.is_set() and os.getppid() == parent:
                    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
                    wish.answers.put(ask(cursor, kind, wish, state))
                    time.sleep(wish.pause_s)
        except flightsql.Error as error:
            wish.answers.put(_failure(wish, error))
            time.sleep(0.1)
    if os.getppid() != parent:
        os._exit(1)  # nobody takes the answers that are still queued


@contextlib.contextmanager
def session(uri: str) -> Iterator[flightsql.Cursor]:
    """One connection with cookies: one session of the server's."""
    options = {
        adbc_driver_flightsql.DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true",
        adbc_driver_flightsql.DatabaseOptions.TIMEOUT_QUERY.value: "30",
        adbc_driver_flightsql.DatabaseOptions.TIMEOUT_FETCH.value: "60",
        adbc_driver_flightsql.DatabaseOptions.TIMEOUT_UPDATE.value: "30",
    }
    connection = flightsql.connect(uri, db_kwargs=options, autocommit=True)
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        # closing asks a server that may have been killed: what matters has been said by then
        with contextlib.suppress(flightsql.Error):
            cursor.close()
        cursor._closed = True  # or its collection asks the dead server once more, and complains
        with contextlib.suppress(flightsql.Error, RuntimeError):
            connection.close()


def ask(cursor: flightsql.Cursor, kind: Kind, wish: Wish, state: _State) -> Asked:
    """One question and its answer."""
    namespace, _, table = wish.table.partition(".")
    names = {"all": f"{namespace}.{table}"} | {
        part: f'{namespace}."{table}${part}"' for part in ("runs", "live")
    }
    if kind == "digest":
        return _digest(_fetch(cursor, _DIGEST.format(**names)), wish)
    if kind == "twice":
        return _twice(_fetch(cursor, _TWICE.format(**names)), wish)
    ranges = {} if kind == "whole" else _window(wish, state)
    where = " or ".join(
        f"(_partition = {partition} and _offset >= {first} and _offset < {end})"
        for (_, partition), wanted in ranges.items()
        for first, end in wanted
    )
    sql = (_PARTS if kind == "parts" else _ROWS).format(
        **names, where=where or "true", columns=JUDGED
    )
    rows = _fetch(cursor, sql)
    answer = to_answer(rows)
    for place, end in answer.ends.items():
        state.ends[place] = max(end, state.ends.get(place, 0))
    begins = rows["begins"].fill_null(OPEN).to_numpy()
    live = int((rows["_offset"].to_numpy() >= begins).sum())
    if kind == "window":
        places = ((wish.topic, int(partition)) for partition in rows["_partition"].to_numpy())
        state.begins.update(zip(places, begins.tolist(), strict=True))
    return Asked(
        *(wish.number, kind, time.monotonic()),
        answer=answer,
        ranges=ranges if kind != "whole" else None,
        live=live,
        history=rows.num_rows - live,
    )


def read_letters(cursor: flightsql.Cursor, table: str) -> Counter[tuple[str, int, int, int]]:
    """Topic, partition, offset and number of every dead letter; 0 where it is not that record's."""
    sql = f"select _topic, _partition, _offset, _key, value from {table}_dead_letters"
    found = Counter[tuple[str, int, int, int]]()
    for row in _fetch(cursor, sql).to_pylist():
        number = -int.from_bytes(row["_key"] or b"", "little", signed=True)
        sound = row["value"] == cut_off(encode(number))
        found[row["_topic"], row["_partition"], row["_offset"], number if sound else 0] += 1
    return found


_AGGREGATES = (
    "_topic, _partition, count(*) as n, max(_offset) as last, sum(_offset) as offsets,"
    " sum(source_sequence) as numbers, sum(price) as prices"
)
_DIGEST = (
    f"select 'all' as part, {_AGGREGATES} from {{all}} group by _topic, _partition "
    f"union all select 'live', {_AGGREGATES} from {{live}} group by _topic, _partition"
)
#: Two references to one table see one version: every row finds exactly itself.
_TWICE = (
    f"select 'all' as part, {_AGGREGATES} from {{all}} group by _topic, _partition "
    f"union all select 'live', {_AGGREGATES} from {{live}} group by _topic, _partition "
    f"union all select 'again', {_AGGREGATES} from (select * from {{all}}) group by 2, 3"
)
_ROWS = (
    "select _topic, _partition, _offset, {columns}, (select coalesce(min(_offset), "
    "9223372036854775807) from {live} as l where l._partition = t._partition) as begins "
    "from {all} as t where {where}"
)
_PARTS = (
    "select _topic, _partition, _offset, {columns}, 9223372036854775807 as begins from {runs} "
    "where {where} union all "
    "select _topic, _partition, _offset, {columns}, 0 from {live} where {where}"
)


def _fetch(cursor: flightsql.Cursor, sql: str) -> pa.Table:
    cursor.execute(sql)
    return cursor.fetch_arrow_table()


def _window(wish: Wish, state: _State) -> dict[Place, Ranges]:
    """The newest rows, and those where history and live rows meet."""
    ranges: dict[Place, Ranges] = {}
    for place in ((wish.topic, partition) for partition in range(wish.partitions)):
        newest = max(0, state.ends.get(place, 0) - WINDOW)
        begin = min(state.begins.get(place, OPEN), newest)
        ranges[place] = [
            (max(0, begin - BOUNDARY), min(newest, begin + BOUNDARY)),
            (newest, OPEN),
        ]
    return ranges


def _digests(rows: pa.Table, part: str) -> dict[Place, Digest]:
    return {
        (row["_topic"], row["_partition"]): Digest(
            row["n"],
            row["last"],
            (row["offsets"], row["numbers"], int(row["prices"].scaleb(8))),
        )
        for row in rows.to_pylist()
        if row["part"] == part
    }


def _digest(rows: pa.Table, wish: Wish, kind: Kind = "digest") -> Asked:
    whole = _digests(rows, "all")
    live = sum(digest.rows for digest in _digests(rows, "live").values())
    history = sum(digest.rows for digest in whole.values()) - live
    return Asked(wish.number, kind, time.monotonic(), digests=whole, live=live, history=history)


def _twice(rows: pa.Table, wish: Wish) -> Asked:
    asked = _digest(rows, wish, "twice")
    if asked.digests == _digests(rows, "again"):
        return asked
    return Asked(
        *(wish.number, "twice", time.monotonic()),
        error="two references to one table saw two versions",
        expected=False,
    )


def to_answer(rows: pa.Table) -> Answer:
    """Rows with ``_topic``, ``_partition``, ``_offset`` and the judged columns."""
    hashes = content_hashes(rows)
    offsets = rows["_offset"].to_numpy()
    partitions = rows["_partition"].to_numpy()
    topics = rows["_topic"].unique().to_pylist()
    names = np.asarray(rows["_topic"].to_pylist()) if len(topics) > 1 else None
    found = {}
    for topic in topics:
        for partition in np.unique(partitions):
            mine = partitions == partition
            if names is not None:
                mine &= names == topic
            if mine.any():
                found[topic, int(partition)] = (offsets[mine], hashes[mine])
    return Answer(found)


def _failure(wish: Wish, error: Exception) -> Asked:
    text = str(error)
    expected = any(word in text for word in RETRY_WORDS)
    return Asked(wish.number, "whole", time.monotonic(), error=text[:500], expected=expected)
