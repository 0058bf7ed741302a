"""Why a table's state is what it is, in words for `system.lag`. Pure."""

from __future__ import annotations

from catalog.offsets import Offsets

#: Where the trouble is that a full live folder makes, for ``Publication.say_trouble``.
ROOM = "live.folder"
#: What is said while the live folder is full.
NO_ROOM = "the live folder has no room: reading goes on when there is some"


def distance(first: Offsets, last: Offsets) -> int:
    """Positions from ``first`` up to ``last``, over the partitions of ``last``."""
    return sum(max(0, position - first.at(tp)) for tp, position in last.items())


def reading_again(committed: Offsets, end: Offsets, owed: Offsets) -> str:
    """A restart has read ``[committed, end)`` of what was published up to ``owed`` (rule 12)."""
    whole = distance(committed, owed)
    return (
        f"reading again what was published before the restart: {whole - distance(end, owed)} of "
        f"{whole} positions; until then answers are what they were"
    )


def at_bound(max_bytes: int) -> str:
    """The consumer is paused (rule 14)."""
    return (
        f"live rows fill live.max_bytes ({max_bytes} bytes): reading goes on when history has "
        "taken some of them"
    )


def catching_up(end: Offsets, log_end: Offsets) -> str:
    """The log held more at the start than has been read."""
    return f"{distance(end, log_end)} positions left of what the log held at the start"
