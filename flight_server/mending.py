"""What `k2 repair` does: a diagnosis, or one choice, shown or committed."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from catalog.diagnosis import Choice, diagnose, log_state, plan
from catalog.lake import Lake
from catalog.offsets import Offsets, TopicPartition
from catalog.repair import LogState, Plan, apply
from catalog.spec import TableName
from flight_server.config import load
from flight_server.lakes import open_lake, open_reader, spec_of


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the command; no ``choice``: a diagnosis."""

    table: str
    config: Path | None
    choice: str | None
    given: Mapping[TopicPartition, int]
    why: str
    yes: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        found: what is wrong, where it was asked.
        plan: what the choice means.
        snapshot_id: the snapshot that records it; None: it was only shown.
    """

    table: str
    found: tuple[str, ...] = ()
    plan: Plan | None = None
    snapshot_id: int | None = None

    def to_json(self) -> dict[str, object]:
        """One object; ``repair`` is null in a diagnosis."""
        return {
            "table": self.table,
            "found": list(self.found),
            "repair": None if self.plan is None else self.plan.to_json(),
            "snapshot_id": self.snapshot_id,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        if self.plan is None:
            return [*self.found] or [f"{self.table}: nothing is wrong between table and log"]
        if self.snapshot_id is None:
            return [*self.plan.effects, "nothing was written: add --yes to do it"]
        return [*self.plan.effects, f"done: recorded in snapshot {self.snapshot_id}"]


def mend(request: Request) -> Result:
    """Looks, plans and, with ``yes``, commits.

    Raises:
        ConfigRefused: no such table, or no catalog.
        CatalogError: as they say.
    """
    settings, name = load(request.config), TableName.parse(request.table)
    with (
        closing(open_reader(settings, spec_of(settings, name))) as reader,
        closing(open_lake(settings)) as lake,
    ):
        log = log_state(reader, lake, name)
        if request.choice is None:
            return Result(str(name), tuple(diagnose(lake, name, log)))
        return _chosen(request, lake, name, log)


def _chosen(request: Request, lake: Lake, name: TableName, log: LogState) -> Result:
    given = Offsets(request.given) if request.given else None
    made = plan(lake, name, log, cast("Choice", request.choice), given)
    if not request.yes:
        return Result(str(name), plan=made)
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    head = apply(lake, name, made, who=who, why=request.why)
    return Result(str(name), plan=made, snapshot_id=head.snapshot_id)
