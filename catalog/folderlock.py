"""One ingest per live folder (rule 11)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from catalog.errors import LiveFolderInUse

#: The locked file; it stays when the lock goes, or two processes could lock two files.
LOCK_FILE = "ingest.lock"


class FolderLock:
    """Held from ``with`` to its end, or to the end of the process: the kernel releases it.

    The lock belongs to the open file, so it survives neither ``kill -9`` nor a crash, and the
    process id in the file is only there to name the holder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Takes the lock without waiting; makes the folder where it is missing.

        Raises:
            LiveFolderInUse: another process, or another lock of this one, holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise LiveFolderInUse(
                f"another ingest (process {holder}) owns the live folder: stop it, "
                f"or set live.folder to a folder of this ingest's own"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back; may be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
