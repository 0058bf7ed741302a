"""`k2 doctor`: looks at everything that a start needs, one after the other, and says what to do."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from catalog.errors import CatalogError, TableNotFound
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.registry import open_registry
from catalog.schemas import declare
from catalog.spec import TableSpec
from flight_server.config import Settings, load
from flight_server.layers import ConfigRefused
from flight_server.versions import PINNED, check_versions

State = Literal["ok", "wrong", "skipped"]

#: Less free space than this on the live or the spill folder's disk is reported, in bytes.
_LEAST_FREE_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name, as `broker` or `registry market_data.trades`.
        detail: what was found; where it is wrong, with what to do.
    """

    what: str
    state: State
    detail: str

    def to_json(self) -> dict[str, str]:
        """``{"what", "state", "detail"}``."""
        return asdict(self)


def examine(config: Path | None) -> Iterator[Finding]:
    """All findings, each as soon as it is there. Nothing is written."""
    yield _finding("versions", _versions)
    try:
        settings = load(config)
    except ConfigRefused as refusal:
        yield Finding("configuration", "wrong", str(refusal))
        return
    tables = ", ".join(str(spec.name) for spec in settings.table_specs()) or "no [[table]]"
    yield Finding("configuration", "ok", tables)
    yield _finding("live folder", lambda: _folder(settings.live.folder, "live.folder"))
    yield _finding(
        "spill folder", lambda: _folder(settings.limits.spill_folder, "limits.spill_folder")
    )
    yield _port(settings)
    for spec in settings.table_specs():
        yield _finding(f"broker {spec.name}", lambda spec=spec: _broker(settings, spec))  # type: ignore[misc]  # called at once
        yield _finding(f"registry {spec.name}", lambda spec=spec: _registry(settings, spec))  # type: ignore[misc]  # the same
    yield from _lake(settings)


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except (CatalogError, ConfigRefused) as error:
        return Finding(what, "wrong", str(error))


def _versions() -> str:
    check_versions()
    return ", ".join(f"{package} {version}" for package, version in PINNED.items())


def _folder(folder: Path, key: str) -> str:
    """Whether the folder, or what it would be made in, can be written and has space."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigRefused(f"{key}: {folder} cannot be written: change its owner, or {key}")
    free = shutil.disk_usage(there).free
    if free < _LEAST_FREE_BYTES:
        raise ConfigRefused(f"{key}: only {free >> 20} MiB are free on the disk of {folder}")
    return f"{folder}, {free >> 30} GiB free"


def _port(settings: Settings) -> Finding:
    address = (settings.server.host, settings.server.port)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            detail = (
                f"{address[0]}:{address[1]} cannot be listened on ({error.strerror}): a server may "
                "run there already; otherwise change server.host or server.port"
            )
            return Finding("server address", "wrong", detail)
    return Finding("server address", "ok", f"{address[0]}:{address[1]} is free")


def _broker(settings: Settings, spec: TableSpec) -> str:
    reader = TopicReader(settings.kafka.properties(), spec.topics)
    try:
        identities = reader.identities()
        begins, ends = reader.beginnings(), reader.ends()
    finally:
        reader.close()
    kept = sum(ends.at(place) - begins.at(place) for place in ends)
    topics = ", ".join(each.topic for each in identities)
    return f"{topics}: {len(ends)} partitions, {kept:,} offsets kept"


def _registry(settings: Settings, spec: TableSpec) -> str:
    registry = open_registry(
        settings.registry.url, settings.registry.properties(), timeout_s=settings.registry.timeout_s
    )
    try:
        if spec.schema_id is None:
            schema = registry.latest(spec.subject or f"{spec.topics[0]}-value")
        else:
            schema = registry.get(spec.schema_id)
        declared = declare(schema, spec)
    finally:
        registry.close()
    return f"schema {declared.schema_id}: {len(declared.arrow)} columns"


def _lake(settings: Settings) -> Iterator[Finding]:
    """The catalog, and the store behind it by reading a table's newest manifests."""
    catalog = settings.catalog
    try:
        lake = Lake.open(catalog.name, catalog.properties(), timeout_s=catalog.timeout_s)
    except CatalogError as error:
        yield Finding("catalog", "wrong", str(error))
        yield Finding("store", "skipped", "needs the catalog")
        return
    try:
        yield _finding("catalog", lambda: _namespaces(lake))
        for spec in settings.table_specs():
            yield _finding(f"store {spec.name}", lambda spec=spec: _store(lake, spec))  # type: ignore[misc]  # called at once
    finally:
        lake.close()


def _namespaces(lake: Lake) -> str:
    names = lake.namespaces()
    return f"{len(names)} namespaces: {', '.join(names[:5])}" if names else "no namespace yet"


def _store(lake: Lake, spec: TableSpec) -> str:
    try:
        head = lake.head(spec.name)
    except TableNotFound:
        return "no table yet; the ingest creates it"
    if head.snapshot_id is None:
        return "the table has no snapshot yet"
    entries = lake.entries(spec.name, head.snapshot_id, head.metadata_location)
    return f"snapshot {head.snapshot_id}: {entries.num_rows} data files listed"
