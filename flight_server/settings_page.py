"""Settings as text: effective values (``k2 config``), reference (docs/configuration.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flight_server.config import SECTIONS, PassThrough, Section, Settings
from flight_server.layers import MASK, masked

_INTRODUCTION = """\
# Configuration

<!-- Written by `k2 config --reference`; a test keeps it equal to the settings. -->

K2 Flight reads `k2.toml` of the working folder, or the file that `--config` (or `K2_CONFIG`)
names. Every key can also be set in the environment as `K2_SECTION__KEY`, which wins over the file:
`K2_SERVER__PORT=32011`, `K2_LIVE__FOLDER=/data/live`. Flags of a command win over both.

* An unknown key is refused, with the nearest known one.
* A relative path is seen from the folder of the configuration file.
* Sizes are bytes or texts such as `"512MiB"`; durations are seconds unless the key says `_ms`.
* `[kafka]`, `[registry]` and `[catalog]` pass the keys that are not listed here on to librdkafka,
  the registry's client and pyiceberg, under those libraries' own names. In the environment
  such a name is written in capitals: in `[kafka]` and `[registry]` a dot becomes `_`
  (`K2_KAFKA__BOOTSTRAP_SERVERS`); in `[catalog]` a dot becomes `__` and a dash `_`
  (`K2_CATALOG__S3__ACCESS_KEY_ID`).
* Tables are counted in the environment: `K2_TABLE__0__FLUSH_ROWS=100000` changes the first
  `[[table]]`; lists are separated by commas.
* Secrets are shown as `**********` by `k2 config` and never logged.
"""


def reference() -> str:
    """docs/configuration.md: every key, its type, its default and its meaning."""
    parts = [_INTRODUCTION]
    for name, section in SECTIONS.items():
        title = f"[[{name}]]" if name == "table" else f"[{name}]"
        parts.append(f"\n## `{title}`\n\n{_first_line(section)}\n\n")
        parts.append("| key | default | meaning |\n|---|---|---|\n")
        parts.extend(
            f"| `{key}` | {_default(field)} | {field.description} |\n"
            for key, field in section.model_fields.items()
        )
    return "".join(parts)


def effective(settings: Settings) -> str:
    """The settings as TOML that could be read again, except for masked secrets."""
    lines: list[str] = []
    for name in SECTIONS:
        value = getattr(settings, name)
        if isinstance(value, tuple):
            for table in value:
                lines += ["", "[[table]]", *_lines(table)]
        else:
            lines += ["", f"[{name}]", *_lines(value)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _lines(section: Section) -> Iterator[str]:
    passes = isinstance(section, PassThrough)
    for key, value in section:
        if value is None:
            continue
        shown = masked(key, value) if passes else value
        yield f"{_key(key)} = {_toml(shown)}"


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isalnum() and bare.isascii() else json.dumps(key)


def _toml(value: object) -> str:
    if isinstance(value, SecretStr):
        return json.dumps(MASK)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if isinstance(value, float) else str(int(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False)


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default is PydanticUndefined:
        return "none"
    return f"`{_toml(str(default) if isinstance(default, Path) else default)}`"
