"""What is wrong between a table and its log, and which repair is for it."""

from __future__ import annotations

from typing import Literal

from catalog.errors import LogLost, MarkerLost, RepairRefused
from catalog.heads import Head, ancestry, marker_of
from catalog.kafka import TopicReader
from catalog.kafka_client import check_bounds
from catalog.lake import Lake
from catalog.offsets import Marker, Offsets, refuse_recreated
from catalog.repair import LogState, Plan, marker_from_rows, same_topic, skip_lost_records
from catalog.rows_held import rows_held
from catalog.spec import TableName

Choice = Literal["skip-lost-records", "same-topic", "marker-from-rows", "positions"]


def log_state(reader: TopicReader, lake: Lake, name: TableName) -> LogState:
    """What the broker says now. Where the log was cut off below the table, it ends there.

    Raises:
        SpecRefused, BrokerUnavailable: no topic, or no answer.
        TableNotFound, LakeUnavailable: as they say.
    """
    topics, begins, ends = reader.identities(), reader.beginnings(), reader.ends()
    if (marker := _recorded(lake, name)) is not None:
        read = {one.topic for one in {*topics} & {*marker.topics}}
        held = Offsets({p: n for p, n in marker.positions.items() if p[0] in read and p in ends})
        ends = ends.with_positions(reader.cuts(held, marker.leaders).items())
    return LogState(topics, begins, ends)


def plan(
    lake: Lake, name: TableName, log: LogState, choice: Choice, given: Offsets | None = None
) -> Plan:
    """What a choice would do; nothing is written.

    Args:
        lake: the catalog.
        name: the table.
        log: what the broker says.
        choice: as on the command line.
        given: positions, for ``positions``.

    Raises:
        RepairRefused, LogLost: the choice does not fit what is wrong.
        MarkerLost: for the choices that need the recorded positions.
        TableNotFound, LakeUnavailable: as they say.
    """
    if choice == "skip-lost-records":
        return skip_lost_records(lake.head(name), log)
    if choice == "same-topic":
        return same_topic(lake.head(name), log)
    if _recorded(lake, name) is not None:
        raise RepairRefused("the table records its positions: there is nothing to find again")
    head = lake.head(name, marked=False)
    metadata = lake.version(name, head.metadata_location).metadata
    held = rows_held(lake, name, head, [*log.ends])
    return marker_from_rows(head, metadata, log, held, given)


def diagnose(lake: Lake, name: TableName, log: LogState) -> list[str]:
    """What is wrong, a line each, with the choice that is for it; nothing: no repair is needed.

    Raises:
        TableNotFound, LakeUnavailable: as they say.
    """
    try:
        head = lake.head(name)
    except MarkerLost as error:
        return [str(error)]
    if head.marker is None:
        return ["the table records no Kafka positions: no ingest has claimed it yet"]
    try:
        refuse_recreated(head.marker.topics, log.topics)
    except LogLost as error:
        return [str(error)]
    found = []
    for place, end in log.ends.items():
        try:
            check_bounds(place, head.marker.positions.at(place), log.begins.at(place), end)
        except LogLost as error:
            found.append(str(error))
    if not log.ends.covers(_of_topics(head.marker, log)):
        found.append(_below(lake, name, head, log))
    return found


def _recorded(lake: Lake, name: TableName) -> Marker | None:
    try:
        return lake.head(name).marker
    except MarkerLost:
        return None


def _of_topics(marker: Marker, log: LogState) -> Offsets:
    """The positions of the topics that are still read."""
    read = {one.topic for one in log.topics}
    return Offsets({p: n for p, n in marker.positions.items() if p[0] in read})


def _below(lake: Lake, name: TableName, head: Head, log: LogState) -> str:
    """Which snapshot a table may be rolled back to when the log ends below its positions."""
    metadata = lake.version(name, head.metadata_location).metadata
    for snapshot in ancestry(metadata, metadata.current_snapshot()):
        marker = marker_of(snapshot)
        if marker is None:
            continue
        positions = _of_topics(marker, log)
        if log.ends.covers(positions) and positions.covers(log.begins):
            return (
                f"snapshot {snapshot.snapshot_id} stands within the log: stop the ingest, roll the "
                f"table back to it, delete the live folder, and start the ingest again; the rows "
                f"above it that the log lost are gone then"
            )
    return "no snapshot stands within the log: restore the topic, or feed it into a new table"
