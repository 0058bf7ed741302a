"""How often a statement is executed for the parameters that are bound."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_server.params import sets
from flight_server.protocol.errors import InvalidArgument


def test_a_statement_is_executed_once_per_row_of_parameters() -> None:
    assert sets(None, 3) == 1
    assert sets(pa.record_batch({"a": [1, 2, 3]}), 3) == 3


@pytest.mark.parametrize("rows", [0, 4])
def test_the_rows_of_parameters_are_bounded(rows: int) -> None:
    """None at all is a mistake; more than the setting would hold a slot for ever."""
    with pytest.raises(InvalidArgument, match=f"{rows} sets .* 1 to 3"):
        sets(pa.record_batch({"a": pa.array(range(rows), pa.int64())}), 3)
