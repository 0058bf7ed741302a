"""What lies under a null struct is null, however deep and however sliced."""

from __future__ import annotations

import pyarrow as pa
import pytest

from catalog.structs import masked

INNER = pa.struct([pa.field("p", pa.int32()), pa.field("q", pa.string(), nullable=False)])
#: Built by pyarrow, which puts zeros and empty texts under its nulls.
VALUES = [{"p": 1, "q": "a"}, None, {"p": None, "q": "b"}, None]


def under(column: pa.Array) -> list[list[object]]:
    """The values of a struct's fields, whether the struct is there or not."""
    return [column.field(at).to_pylist() for at in range(column.type.num_fields)]


def test_the_builder_hides_values_under_nulls() -> None:
    """Without this there would be nothing to do."""
    assert under(pa.array(VALUES, INNER)) == [[1, 0, None, 0], ["a", "", "b", ""]]


@pytest.mark.parametrize(("first", "count"), [(0, 4), (1, 3), (1, 2), (2, 0)])
def test_fields_of_a_null_struct_are_null(first: int, count: int) -> None:
    batch = pa.record_batch({"s": pa.array(VALUES, INNER)}).slice(first, count)
    made = masked(batch)
    made.validate(full=True)
    assert made.equals(batch)
    wanted = VALUES[first : first + count]
    assert under(made["s"]) == [[v and v[name] for v in wanted] for name in ("p", "q")]


@pytest.mark.parametrize(("first", "count"), [(0, 3), (1, 2), (0, 1)])
def test_structs_in_lists_maps_and_structs_are_masked(first: int, count: int) -> None:
    kinds = {
        "list": (pa.list_(INNER), [VALUES, None, [None, VALUES[0]]]),
        "map": (
            pa.map_(pa.string(), INNER),
            [[("k", None)], None, [("k", None), ("l", VALUES[0])]],
        ),
        "deep": (pa.struct([pa.field("in", INNER)]), [{"in": None}, None, {"in": VALUES[0]}]),
    }
    columns = {name: pa.array(values, kind) for name, (kind, values) in kinds.items()}
    batch = pa.record_batch(columns).slice(first, count)
    made = masked(batch)
    made.validate(full=True)
    assert made.to_pylist() == batch.to_pylist()
    inner = (made["list"].values, made["map"].items, made["deep"].field(0))
    assert all(value in {None, 1} for each in inner for value in under(each)[0])


def test_rows_without_structs_are_left_alone() -> None:
    batch = pa.record_batch({"n": [1, None], "l": [[1], None]})
    assert masked(batch) is batch
