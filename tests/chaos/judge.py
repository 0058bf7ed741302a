"""The judge: the producers' journals are the log, every answer is held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from checker import (
    Digest,
    Fault,
    Log,
    Place,
    Session,
    Totals,
    check_answer,
    check_complete,
    check_digest,
    check_window,
)

from chaos.market import PRICE_UNITS, Ints
from chaos.reader import Asked

#: Topic, partition, offset and number of a poison record.
Letter = tuple[str, int, int, int]


@dataclass
class Verdict:
    """What has been judged so far.

    Attributes:
        judged: answers per kind.
        mixed: judged answers that held live and history rows.
        rows: rows of the longest judged answer.
        letters: poison records that were found among the dead letters at the end.
        faults: every wrong answer, as text.
        retried: failures that a retry overcame, per beginning of their text.
    """

    judged: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    rows: int = 0
    letters: int = 0
    faults: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)


class Judge:
    """Holds answers until the journals are known to reach them, then decides."""

    def __init__(self, topic: str, journals: Sequence[Path]) -> None:
        self.verdict = Verdict()
        #: Answers accepted so far, judged or not.
        self.taken = 0
        self._topic = topic
        self._journals = dict.fromkeys(journals, 0)
        self._grown: dict[Place, _Growing] = {}
        self._pending: list[Asked] = []
        self._sessions: dict[int, Session] = {}
        self._logs: dict[Place, Log] = {}
        self._totals: dict[Place, Totals] = {}
        self._poison: list[Ints] = []

    @property
    def records(self) -> int:
        """How many records the journals held when they were read last."""
        return sum(grown.rows for grown in self._grown.values())

    @property
    def poison(self) -> Counter[Letter]:
        """The poison records that the journals held when they were read last."""
        entries = np.concatenate(self._poison).tolist() if self._poison else []
        return Counter((self._topic, place, offset, -number) for place, offset, number in entries)

    @property
    def pending(self) -> int:
        """How many answers wait for the journals."""
        return len(self._pending)

    def take(self, asked: Asked) -> None:
        """Accepts one answer; positions within a session are judged at once (rule 20)."""
        if asked.error is not None:
            if asked.expected:
                self.verdict.retried[asked.error[:60]] += 1
            else:
                self.verdict.faults.append(f"{asked.kind}: {asked.error}")
            return
        self.taken += 1
        session = self._sessions.setdefault(asked.reader, Session())
        if asked.kind != "parts" or asked.answer is not None:
            self._blame(asked, session.check(self._ends(asked, session)))
        self._pending.append(asked)

    @staticmethod
    def _ends(asked: Asked, session: Session) -> Mapping[Place, int]:
        if asked.digests is not None:
            return {place: digest.last + 1 for place, digest in asked.digests.items()}
        return asked.answer.ends if asked.answer is not None else session.seen

    def settle(self, mark: float) -> None:
        """Judges every answer that was complete before ``mark``.

        Args:
            mark: what was sent before this moment stands in the journals.
        """
        ready = [asked for asked in self._pending if asked.at <= mark]
        if not ready:
            return
        self._pending = [asked for asked in self._pending if asked.at > mark]
        self.load()
        for asked in ready:
            self._decide(asked)

    def settle_complete(self, asked: Asked) -> None:
        """Judges the last answer: it must hold every record that was loaded."""
        if asked.answer is None and asked.digests is None:
            self.verdict.faults.append(f"the last answer failed: {asked.error}")
            return
        if asked.answer is not None:
            self._blame(asked, check_complete(asked.answer, self._logs))
        for place, totals in self._totals.items() if asked.digests is not None else ():
            digest = asked.digests.get(place, Digest(0, -1, (0, 0, 0)))
            faults = check_digest(place, digest, totals)
            if missing := len(totals.offsets) - digest.rows:
                faults.append(Fault("missing", place, missing, (digest.last + 1,)))
            self._blame(asked, faults)
        self._count(asked)

    def settle_letters(self, letters: Counter[Letter]) -> None:
        """Judges the dead letters at the end: each poison record once, and nothing else.

        That no poison record is anywhere else shows in every answer: it would be foreign there.
        """
        expected = self.poison
        for kind, wrong in (("missing", expected - letters), ("doubled", letters - expected)):
            if wrong:
                example = next(iter(wrong))
                text = f"dead letters: {wrong.total()} {kind} or foreign, first {example}"
                self.verdict.faults.append(text)
        self.verdict.letters += letters.total()

    def _decide(self, asked: Asked) -> None:
        faults: list[Fault] = []
        if asked.digests is not None:
            for place, digest in asked.digests.items():
                faults += check_digest(place, digest, self._totals.get(place))
        elif asked.answer is not None and asked.ranges is not None:
            faults = check_window(asked.answer, self._logs, asked.ranges)
        elif asked.answer is not None:
            faults = check_answer(asked.answer, self._logs)
        self._blame(asked, faults)
        self._count(asked)

    def _count(self, asked: Asked) -> None:
        self.verdict.judged[asked.kind] += 1
        self.verdict.mixed += asked.live > 0 and asked.history > 0
        self.verdict.rows = max(self.verdict.rows, asked.live + asked.history)

    def _blame(self, asked: Asked, faults: Sequence[Fault]) -> None:
        self.verdict.faults += [f"{asked.kind} by reader {asked.reader}: {f}" for f in faults]

    def load(self) -> None:
        """Reads what the journals hold by now; :attr:`records` counts it."""
        fresh = []
        for path, done in self._journals.items():
            with path.open("rb") as journal:
                journal.seek(done)
                content = journal.read()
            whole = len(content) // 24 * 24
            self._journals[path] = done + whole
            fresh.append(np.frombuffer(content[:whole], np.int64).reshape(-1, 3))
        entries = np.concatenate(fresh)
        self._poison.append(entries[entries[:, 2] < 0])
        entries = entries[entries[:, 2] >= 0]
        for partition in np.unique(entries[:, 0]):
            mine = entries[entries[:, 0] == partition]
            place = (self._topic, int(partition))
            grown = self._grown.setdefault(place, _Growing())
            grown.add(mine[:, 1], mine[:, 2])
            self._logs[place], self._totals[place] = grown.log, grown.totals


class _Growing:
    """One partition's log, kept sorted; what a journal adds later lies near its end.

    Rows of ``_table``: offset, number, and the running totals of offset, number and price. Only
    what stands behind the first new entry is sorted and summed again.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._table: Ints = np.empty((5, 1 << 16), np.int64)

    def add(self, offsets: Ints, numbers: Ints) -> None:
        """More entries, in any order."""
        first = int(np.searchsorted(self._table[0, : self.rows], offsets.min()))
        behind = self._table[:2, first : self.rows]
        merged = np.concatenate([behind, np.stack([offsets, numbers])], axis=1)
        merged = merged[:, np.argsort(merged[0], kind="stable")]
        self.rows = first + merged.shape[1]
        while self.rows > self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        self._table[:2, first : self.rows] = merged
        values = (merged[0], merged[1], merged[1] % PRICE_UNITS + 1)
        for total, value in zip(self._table[2:], values, strict=True):
            before = total[first - 1] if first else 0
            total[first : self.rows] = np.cumsum(value) + before

    @property
    def log(self) -> Log:
        """The log as the checker wants it."""
        return Log(self._table[0, : self.rows], self._table[1, : self.rows].view(np.uint64))

    @property
    def totals(self) -> Totals:
        """Its running totals."""
        return Totals(self._table[0, : self.rows], tuple(self._table[2:, : self.rows]))
