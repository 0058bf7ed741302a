"""What a campaign is to do, and what came of it."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from catalog.faults import KILL_POINTS
from chaos.judge import Verdict

Catalog = Literal["sqlite", "rest", "both"]


@dataclass(frozen=True)
class Plan:
    """How long and how hard.

    A campaign runs in *legs*: each has a topic, a table and a site of its own, so that neither the
    lake nor the judge's memory grows with the campaign. The other numbers are of all legs together.

    Attributes:
        legs: one after another; leg ``n`` draws from ``seed`` and ``n`` alone.
        first_leg: to replay a late one.
        catalog: sqlite (and files), rest (and an S3 store), or both in turn.
        kills: at named places of the ingest, then of random processes at random times.
        named: how many of them at named places.
        faults: on the wires and at named places, at least (0: none).
        calm_s: mean time between two faults on the wires while the system is up.
        rows: records that count, at least.
        answers: judged answers that hold live and history rows, at least.
        readers: ADBC sessions that ask all the time.
        partitions: of each topic.
        poison_every: one record in so many cannot be decoded and must become a dead letter.
        flush_rows: a commit every so many rows.
        seed: of everything that is drawn.
        pause_s: between two questions of a reader.
    """

    legs: int = 8
    first_leg: int = 0
    catalog: Catalog = "both"
    kills: int = 208
    named: int = 112
    faults: int = 2_000
    calm_s: float = 0.15
    rows: int = 50_000_000
    answers: int = 2_000
    readers: int = 2
    partitions: int = 3
    poison_every: int = 10_000
    flush_rows: int = 150_000
    seed: int = 1
    pause_s: float = 0.1

    @property
    def points(self) -> tuple[str, ...]:
        """The places at which the ingest is killed."""
        return (*KILL_POINTS, "letters.committed") if self.poison_every else KILL_POINTS

    def leg(self, number: int) -> Plan:
        """The share of one leg."""
        share = {
            name: -(-getattr(self, name) // self.legs)
            for name in ("kills", "named", "faults", "rows", "answers")
        }
        kinds: tuple[Catalog, ...] = ("sqlite", "rest") if self.catalog == "both" else ()
        catalog = kinds[number % 2] if kinds else self.catalog
        return replace(self, legs=1, catalog=catalog, seed=self.seed * 1_000 + number, **share)


@dataclass
class Outcome:
    """What happened.

    Attributes:
        kills: per place, ``point:<name>`` or ``random:<role>``.
        unreached: named places that were not met in time (killed from outside then).
        faults: that took effect, per wire or place and kind.
        refused: starts that ended because a service did not answer, per command.
        verdict: the judge's.
        rows: records that counted.
        seconds: how long it took.
        recovered_s: from a kill at a random time to the next answer, in seconds.
    """

    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unreached: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    rows: int = 0
    seconds: float = 0.0
    recovered_s: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """The outcome as one object."""
        return {
            "kills": sum(self.kills.values()),
            "kills_by_place": dict(sorted(self.kills.items())),
            "injected": sum(self.faults.values()),
            "injected_by_kind": dict(sorted(self.faults.items())),
            "unreached": dict(self.unreached),
            "refused_starts": dict(self.refused),
            "rows": self.rows,
            "dead_letters": self.verdict.letters,
            "answers": sum(self.verdict.judged.values()),
            "answers_by_kind": dict(sorted(self.verdict.judged.items())),
            "answers_live_and_history": self.verdict.mixed,
            "largest_answer_rows": self.verdict.rows,
            "retried": dict(self.verdict.retried.most_common(12)),
            "faults": self.verdict.faults[:50],
            "fault_count": len(self.verdict.faults),
            "seconds": round(self.seconds, 1),
            "recovery_s": {
                "median": round(statistics.median(self.recovered_s or [0.0]), 2),
                "max": round(max(self.recovered_s, default=0.0), 2),
            },
        }

    def add(self, leg: Outcome) -> None:
        """Sums a leg up."""
        for mine, more in (
            (self.kills, leg.kills),
            (self.faults, leg.faults),
            (self.unreached, leg.unreached),
            (self.refused, leg.refused),
            (self.verdict.judged, leg.verdict.judged),
            (self.verdict.retried, leg.verdict.retried),
        ):
            mine.update(more)
        self.verdict.letters += leg.verdict.letters
        self.verdict.mixed += leg.verdict.mixed
        self.verdict.rows = max(self.verdict.rows, leg.verdict.rows)
        self.verdict.faults += leg.verdict.faults
        self.rows += leg.rows
        self.seconds += leg.seconds
        self.recovered_s += leg.recovered_s


def summary(outcome: Outcome) -> str:
    """The outcome for people: counts per place, then one line of JSON."""
    lines = [f"{count:6d}  killed {place}" for place, count in sorted(outcome.kills.items())]
    lines += [f"{count:6d}  {kind}" for kind, count in sorted(outcome.faults.items())]
    duplicates = sum("doubled" in fault for fault in outcome.verdict.faults)
    gaps = sum("missing" in fault for fault in outcome.verdict.faults)
    lines.append(f"duplicates={duplicates} gaps={gaps} faults={len(outcome.verdict.faults)}")
    return "\n".join([*lines, json.dumps(outcome.to_json())])
