"""What a table's data files hold of each partition: first and last offset, count and checksum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalog.errors import RepairRefused
from catalog.heads import Head
from catalog.lake import Lake
from catalog.offset_files import FileDamaged, OffsetFiles, data_files
from catalog.offsets import Marker, Offsets, TopicPartition
from catalog.spec import TableName
from catalog.tallies import Tallies, Tally, checksum


@dataclass(frozen=True, slots=True)
class Held:
    """All rows of a version.

    Attributes:
        first, last: lowest and highest offset, of partitions that have rows.
        tallies: rows and checksum of all of them.
        strays: rows of no partition that was asked for.
    """

    first: Offsets
    last: Offsets
    tallies: Tallies
    strays: int

    def agrees_with(self, marker: Marker) -> bool:
        """Whether a marker counts exactly these rows, so that it holds for them."""
        if not marker.tallies or any(tally.older for tally in marker.tallies.values()):
            return False
        nothing = Tally(0)
        places = {*marker.tallies, *self.tallies}
        pairs = [(marker.tallies.get(p, nothing), self.tallies.get(p, nothing)) for p in places]
        return self.strays == 0 and all((a.rows, a.sum) == (b.rows, b.sum) for a, b in pairs)


def rows_held(lake: Lake, name: TableName, head: Head, places: Sequence[TopicPartition]) -> Held:
    """Reads the offset columns of every data file.

    Raises:
        RepairRefused: a file cannot be read.
        FileMissing, Unsupported, LakeUnavailable: as they say.
    """
    reader = OffsetFiles(lake, name, head, places)
    first: dict[TopicPartition, int] = {}
    last: dict[TopicPartition, int] = {}
    tallies: dict[TopicPartition, Tally] = {}
    strays = 0
    try:
        for file in data_files(lake.entries(name, head.snapshot_id, head.metadata_location)):
            for numbers, offsets in reader.rows(file):
                strays += int(np.count_nonzero(numbers < 0))
                for number in np.unique(numbers[numbers >= 0]):
                    mine, place = offsets[numbers == number], places[number]
                    first[place] = min(first.get(place, int(mine.min())), int(mine.min()))
                    last[place] = max(last.get(place, -1), int(mine.max()))
                    more = Tally(0, len(mine), checksum(mine))
                    tallies[place] = tallies.get(place, Tally(0)).plus(more)
    except FileDamaged as error:
        raise RepairRefused(f"the table's rows cannot be read: {error}") from error
    return Held(Offsets(first), Offsets(last), Tallies(tallies), strays)
