"""The error tree of the data side.

    CatalogError
    ├── SchemaRefused            a topic's schema cannot become a table
    ├── SchemaUnknown            the registry does not know a schema id
    ├── SchemaChanged            records carry a schema that the running table cannot hold
    ├── SchemaConflict           another tool changed the Iceberg table in a way that conflicts
    ├── PoisonRecord             one record that cannot be decoded
    │   └── TooManyRejects       more of them than the table's declaration lets pass
    ├── SpecRefused              a table's declaration contradicts itself or the table
    ├── Unavailable              (retriable) a service did not answer in time
    │   ├── RegistryUnavailable
    │   ├── BrokerUnavailable
    │   ├── LakeUnavailable
    │   └── LiveFolderFull       the live folder has no room for the next rows
    ├── TableNotFound            no such table
    ├── NotReady                 (retriable) the live table has not been published yet
    ├── VersionGone              (retriable) a pinned version cannot be answered any more
    ├── Fenced                   (retriable) another writer moved the positions or the epoch
    ├── CommitUnknown            (retriable) the outcome of a commit is not known yet
    ├── LogLost                  the log can no longer prove the table
    │   ├── LogGap               records between two positions are gone
    │   ├── TopicRecreated       a topic lives under its old name with another identity
    │   └── LogEndsEarly         the log ends below positions that were published
    ├── MarkerLost               no snapshot in reach records the positions: fail closed
    ├── SegmentMissing           a listed live segment is gone under an unchanged manifest
    ├── FileMissing              a data file of a pinned snapshot is gone
    ├── RepairRefused            a repair would lose or double records without saying so
    ├── CopiesFull               no room for local copies of files with deleted rows
    ├── Unsupported              the table uses what this version cannot read correctly
    ├── NoSuchVersion            a table has no such branch, tag, or snapshot of that time
    └── LiveFolderInUse          another ingest owns the live folder

Every class fixes ``code`` (a gRPC status name) and ``retriable`` (the same request may succeed
later without a change). Messages say what, the offending value and what to do; they never hold a
secret, a local path or a stack.
"""

from __future__ import annotations

from typing import ClassVar

#: Longest offending value that a message repeats, in characters (a whole record may be megabytes).
MAX_VALUE_CHARS = 200


def shorten(value: object) -> str:
    """The text of ``value``, cut at :data:`MAX_VALUE_CHARS` characters."""
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


class CatalogError(Exception):
    """Root of the data side's errors."""

    code: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False


class SchemaRefused(CatalogError):
    """A topic's schema cannot become a table; the message names the field's path."""

    code = "FAILED_PRECONDITION"


class SchemaUnknown(CatalogError):
    """The registry does not know a schema id or subject."""

    code = "NOT_FOUND"


class SchemaChanged(CatalogError):
    """Records carry a schema that the running table cannot hold without losing a value."""

    code = "FAILED_PRECONDITION"


class SchemaConflict(CatalogError):
    """Another tool changed the Iceberg table so that it cannot take the topic's rows any more."""

    code = "FAILED_PRECONDITION"


class PoisonRecord(CatalogError):
    """One record cannot be decoded; names topic, partition, offset and schema id."""

    code = "FAILED_PRECONDITION"


class TooManyRejects(PoisonRecord):
    """So many records cannot be decoded that the topic is wrong, not a record."""


class SpecRefused(CatalogError):
    """A table's declaration contradicts itself or the table that exists."""

    code = "FAILED_PRECONDITION"


class Unavailable(CatalogError):
    """A service did not answer in time."""

    code = "UNAVAILABLE"
    retriable = True


class RegistryUnavailable(Unavailable):
    """The schema registry did not answer."""


class BrokerUnavailable(Unavailable):
    """No Kafka broker answered."""


class LakeUnavailable(Unavailable):
    """The Iceberg catalog or its store did not answer."""


class LiveFolderFull(Unavailable):
    """The live folder has no room; rows wait in the log until there is some."""


class TableNotFound(CatalogError):
    """No table has this name."""

    code = "NOT_FOUND"


class NotReady(CatalogError):
    """The live table has not been published yet, or is behind what a session has seen."""

    code = "UNAVAILABLE"
    retriable = True


class VersionGone(CatalogError):
    """A pinned version cannot be answered any more; plan the statement again (rule 17)."""

    code = "UNAVAILABLE"
    retriable = True


class Fenced(CatalogError):
    """Another writer moved the recorded positions or the epoch (rules 4 and 5)."""

    code = "ABORTED"
    retriable = True


class CommitUnknown(CatalogError):
    """The outcome of a commit could not be learnt; the recorded positions will say (rule 6)."""

    code = "UNAVAILABLE"
    retriable = True


class LogLost(CatalogError):
    """The log can no longer prove the table: answers from the tail are refused."""

    code = "DATA_LOSS"


class LogGap(LogLost):
    """Records between two positions are gone from the log, or from the live table (rule 19)."""


class TopicRecreated(LogLost):
    """A topic lives under its old name with another identity (rule 9)."""


class LogEndsEarly(LogLost):
    """The log ends below positions that were committed or published (rule 12)."""


class MarkerLost(CatalogError):
    """No snapshot in reach records the Kafka positions: fail closed (rule 2)."""

    code = "DATA_LOSS"


class SegmentMissing(CatalogError):
    """A listed live segment is gone although the manifest is unchanged (rule 18)."""

    code = "DATA_LOSS"


class FileMissing(CatalogError):
    """A data file of a pinned snapshot is gone (rule 18)."""

    code = "DATA_LOSS"


class RepairRefused(CatalogError):
    """A repair would lose or double records without saying so, or there is nothing to repair."""

    code = "FAILED_PRECONDITION"


class CopiesFull(CatalogError):
    """The folder for local copies of files with deleted rows is full of what statements hold."""

    code = "RESOURCE_EXHAUSTED"


class NoSuchVersion(CatalogError):
    """A table has no such branch or tag, or no snapshot of that time."""

    code = "NOT_FOUND"


class Unsupported(CatalogError):
    """The table uses a feature that this version cannot read correctly."""

    code = "UNIMPLEMENTED"


class LiveFolderInUse(CatalogError):
    """Another ingest owns the live folder (rule 11)."""

    code = "FAILED_PRECONDITION"
