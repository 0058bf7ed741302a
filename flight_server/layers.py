"""The layers that settings are made of: a TOML file, the environment, and what masks secrets."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

PREFIX = "K2_"
#: K2_ variables that are no settings: the file, the client, pipes of ours, what tests steer by.
_NOT_SETTINGS = re.compile(
    r"K2_(CONFIG|SQL_.*|\w+_FD|KILL_POINT|FAULTS|REQUIRE_\w+|TEST_.*|BENCH_.*|CHAOS_.*)\Z"
)
_SECRET = re.compile(
    r"password|secret|token|credential|user\.info|jaas|access-key|authorization"
    r"|connection-string|(^|[._-])key([._]pem)?$"
)
_LOCATION = re.compile(r"\.location$")
MASK = "**********"
#: Settings that hold a path of the local file system.
_PATHS = {
    "server": ("tls_certificate", "tls_key", "users_file", "mtls_ca"),
    "live": ("folder",),
    "limits": ("spill_folder",),
    "catalog": ("warehouse",),
}


class ConfigRefused(ValueError):
    """The configuration is wrong; one line per key says what, where and what to do."""


def nearest(key: str, known: Iterable[str], *, cutoff: float = 0.8) -> str | None:
    """The known key that ``key`` was probably meant to be.

    ``cutoff`` is difflib's ratio: 0.8 keeps librdkafka's and pyiceberg's names apart from ours.
    """
    return next(iter(difflib.get_close_matches(key, list(known), n=1, cutoff=cutoff)), None)


def read_toml(path: Path, *, required: bool) -> dict[str, object]:
    """The file's content, with dotted keys of pass-through sections flat again.

    ``bootstrap.servers = "…"`` in TOML is a table ``bootstrap`` with a key ``servers``.

    Raises:
        ConfigRefused: the file is missing though required, unreadable, or no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not required:
            return {}
        raise ConfigRefused(
            f"configuration file {path} does not exist: name another with --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"configuration file {path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigRefused(f"configuration file {path} is no TOML: {error}") from error
    return {
        section: _flat(values) if section in {"kafka", "registry", "catalog"} else values
        for section, values in content.items()
    }


def _flat(values: object, prefix: str = "") -> object:
    if not isinstance(values, dict):
        return values
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            nested = _flat(value, f"{prefix}{key}.")
            flat.update(nested if isinstance(nested, dict) else {})
        else:
            flat[prefix + key] = value
    return flat


def read_environment(environ: Mapping[str, str], *, passing: Collection[str]) -> dict[str, object]:
    """``K2_SECTION__KEY`` → section → key → value.

    In pass-through sections a name is written as it is (``K2_KAFKA__sasl.username``) or in
    capitals: ``__`` is a dot, and ``_`` a dash in ``[catalog]`` (pyiceberg's own convention) or a
    dot in ``[kafka]`` and ``[registry]``. Tables are counted: ``K2_TABLE__0__NAME``; a list of
    texts is separated by commas.

    Raises:
        ConfigRefused: a variable that names no key, or a table's number that leaves a hole.
    """
    layer: dict[str, object] = {}
    tables: dict[int, dict[str, object]] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or _NOT_SETTINGS.match(variable):
            continue
        section, _, key = variable.removeprefix(PREFIX).partition("__")
        section = section.lower()
        if not key:
            raise ConfigRefused(f"{variable}: no setting; settings are named K2_SECTION__KEY")
        if section == "table":
            _put_table(tables, variable, key, environ[variable])
            continue
        name = _passing_name(section, key) if section in passing else key.lower()
        target = layer.setdefault(section, {})
        if isinstance(target, dict):
            _put(target, name, environ[variable], nested=section not in passing)
    if tables:
        layer["table"] = tables
    return layer


def _passing_name(section: str, key: str) -> str:
    if "." in key or "-" in key:
        return key
    own = {"kafka": {"monitor_group"}, "registry": {"url", "timeout_s"}}
    lowered = key.lower()
    if lowered in own.get(section, {"name", "refresh_ms", "timeout_s"}):
        return lowered
    return lowered.replace("__", ".").replace("_", "-" if section == "catalog" else ".")


def _put(target: dict[str, object], name: str, value: str, *, nested: bool) -> None:
    outer, _, inner = name.partition("__")
    if nested and inner:
        group = target.setdefault(outer, {})
        if isinstance(group, dict):
            group[inner] = value
    else:
        target[name] = value


def _put_table(tables: dict[int, dict[str, object]], variable: str, key: str, value: str) -> None:
    number, _, name = key.partition("__")
    if not number.isdigit() or not name:
        raise ConfigRefused(f"{variable}: tables are counted from 0, as in K2_TABLE__0__NAME")
    lowered = name.lower()
    lists = lowered in {"topics", "sort", "partition"}
    parts = [part.strip() for part in value.split(",") if part.strip()] if lists else value
    table = tables.setdefault(int(number), {})
    if isinstance(parts, str):
        _put(table, lowered, parts, nested=True)
    else:
        table[lowered] = parts


def merged(layers: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """The layers as one, key by key; later layers win."""
    whole: dict[str, object] = {}
    for layer in layers:
        for section, values in layer.items():
            before = whole.get(section)
            if section == "table":
                whole[section] = _merged_tables(before, values)
            elif isinstance(before, Mapping) and isinstance(values, Mapping):
                whole[section] = {**before, **values}
            else:
                whole[section] = values
    return whole


def _merged_tables(before: object, values: object) -> object:
    """Tables of the file, with the counted ones of the environment laid over them."""
    if not isinstance(values, Mapping):
        return values
    tables = list(before) if isinstance(before, list) else []
    for number in sorted(values):
        if not isinstance(number, int):
            raise ConfigRefused("table: every table has a [[table]] of its own, in two brackets")
        if number > len(tables):
            raise ConfigRefused(
                f"K2_TABLE__{number}__…: there are only {len(tables)} tables before it"
            )
        if number == len(tables):
            tables.append({})
        tables[number] = {**tables[number], **values[number]}
    return tables


def resolved_paths(values: Mapping[str, object], folder: Path) -> dict[str, object]:
    """The values with relative paths made absolute, seen from the configuration's folder."""
    whole = dict(values)
    for section, keys in _PATHS.items():
        part = whole.get(section, {})
        if isinstance(part, Mapping):
            given = {key: part[key] for key in keys if part.get(key)}
            whole[section] = {
                **part,
                **{
                    key: _absolute(str(value), folder)
                    for key, value in given.items()
                    if isinstance(value, (str, Path))  # another type is refused as what it is
                },
            }
    for section in ("kafka", "registry", "catalog"):
        part = whole.get(section, {})
        if isinstance(part, Mapping):
            whole[section] = {key: _resolved(key, value, folder) for key, value in part.items()}
    return whole


def _absolute(text: str, folder: Path) -> str:
    return text if "://" in text else str(folder / Path(text).expanduser())


def _resolved(key: str, value: object, folder: Path) -> object:
    if not isinstance(value, str):
        return value
    if _LOCATION.search(key) and key.startswith("ssl."):
        return _absolute(value, folder)
    for scheme in ("sqlite:///", "file://", "file:"):
        if value.startswith(scheme):
            path = value.removeprefix(scheme)
            return value if path.startswith((":memory:", "/")) else f"{scheme}{folder / path}"
    return value


def masked(key: str, value: object) -> object:
    """The value as it may be shown: secrets, and passwords inside addresses, as stars."""
    if isinstance(value, SecretStr) or (value is not None and _SECRET.search(key.lower())):
        return value if _LOCATION.search(key) else MASK
    return _masked_address(value) if isinstance(value, str) else value


def _masked_address(text: str) -> str:
    if "@" not in text or "://" not in text:
        return text
    parts = urlsplit(text)
    if parts.password is None:
        return text
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{MASK}@{host}"))
