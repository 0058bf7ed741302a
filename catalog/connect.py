"""Opening an Iceberg catalog so that it answers or fails in time, and naming what failed.

The one place where exceptions of pyiceberg, requests, SQLAlchemy and the object store become ours.
Their texts hold addresses, paths and keys, so no message repeats them.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError as MalformedAnswer
from pyiceberg.catalog import Catalog, CatalogType, infer_catalog_type, load_catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    RESTError,
    UnauthorizedError,
    ValidationError,
)
from pyiceberg.io import load_file_io
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from requests import Session
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import (
    CatalogError,
    FileMissing,
    LakeUnavailable,
    TableNotFound,
    Unsupported,
)
from catalog.sqlwatch import limit_uses

#: What a catalog or store raises when it is away, refuses us or answers nonsense. requests'
#: exceptions and pyarrow's file system errors are OSErrors.
FOREIGN = (OSError, RESTError, SQLAlchemyError, MalformedAnswer)

#: Seconds that one statement waits for another process's lock on a SQLite catalog.
_SQLITE_BUSY_S = 15
#: Seconds to reach a PostgreSQL catalog, a greeting included.
_DATABASE_S = 5
#: Seconds for a REST catalog's answer to one request, once it is reached.
_ANSWER_S = 20.0
#: Seconds to reach an S3 endpoint; the SDK tries three times.
_S3_CONNECT_S = 2.0
#: Seconds without a byte from an S3 store before the SDK tries again.
_S3_REQUEST_S = 10.0

T = TypeVar("T")


@contextlib.contextmanager
def lake_errors(action: str, where: str = "the Iceberg catalog or its store") -> Iterator[None]:
    """Turns foreign exceptions into ours.

    Args:
        action: what was tried, "loading market_data.trades".
        where: which service, without a path or a secret.

    Raises:
        TableNotFound, FileMissing, LakeUnavailable, Unsupported: by what happened inside.
    """
    try:
        yield
    except CatalogError:
        raise
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise TableNotFound(f"{action}: there is no such table or namespace") from error
    except FileNotFoundError as error:
        raise FileMissing(f"{action}: a file that the table names is gone") from error
    except (UnauthorizedError, ForbiddenError, PermissionError) as error:
        raise LakeUnavailable(
            f"{action}: {where} refused the credentials ({type(error).__name__}): "
            f"check the keys in [catalog]"
        ) from error
    except ValidationError as error:
        raise Unsupported(
            f"{action}: its metadata hold what this version cannot read, as a column type of a "
            f"newer format (variant, geometry)"
        ) from error
    except FOREIGN as error:
        raise LakeUnavailable(
            f"{action}: {where} did not answer as expected ({type(error).__name__}): "
            f"check that it runs and the addresses in [catalog]"
        ) from error


class TimedRestCatalog(RestCatalog):
    """A REST catalog whose every request has a time limit (pyiceberg's have none)."""

    def __init__(self, name: str, connect_timeout_s: float, properties: Mapping[str, str]) -> None:
        self._timeouts_s = (connect_timeout_s, _ANSWER_S)
        self._commits = threading.Lock()
        super().__init__(name, **properties)

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """One at a time: pyiceberg puts a table's own token into the session of all requests."""
        with self._commits:
            response: CommitTableResponse = super().commit_table(table, requirements, updates)
            return response

    def _config_headers(self, session: Session) -> None:
        """Called first for every new session, before a token is fetched with it."""
        session.request = functools.partial(session.request, timeout=self._timeouts_s)  # type: ignore[method-assign] # the one door of all verbs
        super()._config_headers(session)


def place(properties: Mapping[str, str]) -> str:
    """The catalog in words, without user, password or path: ``http://host:port``."""
    parts = urlsplit(properties.get("uri", ""))
    if parts.hostname is None:
        return f"the Iceberg catalog ({parts.scheme or properties.get('type', 'no uri')})"
    port = f":{parts.port}" if parts.port else ""
    return f"the Iceberg catalog at {parts.scheme}://{parts.hostname}{port}"


def store_place(properties: Mapping[str, str], location: str) -> str:
    """The object store in words."""
    if location.startswith("s3"):
        endpoint = urlsplit(properties.get("s3.endpoint", "")).netloc.rpartition("@")[2]
        return f"the S3 store at {endpoint or 'AWS'} (s3.endpoint)"
    return "the warehouse's folder"


def completed(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties with the defaults that make failures quick and histories whole."""
    full = {key: str(value) for key, value in properties.items()}
    full["snapshot-loading-mode"] = "all"  # "refs" hides ancestors: rule 2 needs them
    if full.get("s3.endpoint"):
        full.setdefault("s3.region", "us-east-1")  # else pyiceberg asks AWS where the bucket is
    full.setdefault("s3.connect-timeout", str(_S3_CONNECT_S))
    full.setdefault("s3.request-timeout", str(_S3_REQUEST_S))
    uri = full.get("uri", "")
    if uri.startswith("postgresql"):
        full.setdefault("pool_pre_ping", "true")  # else a restarted database fails a commit
        if "connect_timeout=" not in uri:
            full["uri"] = uri = f"{uri}{'&' if '?' in uri else '?'}connect_timeout={_DATABASE_S}"
    if uri.startswith("sqlite") and ":memory:" not in uri and "timeout=" not in uri:
        full["uri"] = f"{uri}{'&' if '?' in uri else '?'}timeout={_SQLITE_BUSY_S}"
    return full


def connect(name: str, properties: Mapping[str, str], *, timeout_s: float) -> Catalog:
    """An opened catalog that has answered one question, on a store that has answered another.

    Args:
        name: the catalog's name.
        properties: pyiceberg's own.
        timeout_s: bound of the whole call; a call that hangs is left behind on its own thread.

    Raises:
        LakeUnavailable: no answer in time, or a refusal; says which service and what to check.
    """
    full = completed(properties)
    where = place(full)
    with lake_errors("opening the lake", where):
        catalog = within(timeout_s, lambda: _open(name, full, timeout_s), where)
    location = full.get("warehouse", "")
    store = store_place(full, location)
    with lake_errors("opening the lake", store):
        within(timeout_s, lambda: _probe(full, location), store)
    return catalog


def _open(name: str, properties: Mapping[str, str], timeout_s: float) -> Catalog:
    try:
        kind = properties.get("type") or infer_catalog_type(name, dict(properties))
        if "py-catalog-impl" not in properties and CatalogType(kind) is CatalogType.REST:
            catalog: Catalog = TimedRestCatalog(name, timeout_s, properties)
        else:
            catalog = _load(name, properties)
        if isinstance(catalog, SqlCatalog):
            limit_uses(catalog.engine)
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise LakeUnavailable(
            f"opening the lake: the settings of {place(properties)} make no catalog "
            f"({type(error).__name__}): check type, uri and warehouse in [catalog]"
        ) from error
    catalog.list_namespaces()
    return catalog


def _load(name: str, properties: Mapping[str, str]) -> Catalog:
    """Pyiceberg's own loading, again for each of the two tables that a SQL catalog makes.

    Two processes that open a new catalog at once may collide at both.
    """
    for _ in range(2):
        with contextlib.suppress(SQLAlchemyError):
            return load_catalog(name, **properties)
    return load_catalog(name, **properties)


def _probe(properties: Mapping[str, str], location: str) -> None:
    """Asks the store for a name; whether it exists does not matter."""
    if "://" in location and not location.startswith("file:"):
        io = load_file_io(dict(properties), location)
        io.new_input(f"{location.rstrip('/')}/.k2-probe").exists()


def within(timeout_s: float, action: Callable[[], T], where: str) -> T:
    """``action()`` or, after ``timeout_s`` seconds, LakeUnavailable.

    Not every driver below has a time limit of its own; a daemon thread gives all of them one.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="lake-open", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise LakeUnavailable(
            f"opening the lake: no answer from {where} in {timeout_s:g} s: "
            f"check that it runs and the addresses in [catalog]"
        )
    return results[0]
