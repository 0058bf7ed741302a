"""The judge: the producers' journals are the log, every answer is held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from checker import (
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


@dataclass
class Verdict:
    """What has been judged so far.

    Attributes:
        judged: answers per kind.
        mixed: judged answers whose version held live and history rows.
        rows: rows of the longest judged answer.
        faults: every wrong answer, as text.
        retried: failures that a retry overcame, per beginning of their text.
    """

    judged: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    rows: int = 0
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
        self._entries: Ints = np.empty((0, 3), np.int64)
        self._pending: list[Asked] = []
        self._sessions: dict[int, Session] = {}
        self._logs: dict[Place, Log] = {}
        self._totals: dict[Place, Totals] = {}

    @property
    def records(self) -> int:
        """How many records the journals held when they were read last."""
        return len(self._entries)

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
        if asked.answer is None:
            self.verdict.faults.append(f"the last answer failed: {asked.error}")
            return
        self._blame(asked, check_complete(asked.answer, self._logs))
        self._count(asked)

    def _decide(self, asked: Asked) -> None:
        faults: list[Fault] = []
        if asked.digests is not None:
            for place, digest in asked.digests.items():
                faults += check_digest(place, digest, self._totals.get(place))
        elif asked.answer is not None and asked.first is not None:
            faults = check_window(asked.answer, self._logs, asked.first)
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
        if not any(map(len, fresh)):
            return
        entries = np.concatenate([self._entries, *fresh])
        self._entries = entries[np.lexsort((entries[:, 1], entries[:, 0]))]
        for partition in np.unique(self._entries[:, 0]):
            mine = self._entries[self._entries[:, 0] == partition]
            offsets, numbers = mine[:, 1].copy(), mine[:, 2].copy()
            place = (self._topic, int(partition))
            self._logs[place] = Log(offsets, numbers.astype(np.uint64))
            self._totals[place] = Totals.of(offsets, numbers, numbers % PRICE_UNITS + 1)
