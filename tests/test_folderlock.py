import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import LiveFolderInUse
from catalog.folderlock import FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from catalog.folderlock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_ingest_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    """Rule 11: one ingest per live folder, also within one process."""
    with FolderLock(tmp_path / "live"), pytest.raises(LiveFolderInUse, match=str(os.getpid())):
        FolderLock(tmp_path / "live").__enter__()
    with FolderLock(tmp_path / "live"):
        pass


def test_a_killed_ingest_gives_the_folder_back(tmp_path: Path) -> None:
    """Rule 11: the lock ends with the process, however it ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(LiveFolderInUse, match=f"process {holder.pid}\\)") as refused:
                FolderLock(tmp_path).__enter__()
            assert str(tmp_path) not in str(refused.value)
            holder.send_signal(signal.SIGSTOP)  # a stopped holder is a holder still
            with pytest.raises(LiveFolderInUse):
                FolderLock(tmp_path).__enter__()
        finally:
            holder.kill()
    with FolderLock(tmp_path):
        assert (tmp_path / "ingest.lock").read_text() == f"{os.getpid()}\n"


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with lock:
        lock.close()
    lock.close()
