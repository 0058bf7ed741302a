"""The exact versions that K2 Flight was proven with, and the refusal of others."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType

from flight_server.layers import ConfigRefused

#: Their ABIs and private interfaces are relied on (pyproject.toml pins the same; a test compares).
PINNED: Mapping[str, str] = MappingProxyType(
    {
        "pyarrow": "26.0.1",
        "pyiceberg": "0.12.0",
        "pyiceberg-core": "0.11.0",
        "datafusion": "55.0.0",
        "confluent-kafka": "2.16.1",
    }
)
_DISTRIBUTION = "k2-flight"


class WrongVersions(ConfigRefused):
    """Libraries of other versions are installed than K2 Flight was proven with."""


def installed(package: str) -> str | None:
    """The version of an installed distribution, None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def wrong_versions(found: Mapping[str, str | None]) -> list[str]:
    """One sentence per package that is missing or of another version."""
    return [
        f"{package} {found.get(package) or 'is not installed'}"
        f"{' is installed' if found.get(package) else ''}, but {wanted} is needed: "
        f"pip install '{package}=={wanted}'"
        for package, wanted in PINNED.items()
        if found.get(package) != wanted
    ]


def check_versions() -> None:
    """Refuses to start on anything but the pinned versions; imports none of them.

    Raises:
        WrongVersions: names package, found, wanted and the remedy.
    """
    wrong = wrong_versions({package: installed(package) for package in PINNED})
    if wrong:
        raise WrongVersions("\n".join(wrong))


def versions() -> dict[str, str]:
    """What `k2 version` shows."""
    shown = {
        _DISTRIBUTION: installed(_DISTRIBUTION) or "unknown",
        "python": platform.python_version(),
    }
    return shown | {package: installed(package) or "missing" for package in PINNED}
