"""The folder of local copies: made once, bounded, never taken from whoever reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from catalog.copies import Copies, Copy, Make
from catalog.errors import CopiesFull


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    with closing(Copies(tmp_path / "copies", max_bytes=100)) as made:
        yield made


def of_size(size: int, calls: list[Path] | None = None) -> Make:
    """Makes a file of so many bytes, and notes that it did."""

    def make(path: Path, room_bytes: int) -> Copy:
        assert room_bytes <= 100
        if calls is not None:
            calls.append(path)
        path.write_bytes(b"x" * size)
        return Copy(path, size, size)

    return make


def test_threads_that_want_one_file_make_it_once(copies: Copies) -> None:
    calls: list[Path] = []
    ready = threading.Barrier(8)
    seen: list[bytes] = []

    def want() -> None:
        ready.wait()
        with copies.hold("key", of_size(10, calls)) as copy:
            assert copy.path is not None
            seen.append(copy.path.read_bytes())

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"x" * 10] * 8
    assert len(calls) == 1


def test_the_longest_unused_goes_first_and_what_is_held_stays(copies: Copies) -> None:
    with copies.hold("a", of_size(40)) as held:
        for key in ("b", "c"):
            with copies.hold(key, of_size(30)):
                pass
        with copies.hold("b", of_size(30)):  # used again: "c" is the longest unused now
            pass
        with copies.hold("d", of_size(30)):
            assert copies.size_bytes == 100
        calls: list[Path] = []
        with copies.hold("b", of_size(30, calls)):
            assert not calls
        with copies.hold("c", of_size(30, calls)):
            assert len(calls) == 1
        assert held.path is not None
        assert held.path.exists()


def test_what_does_not_fit_is_refused_and_leaves_nothing(copies: Copies, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(copies.hold("a", of_size(60)))
        with pytest.raises(CopiesFull, match=r"limits\.copies_bytes"):
            stack.enter_context(copies.hold("b", of_size(50)))
        assert len(list((tmp_path / "copies").iterdir())) == 1
    with copies.hold("b", of_size(50)):  # nobody holds "a" any more
        assert copies.size_bytes == 50


def test_a_maker_that_fails_is_followed_by_the_next(copies: Copies, tmp_path: Path) -> None:
    def fails(path: Path, _: int) -> Copy:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CopiesFull, match="No space left"), copies.hold("a", fails):
        pass
    assert not list((tmp_path / "copies").iterdir())
    with copies.hold("a", of_size(10)) as copy:
        assert copy.rows == 10
