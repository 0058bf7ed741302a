"""Schema ids → schemas: a Confluent-compatible registry over HTTP(S), or a folder.

Source: Confluent Schema Registry API reference, "Schemas" and "Subjects".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from catalog.avro import RegistrySchema
from catalog.errors import (
    RegistryUnavailable,
    SchemaRefused,
    SchemaUnknown,
    SpecRefused,
    shorten,
)
from catalog.references import inline

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

#: Longest that one look-up may take, in seconds.
DEFAULT_TIMEOUT_S = 5.0
#: References that one schema may lead to, directly or not.
MAX_REFERENCES = 100
#: Client properties that are numbers; all the others are text.
_NUMBERS = (
    "timeout",
    "max.retries",
    "retries.wait.ms",
    "retries.max.wait.ms",
    "cache.capacity",
    "cache.latest.ttl.sec",
)
_T = TypeVar("_T")


class SchemaRegistry(Protocol):
    """Where schemas come from. Safe for use by several threads."""

    def get(self, schema_id: int) -> RegistrySchema:
        """The schema with this id; ids never change their meaning, so results are kept.

        Raises:
            SchemaUnknown: no schema has the id.
            SchemaRefused: the schema is not Avro, or not readable.
            RegistryUnavailable: no answer in time.
        """
        ...

    def latest(self, subject: str) -> RegistrySchema:
        """The newest schema of a subject. Errors as :meth:`get`."""
        ...

    def close(self) -> None:
        """Ends connections; may be called again."""
        ...


def open_registry(
    url: str, properties: Mapping[str, str], *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> SchemaRegistry:
    """The registry that ``url`` names.

    Args:
        url: ``http://…``, ``https://…`` (several with commas), or ``file:`` and a folder that holds
            ``<id>.avsc`` and optionally ``subjects.json`` (``{"subject": id}``).
        properties: passed to the registry client as they are (``basic.auth.user.info``,
            ``ssl.ca.location``, ``bearer.auth.token``, …); a folder has none.
        timeout_s: bound on one look-up.

    Raises:
        SpecRefused: an unknown kind of address, or properties that the client refuses.
        RegistryUnavailable: the folder does not exist.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        return _Folder(Path(unquote(url.partition(":")[2].removeprefix("//"))))
    if scheme in ("http", "https"):
        return _Http(url, properties, timeout_s)
    raise SpecRefused(
        f"registry.url of kind {shorten(scheme)!r}: use http://…, https://… or file:./folder"
    )


