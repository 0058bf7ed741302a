"""What the tables of one ingest process share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from catalog.heads import Head
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.observer import Observer, Unobserved
from catalog.owners import this_process
from catalog.pulse import Pulse
from catalog.registry import SchemaRegistry
from catalog.spec import LiveSpec, TableName, TableSpec


@dataclass(frozen=True, slots=True)
class Sources:
    """What the tables of one process share.

    Attributes:
        reader: makes a table's reader; it is closed by the table.
        writer: a random id of this process (rule 5).
        owner: this process in words, for those it fences.
        pulse: where the beats of a table's writer lie; None: it leaves none and hears none.
    """

    lake: Lake
    registry: SchemaRegistry
    reader: Callable[[TableSpec], TopicReader]
    live: LiveSpec
    observer: Observer = field(default_factory=Unobserved)
    writer: str = field(default_factory=lambda: secrets.token_hex(8))
    owner: str = field(default_factory=this_process)
    pulse: Callable[[TableName, Head], Pulse] | None = None
