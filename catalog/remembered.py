"""What was worked out before: for as long as its object lives, or as there is room."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """A function of one immutable object (a schema, a table, its metadata): works once per object.

    By identity: hashing a schema, or comparing two, costs as much as what is remembered of it.
    Equal objects are worked on once each; what is remembered goes with its object, so nothing has
    to be bounded. Any thread; two that ask at the same moment may both work.

    Invariant: an item's number is the ``id`` of an object that lives, for the callback that removes
    the item runs before the object's memory can be another's.

    Args:
        make: the function; its result must not hold the object, which would live for ever then.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._known: dict[int, tuple[weakref.ref[Any], V]] = {}
        self.__doc__ = make.__doc__

    def __call__(self, thing: K) -> V:
        """What ``make`` gives."""
        number = id(thing)
        found = self._known.get(number)
        if found is not None:
            return found[1]
        value = self._make(thing)
        gone = weakref.ref(thing, lambda _: self._known.pop(number, None))
        self._known[number] = (gone, value)
        return value

    def __len__(self) -> int:
        return len(self._known)


def recent(items: int, parts: int, count: Callable[[V], int]) -> LRUCache[Any, V]:
    """The values used last: at most ``items``, with at most ``parts`` in all.

    Of values with more than half of the parts, two are kept: a newer version and the one before it.

    Args:
        items: values that are kept where they are small.
        parts: what they may have in all, of what ``count`` counts; more than ``items``.
        count: the parts of one value.
    """
    few, many = parts // items, parts // 2
    return LRUCache(parts, lambda value: min(max(count(value), few), many))
