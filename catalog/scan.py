"""An exact list of data files as one native DataFusion scan.

DataFusion's Python API registers one path or one folder. A listing scan, however, is serialisable:
the plan of a scan of one (never opened) folder is taken once per schema, its list of paths is
replaced in the bytes, and the result is an ordinary scan of exactly those files, with pruning,
statistics, dynamic filters and TopK. Nothing is opened before the plan is executed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from urllib.parse import quote, urlsplit

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, literal
from datafusion.plan import LogicalPlan

from catalog.errors import FileMissing
from catalog.protobuf import bytes_field, fields, payload, without
from catalog.remembered import Remembered

#: A place in a store that does not exist: plans are made over it, and running one fails loudly
#: (an empty folder would answer without rows).
_NOWHERE = "k2none://nowhere/"
#: Schemas whose plan is kept: two per table (before and after a change).
_MAX_TEMPLATES = 512
_LOCAL = "file://"
#: Local files that one scan may have, however few there are in all.
_FILES_AT_ONCE = 4
#: Field numbers of datafusion.proto: LogicalPlanNode.listing_scan; ListingTableScanNode.paths and
#: .table_name; TableReference.bare and its name.
_LISTING_SCAN, _PATHS, _TABLE_NAME, _BARE, _BARE_NAME = 1, 2, 14, 1, 1
#: From the plan to the options of Parquet files: of the scan, its format, the table, all columns;
#: and there enable_page_index and pruning.
_OPTIONS, _PRUNES = (_LISTING_SCAN, 11, 2, 1), frozenset({1, 2})


def empty_listing(schema: pa.Schema, context: SessionContext) -> DataFrame:
    """Registers ``files``, a table of ``schema`` without files: for plans that are never run."""
    context.register_listing_table("files", _NOWHERE, file_extension=".parquet", schema=schema)
    return context.table("files")


def listing(
    context: SessionContext,
    schema: pa.Schema,
    paths: Sequence[str],
    name: str = "files",
    *,
    prune: bool = True,
    apart: bool = False,
) -> DataFrame:
    """A scan of exactly these Parquet files.

    Columns are matched by name; a column that a file lacks is null.

    Args:
        context: whose runtime (stores, caches of footers) will read.
        schema: plain Arrow types; the scan's own schema.
        paths: unescaped URIs (``%`` is a percent sign), as ``Lake.entries`` gives them; not empty.
        name: what plans call the scan.
        prune: leave out row groups and pages by their bounds.
        apart: read many local files as several scans; see :func:`parts_of`.
    """
    frames = []
    for some in parts_of(paths) if apart else _by_store(paths):
        plan = _pieces(schema).over([escaped(path) for path in some], name)
        plan = plan if prune else without(plan, _OPTIONS, _PRUNES)
        logical = LogicalPlan.from_bytes(context, plan)
        frames.append(context.create_dataframe_from_logical_plan(logical))
    while len(frames) > 1:  # a tree: a chain of a hundred would be as deep
        pairs = [frames[first : first + 2] for first in range(0, len(frames), 2)]
        frames = [reduce(DataFrame.union, pair) for pair in pairs]
    return frames[0]


def root(path: str) -> str:
    """``s3://bucket`` of ``s3://bucket/some/file``, the store of a path; of a local one ""."""
    scheme, mark, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if mark and scheme != "file" else ""


