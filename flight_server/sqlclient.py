"""A Flight SQL client for the command line, over ADBC: any server, not only ours."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as flightsql
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import OperationalError

from catalog.errors import shorten

T = TypeVar("T")

log = logging.getLogger("k2.sqlclient")

#: Messages are at most 2 MiB by our server; others may send up to this many bytes.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
#: Seconds for a call to end that was cancelled, and for the server's answer to a close.
_END_S = 5.0
#: Text of ADBC's that repeats what the caller knows.
_NOISE = re.compile(
    r"^(\w+: )?\[FlightSQL\] "
    r"|\. Detail: (Python exception:|\w+ \(\w+; \w+).*$"
    r"|( \(\w+; \w+\))?\. ?(Vendor code|SQLSTATE).*$",
    re.DOTALL,
)
#: Quoted texts (an open one runs to the end), comments, semicolons, and all else.
_TOKENS = re.compile(
    r"""'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|;|[^'"\-/;]+|.""",
    re.DOTALL,
)


class ClientError(Exception):
    """Root of the client's errors."""


class ServerUnreachable(ClientError):
    """No Flight SQL server answered at the address."""


class StatementFailed(ClientError):
    """The server refused a statement, or failed at it."""


class OutputRefused(ClientError):
    """The rows have no place to go to."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and who asks.

    Attributes:
        uri: ``grpc://host:port`` or ``grpc+tls://host:port``.
        insecure: do not check the server's certificate.
    """

    uri: str
    user: str | None = None
    password: str | None = None
    token: str | None = None
    insecure: bool = False

    @classmethod
    def parse(cls, text: str, **login: Any) -> Address:
        """``host:port`` means ``grpc://host:port``."""
        return cls(text if "://" in text else f"grpc://{text}", **login)


@dataclass(frozen=True, slots=True)
class Rows:
    """A result: ``batches`` can be read once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


class Client:
    """One connection with its session; one thread at a time uses it."""

    def __init__(self, address: Address) -> None:
        database = {
            DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(_MAX_MESSAGE_BYTES),
            DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true",
        }
        if address.insecure:
            database[DatabaseOptions.TLS_SKIP_VERIFY.value] = "true"
        if address.token:
            database[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {address.token}"
        if address.user:
            database |= {"username": address.user, "password": address.password or ""}
        self._address = address
        try:
            self._connection = flightsql.connect(address.uri, db_kwargs=database, autocommit=True)
        except AdbcError as error:
            raise _explained(error, address) from error

    @contextmanager
    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Rows]:
        """Runs one statement; its rows stream while the block lasts.

        Raises:
            StatementFailed: with the server's message.
            ServerUnreachable: the connection is gone.
        """
        with self._cursor() as cursor:
            with self._translating():
                _interruptibly(
                    lambda: cursor.execute(sql, list(parameters) or None), cursor.adbc_cancel
                )
                reader = cursor.fetch_record_batch()
            yield Rows(reader.schema, self._batches(reader, cursor))

    def names(self) -> tuple[str, ...]:
        """Schemas, tables and columns, for completion."""
        with self._translating():
            objects = _interruptibly(
                lambda: self._connection.adbc_get_objects(depth="columns").read_all().to_pylist(),
                self._connection.adbc_cancel,
            )
        found: set[str] = set()
        for catalog in objects:
            for schema in catalog["catalog_db_schemas"] or ():
                name = schema["db_schema_name"] or ""
                found.add(name)
                for table in schema["db_schema_tables"] or ():
                    found |= {table["table_name"], f"{name}.{table['table_name']}"}
                    found |= {c["column_name"] for c in table["table_columns"] or ()}
        return tuple(sorted(found - {""}))

    def close(self) -> None:
        """Ends the session; idempotent."""
        _let_go(self._connection)

    @contextmanager
    def _cursor(self) -> Iterator[flightsql.Cursor]:
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            _let_go(cursor)

    def _batches(
        self, reader: pa.RecordBatchReader, cursor: flightsql.Cursor
    ) -> Iterator[pa.RecordBatch]:
        while True:
            with self._translating():
                try:
                    batch = _interruptibly(reader.read_next_batch, cursor.adbc_cancel)
                except StopIteration:
                    return
            yield batch

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (AdbcError, pa.ArrowException, OSError) as error:
            raise _explained(error, self._address) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _elsewhere(work: Callable[[], T]) -> Future[T]:
    """``work``, a native call that waits for the server, on a thread of its own.

    Python runs the handlers of signals on the main thread and never inside a native call. ADBC puts
    its own handler of SIGINT in the place of ours while ``execute`` waits on the main thread (its
    ``_blocking_impl.cc``): a Ctrl-C then cancels the statement and is told to nobody. On another
    thread it leaves the handlers alone.
    """
    future: Future[T] = Future()

    def fulfil() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
            future.set_exception(error)

    threading.Thread(target=fulfil, name="k2-sql-call", daemon=True).start()
    return future


def _interruptibly(work: Callable[[], T], cancel: Callable[[], object]) -> T:
    """The result of ``work``, or its exception.

    Where the handler of a signal raises meanwhile, as Ctrl-C does, ``cancel`` ends the work and the
    handler's exception goes on. A handler that raises nothing ends no wait.
    """
    future = _elsewhere(work)
    try:
        return future.result()
    except BaseException:
        if not future.done():
            cancel()
            wait([future], _END_S)
        raise


def _let_go(handle: flightsql.Cursor | flightsql.Connection) -> None:
    """Closes it: that a server is gone, or does not answer, adds nothing.

    The rows are read, or another error is under way.
    """
    try:
        _elsewhere(handle.close).result(_END_S)
    except (AdbcError, RuntimeError, TimeoutError) as error:
        log.debug("close_failed what=%s error=%s", type(handle).__name__, error)
    # ADBC leaves this False where the server is gone, and fails again in __del__.
    handle._closed = True  # noqa: SLF001


def split_statements(text: str) -> list[str]:
    """The statements of a script: separated by semicolons outside quotes and comments."""
    statements: list[str] = []
    parts: list[str] = []
    for match in _TOKENS.finditer(text):
        if match.group() == ";":
            statements.append("".join(parts))
            parts = []
        else:
            parts.append(match.group())
    statements.append("".join(parts))
    return [each.strip() for each in statements if _says_something(each)]


def is_complete(text: str) -> bool:
    """Whether the last token of ``text``, comments aside, is a semicolon."""
    tokens = [m.group() for m in _TOKENS.finditer(text)]
    said = [each for each in tokens if each.strip() and not each.startswith(("--", "/*"))]
    return bool(said) and said[-1] == ";"


def parse_parameter(text: str) -> object:
    """A parameter of the command line: JSON where it is JSON (42, 1.5, true, null), else a text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool, str, type(None))) else text


def _says_something(statement: str) -> bool:
    tokens = (match.group() for match in _TOKENS.finditer(statement))
    return any(each.strip() and not each.startswith(("--", "/*")) for each in tokens)


def _explained(error: Exception, address: Address) -> ClientError:
    text = _NOISE.sub("", str(error)).strip()
    gone = isinstance(error, OperationalError) or "Unavailable" in text or "unavailable" in text
    if gone and re.search(r"connect|dial|refused|no such host|resolver|EOF|reset", text):
        return ServerUnreachable(
            f"no Flight SQL server answers at {shorten(address.uri)}: "
            "check the address (--server) and that it runs"
        )
    return StatementFailed(text)
