import contextlib
import os
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.ipcfile import ALIGNMENT, map_file, write_file

VALUES: dict[pa.DataType, object] = {
    pa.string(): "text",
    pa.binary(): b"bytes",
    pa.binary(5): b"fixed",
    pa.bool_(): True,
    pa.int32(): -5,
    pa.int64(): 2**40,
    pa.float32(): 0.5,
    pa.float64(): 0.25,
    pa.decimal128(38, 10): Decimal("1.5"),
    pa.date32(): datetime(2024, 1, 1, tzinfo=UTC).date(),
    pa.time64("us"): datetime(2024, 1, 1, 1, 2, 3, tzinfo=UTC).time(),
    pa.timestamp("us", tz="UTC"): datetime(2024, 1, 1, tzinfo=UTC),
    pa.list_(pa.field("element", pa.string())): ["a", None, "ccc"],
    pa.map_(pa.string(), pa.int64()): [("k", 1)],
    pa.struct([pa.field("a", pa.int32()), pa.field("b", pa.list_(pa.float64()))]): {
        "a": 1,
        "b": [],
    },
}


def addresses(array: pa.Array) -> list[int]:
    return [b.address for b in array.buffers() if b is not None and b.size]


def is_aligned(batch: pa.RecordBatch) -> bool:
    return all(a % ALIGNMENT == 0 for column in batch.columns for a in addresses(column))


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """A batch of any plain types with nulls, possibly a slice of a longer one."""
    rows = draw(st.integers(0, 70))
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6))
    columns = []
    for kind in kinds:
        present = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
        columns.append(pa.array([VALUES[kind] if p else None for p in present], kind))
    batch = pa.RecordBatch.from_arrays(columns, [f"c{i}" for i in range(len(kinds))])
    first = draw(st.integers(0, rows))
    return batch.slice(first, draw(st.integers(0, rows - first)))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=60,
    deadline=None,
    derandomize=True,
)
@given(batch=batches())
def test_any_batch_comes_back_as_it_was_with_aligned_buffers(
    batch: pa.RecordBatch, tmp_path: Path
) -> None:
    path = tmp_path / f"{time.perf_counter_ns()}"
    size = write_file(batch, path)
    assert size == path.stat().st_size
    back = map_file(path, size)
    back.validate(full=True)
    assert back.equals(batch)
    assert back.schema.equals(batch.schema, check_metadata=True)
    assert is_aligned(back)


def test_pyarrows_own_writer_does_not_align(tmp_path: Path) -> None:
    """The reason for this module: when this fails, it can go."""
    batch = pa.record_batch({f"c{i}": pa.array([1, 2, 3]) for i in range(8)})
    with pa.ipc.new_file(str(tmp_path / "plain"), batch.schema) as writer:
        writer.write_batch(batch)
    assert not is_aligned(map_file(tmp_path / "plain", (tmp_path / "plain").stat().st_size))


def test_other_arrow_readers_read_the_file_and_its_stream(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": pa.array(["x", None, "zz"]), "b": pa.array([1, 2, 3])})
    write_file(batch, tmp_path / "file")
    with pa.OSFile(str(tmp_path / "file")) as file:
        assert pa.ipc.open_file(file).read_all().to_batches() == [batch]
    stream = (tmp_path / "file").read_bytes()[8:]
    assert pa.ipc.open_stream(stream).read_all().to_batches() == [batch]


def _open_inodes() -> set[int]:
    """What this process's descriptors stand for; other threads open and close some meanwhile."""
    found = set()
    for descriptor in list(Path("/dev/fd").iterdir()):
        with contextlib.suppress(OSError):
            found.add(os.fstat(int(descriptor.name)).st_ino)
    return found


def test_a_mapped_batch_outlives_its_file_and_holds_no_descriptor(tmp_path: Path) -> None:
    """Rule 17's ground: a mapped segment is answered after it was unlinked."""
    batch = pa.record_batch({"a": pa.array(range(100_000))})
    sizes = [write_file(batch, tmp_path / f"{i}") for i in range(20)]
    mapped = [map_file(tmp_path / f"{i}", size) for i, size in enumerate(sizes)]
    files = {(tmp_path / f"{i}").stat().st_ino for i in range(20)}
    assert not files & _open_inodes(), "a descriptor was left open"
    for i in range(20):
        (tmp_path / f"{i}").unlink()
    assert all(one.equals(batch) for one in mapped)


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": pa.array([1])})
    write_file(batch, tmp_path / "x")
    with pytest.raises(FileExistsError):
        write_file(batch, tmp_path / "x")


def test_a_file_of_another_size_or_content_is_refused(tmp_path: Path) -> None:
    size = write_file(pa.record_batch({"a": pa.array([1])}), tmp_path / "x")
    with pytest.raises(pa.ArrowInvalid, match="instead of"):
        map_file(tmp_path / "x", size + 1)
    (tmp_path / "y").write_bytes(bytes(size))
    with pytest.raises(pa.ArrowInvalid):
        map_file(tmp_path / "y", size)
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "z", size)


def test_dictionary_columns_are_refused(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": pa.array(["x"]).dictionary_encode()})
    with pytest.raises(ValueError, match="dictionary"):
        write_file(batch, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_other_threads_run_while_a_large_batch_is_written(tmp_path: Path) -> None:
    """A merge must not stall the consume loop: the work is done outside the GIL.

    Counted, not timed: a writer that held the lock would leave the other thread no turn at all.
    """
    batch = pa.record_batch({f"c{i}": pa.array(range(500_000)) for i in range(12)})
    turns, done = [0], threading.Event()

    def spin() -> None:
        while not done.is_set():
            turns[0] += 1
            time.sleep(0)

    other = threading.Thread(target=spin)
    other.start()
    try:
        before = turns[0]
        write_file(batch, tmp_path / "x")
        after = turns[0]
    finally:
        done.set()
        other.join()
    assert after - before > 10