def parts_of(paths: Sequence[str]) -> Sequence[Sequence[str]]:
    """Paths that are read as a scan of their own, so that few threads read.

    The engine asks the sizes of all local files of a scan at once, each in a thread; all of them
    read the files then, by turns. What another thread has freed of theirs, the allocator takes back
    once in a hundred of a thread's own larger requests (mimalloc 2.2, ``_mi_malloc_generic``), so
    each keeps what tens of reads took: 800 files, 265 threads, 3.5 GiB. As 29 scans of 28 they are
    70 threads and 1.1 GiB, in no more time; 40 files as 7 scans, 21 threads and 1.0 to 1.2 GiB
    instead of 2.7 after four kinds of aggregates. There are as many scans as a scan has files: both
    make threads.
    """
    found = []
    for some in _by_store(paths):
        parts = 1
        if some[0].startswith(_LOCAL):
            parts = -(-len(some) // max(_FILES_AT_ONCE, math.isqrt(len(some))))
        size = -(-len(some) // parts)
        found += [some[first : first + size] for first in range(0, len(some), size)]
    return found


def _by_store(paths: Sequence[str]) -> Collection[Sequence[str]]:
    """The paths of each store: the engine reads all files of one scan from the first one's."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(root(path), []).append(path)
    return found.values()


def renamed(  # noqa: PLR0913  # as listing, and the columns
    context: SessionContext,
    schema: pa.Schema,
    paths: Sequence[str],
    columns: Sequence[str | pa.Scalar],
    name: str = "files",
    *,
    prune: bool = True,
    apart: bool = False,
) -> DataFrame:
    """A scan of files in which columns have other names, or are not there.

    Args:
        context: whose runtime will read.
        schema: the rows' schema.
        paths: as for :func:`listing`.
        columns: per column its name in all of the files, or the value that it has in their rows.
        name: what plans call the scan.
        prune: as for :func:`listing`.
        apart: as for :func:`listing`.
    """
    there = [(f, at) for f, at in zip(schema, columns, strict=True) if isinstance(at, str)]
    scanned = pa.schema([pa.field(at, field.type) for field, at in there])
    return listing(context, scanned, paths, name, prune=prune, apart=apart).select(
        *(
            (column(at) if isinstance(at, str) else literal(at).cast(field.type)).alias(field.name)
            for field, at in zip(schema, columns, strict=True)
        )
    )


def column(name: str) -> Expr:
    """The column of exactly this name (the library's own reads a dot as a path)."""
    return Expr.column(f'"{name.replace(chr(34), chr(34) * 2)}"')


def require_present(
    context: SessionContext, schema: pa.Schema, paths: Sequence[str], rows: int
) -> None:
    """Makes sure that a scan of ``paths``, planned just now, has found every file (rule 18).

    The engine takes a file that is gone for an empty folder, and the answer would miss its rows
    without a word. Files are never made again, so one that is there now was there then. Local
    files are looked for; those of a store are counted by their footers, which the context caches.

    Args:
        context: that planned the scan.
        schema: of the scan.
        paths: as given to :func:`listing`.
        rows: what the snapshot says that the files hold together.

    Raises:
        FileMissing: some file is not there, or is not the one that was written.
    """
    far = [path for path in paths if not path.startswith(_LOCAL)]
    near = (path.removeprefix(_LOCAL) for path in paths if path.startswith(_LOCAL))
    if not all(map(os.path.exists, near)):
        raise FileMissing("a data file of the snapshot that this statement reads is gone")
    if far and listing(context, schema, paths).count() != rows:
        raise FileMissing("data files of the snapshot that this statement reads are gone")


def escaped(path: str) -> str:
    """An unescaped URI as the URL that the engine's object store expects."""
    parts = urlsplit(path)
    _, _, rest = path.partition("://")
    return f"{parts.scheme}://{parts.netloc}{quote(rest[len(parts.netloc) :], safe='/')}"


@lru_cache(maxsize=_MAX_TEMPLATES)
def _template(schema: pa.Schema) -> bytes:
    return bytes(empty_listing(schema, SessionContext()).logical_plan().to_bytes())


@dataclass(frozen=True, slots=True)
class Pieces:
    """A serialised listing scan without its paths and its name.

    Attributes:
        scan: the other fields of the scan.
        rest: the plan's other fields.
    """

    scan: bytes
    rest: bytes

    def over(self, paths: Sequence[str], name: str = "files") -> bytes:
        """The plan with these paths, which are URLs, and this name."""
        listed = b"".join(bytes_field(_PATHS, path.encode()) for path in paths)
        bare = bytes_field(_BARE, bytes_field(_BARE_NAME, name.encode()))
        whole = self.scan + listed + bytes_field(_TABLE_NAME, bare)
        return bytes_field(_LISTING_SCAN, whole) + self.rest


def pieces(plan: bytes) -> Pieces:
    """Takes a plan's paths and name away.

    Raises:
        ValueError: ``plan`` is not a listing scan (the engine's format has changed).
    """
    parts = list(fields(plan))
    scans = [raw for number, raw in parts if number == _LISTING_SCAN]
    if len(scans) != 1:
        raise ValueError("the plan is not one listing scan: the engine's plan format has changed")
    scan = payload(scans[0])
    replaced = {_PATHS, _TABLE_NAME}
    kept = b"".join(raw for number, raw in fields(scan) if number not in replaced)
    return Pieces(kept, b"".join(raw for number, raw in parts if number != _LISTING_SCAN))


@Remembered
def _pieces(schema: pa.Schema) -> Pieces:
    return pieces(_template(schema))
