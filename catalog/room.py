"""Room in the live folder: what a full disk means, and a little that is kept back to say so."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from catalog.errors import LiveFolderFull

if TYPE_CHECKING:
    from pathlib import Path

#: No space, no quota left, or a file larger than the process may write.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
RESERVE_FILE = "reserve"
#: Room for a manifest of some thousand parts of segments.
RESERVE_BYTES = 512 * 1024


@contextmanager
def room_for(file: Path) -> Iterator[None]:
    """Inside the block ``file`` is written anew; if there is no room, what was written goes.

    Raises:
        LiveFolderFull: the disk, the quota or the largest file size is used up.
        OSError: it cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        file.unlink(missing_ok=True)
        raise LiveFolderFull(
            f"the live folder has no room ({error.strerror}): free some there, or lower "
            "live.max_bytes; reading waits and goes on by itself"
        ) from error


class Reserve:
    """Bytes kept on the disk for the manifest that says that it is full.

    Without them a disk filled by the live table itself would stay full: its segments go only after
    a manifest that no longer lists them (rule 14). Belongs to whoever publishes.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / RESERVE_FILE
        self.keep()

    def write(self, file: Path, text: bytes) -> None:
        """Writes a file anew, in the place of the reserve if need be.

        Raises:
            LiveFolderFull: there is no room even so.
        """
        try:
            with room_for(file):
                file.write_bytes(text)
        except LiveFolderFull:
            if not self.spend():
                raise
            with room_for(file):
                file.write_bytes(text)

    def keep(self) -> None:
        """Sets the bytes aside again where there is room."""
        if self._file.exists():
            return
        try:
            with room_for(self._file):
                self._file.write_bytes(bytes(RESERVE_BYTES))
        except LiveFolderFull:
            return

    def spend(self) -> bool:
        """Gives the bytes back; whether there were any."""
        there = self._file.exists()
        self._file.unlink(missing_ok=True)
        return there
