"""A process's own folder for spilled data, removed with the process, or by the next one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flight_server.layers import ConfigRefused

_OURS = re.compile(r"k2-(\d+)-\w+\Z")


@contextmanager
def spill_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``; those that ended processes left there are removed first.

    Raises:
        ConfigRefused: ``parent`` cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in _left_behind(parent):
            shutil.rmtree(left, ignore_errors=True)  # another start may remove it at the same time
        own = Path(tempfile.mkdtemp(prefix=f"k2-{os.getpid()}-", dir=parent))
    except OSError as error:
        raise ConfigRefused(
            f"limits.spill_folder: {parent} cannot be written ({error.strerror})"
        ) from error
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)  # the engine removes its files when it is dropped


def _left_behind(parent: Path) -> list[Path]:
    return [
        path
        for path in parent.iterdir()
        if (match := _OURS.match(path.name)) and not _alive(int(match[1]))
    ]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