class _Folder:
    """``<id>.avsc`` files; a file is read once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RegistryUnavailable(
                f"registry.url names no folder ({folder.name!r} is missing): create it, or correct "
                f"the address"
            )
        self._folder = folder
        self._known: dict[int, RegistrySchema] = {}

    def get(self, schema_id: int) -> RegistrySchema:
        if schema_id not in self._known:
            path = self._folder / f"{schema_id}.avsc"
            if not path.is_file():
                raise SchemaUnknown(f"schema id {schema_id}: the folder has no {path.name}")
            self._known[schema_id] = RegistrySchema(schema_id, _parse(schema_id, _read(path)))
        return self._known[schema_id]

    def latest(self, subject: str) -> RegistrySchema:
        path = self._folder / "subjects.json"
        if path.is_file():
            subjects = _loads("subjects.json", _read(path))
            schema_id = subjects.get(subject) if isinstance(subjects, dict) else None
            if not isinstance(schema_id, int):
                raise SchemaUnknown(f"subjects.json has no schema id for {shorten(subject)!r}")
            return self.get(schema_id)
        ids = [int(p.stem) for p in self._folder.glob("*.avsc") if p.stem.isdecimal()]
        if len(ids) != 1:
            raise SchemaUnknown(
                f"the folder holds {len(ids)} schemas and no subjects.json to say which one is "
                f"{shorten(subject)!r}: set schema_id for the table"
            )
        return self.get(ids[0])

    def close(self) -> None:
        """Nothing stays open."""


class _Http:
    """A registry that speaks Confluent's REST protocol."""

    def __init__(self, url: str, properties: Mapping[str, str], timeout_s: float) -> None:
        # Imported here: it costs half a second, and folders do without.
        from confluent_kafka.schema_registry import (  # noqa: PLC0415
            SchemaRegistryClient,
        )

        self._names = ", ".join(_without_user(part.strip()) for part in url.split(","))
        settings: dict[str, Any] = {
            # Half, because the client bounds connecting and reading one after the other.
            "timeout": timeout_s / 2,
            # Who asks tries again; the client's own three tries may take a minute.
            "max.retries": 0,
            # It would keep a subject's newest version for ever.
            "cache.latest.ttl.sec": 1,
            "url": url,
            **{name: _number(name, text) for name, text in properties.items()},
        }
        try:
            self._client: SchemaRegistryClient = SchemaRegistryClient(settings)
        except (ValueError, TypeError, OSError) as error:
            raise SpecRefused(f"[registry]: {shorten(error)}") from error
        self._known: dict[int, RegistrySchema] = {}

    def get(self, schema_id: int) -> RegistrySchema:
        if schema_id not in self._known:
            what = f"schema id {schema_id}"
            schema = self._ask(what, partial(self._client.get_schema, schema_id))
            self._known[schema_id] = self._schema(schema_id, schema)
        return self._known[schema_id]

    def latest(self, subject: str) -> RegistrySchema:
        what = f"subject {shorten(subject)!r}"
        found = self._ask(what, partial(self._client.get_latest_version, subject))
        schema_id = int(found.schema_id or 0)
        if schema_id not in self._known:
            self._known[schema_id] = self._schema(schema_id, found.schema)
        return self._known[schema_id]

    def close(self) -> None:
        self._client.close()

    def _schema(self, schema_id: int, schema: Any) -> RegistrySchema:
        if (schema.schema_type or "AVRO") != "AVRO":
            raise SchemaRefused(
                f"schema id {schema_id} is of type {shorten(schema.schema_type)}: only Avro is read"
            )
        referenced = [_loads(name, text) for name, text in self._references(schema)]
        return RegistrySchema(schema_id, _parse(schema_id, schema.schema_str, referenced))

    def _references(self, schema: Any) -> Iterator[tuple[str, str]]:
        """Name and text of every schema that one refers to, directly or not, once each."""
        waiting, seen = list(schema.references or ()), set()
        while waiting:
            reference = waiting.pop(0)
            key = (reference.subject, reference.version)
            if key in seen:
                continue
            seen.add(key)
            what = f"version {reference.version} of subject {shorten(reference.subject)!r}"
            if len(seen) > MAX_REFERENCES:
                raise SchemaRefused(f"{what}: one of more than {MAX_REFERENCES} references")
            found = self._ask(what, partial(self._client.get_version, *key))
            yield what, found.schema.schema_str or ""
            waiting.extend(found.schema.references or ())

    def _ask(self, what: str, request: Callable[[], _T]) -> _T:
        from confluent_kafka.schema_registry.error import (  # noqa: PLC0415 - as in __init__
            SchemaRegistryError,
        )

        try:
            return request()
        except SchemaRegistryError as error:
            status = error.http_status_code
            if status == 404:  # noqa: PLR2004 - HTTP's "not found"
                raise SchemaUnknown(f"{what} is unknown to the registry {self._names}") from error
            if status in (401, 403):
                raise RegistryUnavailable(
                    f"{what}: the registry {self._names} refused the credentials (HTTP {status}): "
                    f"check [registry]"
                ) from error
            raise RegistryUnavailable(
                f"{what}: the registry {self._names} answered with HTTP {status}"
            ) from error
        except Exception as error:
            # The client lets through whatever its HTTP library, its token source and its JSON
            # parser raise; all of them mean that no answer came.
            raise RegistryUnavailable(
                f"{what}: no answer from the registry {self._names} ({type(error).__name__}): "
                f"check registry.url"
            ) from error


def _without_user(url: str) -> str:
    """The address without credentials: ``host:port``."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _number(name: str, text: str) -> str | float:
    if name not in _NUMBERS:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise SpecRefused(f"registry.{name} = {shorten(text)!r} is no number") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryUnavailable(f"{path.name} in the schema folder cannot be read") from error


def _parse(schema_id: int, text: str, referenced: list[object] | None = None) -> dict[str, object]:
    try:
        avro = inline(_loads(f"schema id {schema_id}", text), referenced or ())
    except RecursionError as error:
        raise SchemaRefused(f"schema id {schema_id} is nested too deep") from error
    return avro if isinstance(avro, dict) else {"type": avro}


def _loads(what: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaRefused(f"{what} is no JSON: {shorten(error)}") from error
