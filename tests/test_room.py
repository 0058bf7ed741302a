"""A full disk under the live folder: nothing torn is kept, and the next manifest gets out."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from support_live import at, manifest_of

from catalog.errors import LiveFolderFull
from catalog.room import FULL, RESERVE_BYTES, RESERVE_FILE, Reserve, room_for
from catalog.segments import LiveReader, LiveWriter, table_folder
from catalog.spec import TableName


def write_half(file: Path, failure: OSError) -> None:
    """Writes until the disk fails."""
    with room_for(file):
        file.write_bytes(b"half")
        raise failure


@pytest.mark.parametrize("number", sorted(FULL))
def test_what_there_was_no_room_for_goes_and_is_a_typed_error(number: int, tmp_path: Path) -> None:
    """Half a file takes room, and nobody will ever list it."""
    file = tmp_path / "half"
    with pytest.raises(LiveFolderFull, match=r"free some there, or lower live\.max_bytes") as full:
        write_half(file, OSError(number, "the disk's own words"))
    assert not file.exists()
    assert "the disk's own words" in str(full.value)
    assert str(tmp_path) not in str(full.value)


def test_another_failure_is_what_it_was(tmp_path: Path) -> None:
    """A broken disk is not a full one: no repetition mends it."""
    file = tmp_path / "half"
    with pytest.raises(OSError, match="broken"):
        write_half(file, OSError(errno.EIO, "broken"))
    assert file.exists()


def test_the_reserve_is_real_bytes_and_is_kept_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path)
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES
    assert reserve.spend()
    assert not reserve.spend()
    reserve.keep()
    assert reserve.spend()


class _Disk:
    """A disk whose last bytes are the reserve: writing succeeds once that is gone."""

    def __init__(self, reserve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        write = Path.write_bytes

        def write_bytes(file: Path, text: bytes) -> int:
            if reserve.exists() or file == reserve:
                self.refused += 1
                write(file, text[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, text)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_a_disk_filled_by_the_live_table_itself_gets_its_next_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 14: segments go only after the manifest without them, so there is room for that one."""
    name = TableName("market_data", "trades")
    writer = LiveWriter(tmp_path, name, 0.0)
    reserve = tmp_path / table_folder(name) / RESERVE_FILE
    with monkeypatch.context() as patch:
        disk = _Disk(reserve, patch)
        writer.publish(manifest_of([], at(0), at(5), sequence=1))
        assert disk.refused == 1
        writer.trim((), 0.0)
        assert not reserve.exists()
    found = LiveReader(tmp_path).manifest(name)
    assert found is not None
    assert found.sequence == 1
    writer.trim((), 0.0)
    assert reserve.exists()
