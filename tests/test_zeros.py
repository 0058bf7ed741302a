"""0.0 and -0.0 are one number, wherever a statement compares and however rows are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from support_engine import FolderTables

from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.spec import TableName
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import Unimplemented

SCHEMA = pa.schema([("n", pa.int64()), ("f", pa.float64()), ("g", pa.float32())])
#: Files with one zero, with both, and with one beside other numbers.
FILES = ([-0.0], [0.0], [-0.0, 0.0], [-1.0, -0.0], [0.0, 1.0], [5.5, None, 1.0, -1.0])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlCatalog, Engine, Path]]:
    folder = tmp_path_factory.mktemp("zeros")
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/lake",
    }
    catalog = SqlCatalog("lake", **properties)
    catalog.create_namespace("demo")
    with closing(catalog), closing(Lake.open("lake", properties)) as lake:
        tables = Tables(lake, LiveReader(folder / "live"), [], refresh_ms=0)
        with closing(Engine(tables, lake, Limits(spill_folder=folder / "spill"))) as engine:
            table = catalog.create_table("demo.zeros", SCHEMA)
            paths = []
            for number, values in enumerate(FILES):
                numbers = range(10 * number, 10 * number + len(values))
                rows = pa.table({"n": numbers, "f": values, "g": values}, schema=SCHEMA)
                paths.append(folder / f"{number}.parquet")
                pq.write_table(rows, paths[-1], write_page_index=True)
            table.add_files([f"file://{path}" for path in paths])
            yield catalog, engine, folder


def ask(engine: Engine, where: str, values: pa.RecordBatch | None = None) -> list[int]:
    """The rows' numbers."""
    statement = Statement(f"select n from zeros where {where}", values)
    with engine.stream(engine.plan(statement, Options(schema="demo"))) as stream:
        return sorted(stream.read_all().column(0).to_pylist())


def having(*numbers: float) -> list[int]:
    """Rows that hold one of these numbers, by IEEE 754, as Python compares."""
    held = {10 * at + n: v for at, each in enumerate(FILES) for n, v in enumerate(each)}
    return [n for n, value in held.items() if value in numbers]


ZERO, OTHERS = having(0.0), having(1.0, -1.0, 5.5)


@pytest.mark.parametrize("column", ["f", "g", "f + g", "round(f)"])
@pytest.mark.parametrize("zero", ["0", "0.0", "-0.0", "0e0", "-0e0", "cast('-0.0' as double)"])
def test_both_zeros_are_one_number(
    places: tuple[SqlCatalog, Engine, Path], column: str, zero: str
) -> None:
    engine = places[1]
    for where, wanted in (
        (f"{column} = {zero}", ZERO),
        (f"{column} <> {zero}", OTHERS),
        (f"{column} < {zero}", having(-1.0)),
        (f"{column} >= {zero}", sorted(ZERO + having(1.0, 5.5))),
        (f"{column} between {zero} and {zero}", ZERO),
        (f"{column} in ({zero})", ZERO),
        (f"{column} in ({zero}, 77e0)", ZERO),
        (f"{column} in (71, 72, {zero}, 74)", ZERO),
        (f"{column} in (71e0, 72e0, {zero}, 74e0)", ZERO),
        (f"{column} not in ({zero}, 77e0)", OTHERS),
        (f"{column} not in ({zero}, 72e0, 73e0, 74e0, 75e0)", OTHERS),
        (" or ".join(f"{column} = {each}" for each in (zero, *"789", "71e0")), ZERO),
        (" and ".join(f"{column} <> {each}" for each in ("71e0", *"789", zero)), OTHERS),
    ):
        assert ask(engine, where) == wanted, where


def test_lists_of_other_types_stay_as_they_are(places: tuple[SqlCatalog, Engine, Path]) -> None:
    """Beside a list of floating numbers: one double would make doubles of them all."""
    engine = places[1]
    big = 2**53
    where = f"f in (0, 2, 3, 4) and n + {big} in (0, 1, {big}, {big + 10}, {big + 32})"
    assert ask(engine, where) == [0, 10]  # doubles could not tell 31 from 32


def test_lists_in_expressions_with_a_name_of_the_engine(
    places: tuple[SqlCatalog, Engine, Path],
) -> None:
    text = "select count(case when g in (71e0, 72e0, 0e0, 71e0) then n end) from zeros"
    with places[1].stream(places[1].plan(Statement(text), Options(schema="demo"))) as stream:
        assert stream.read_all().column(0).to_pylist() == [len(ZERO)]


def test_zeros_in_parameters_of_expressions_with_a_name(
    places: tuple[SqlCatalog, Engine, Path],
) -> None:
    """The name shows the list, too, as it is written."""
    values = pa.RecordBatch.from_pydict({str(n): [float(n)] for n in range(5)})
    text = "select sum(n) filter (where f in (?, ?, ?, cast(? as double), ?)) as s from zeros"
    statement = Statement(text, values)
    with places[1].stream(places[1].plan(statement, Options(schema="demo"))) as stream:
        assert stream.read_all()["s"].to_pylist() == [sum(having(0.0, 1.0))]


def test_zeros_in_parameters(places: tuple[SqlCatalog, Engine, Path]) -> None:
    values = pa.RecordBatch.from_pydict({str(n): [float(n)] for n in range(5)})
    assert ask(places[1], "f in (?, ?, ?, ?, ?)", values) == having(0.0, 1.0)


def test_a_list_without_a_zero_gets_none(places: tuple[SqlCatalog, Engine, Path]) -> None:
    """Only what is bound tells a list with a zero from another one of the statement."""
    numbers = [0.0, 71.0, 72.0, 73.0, -1.0, 77.0, 78.0, 79.0]
    values = pa.RecordBatch.from_pydict({str(n): [each] for n, each in enumerate(numbers)})
    where = "f + g not in ($1, $2, $3, $4) {} n + f in ($5, $6, $7, $8)"
    assert ask(places[1], where.format("and"), values) == []
    assert ask(places[1], where.format("or"), values) == OTHERS
    where = "f in ($5, $6, $7, $8) or f in (select f from zeros where f in ($1, $2, $3, $4))"
    assert ask(places[1], where, values) == sorted(ZERO + having(-1.0))


@pytest.mark.parametrize("first", [0.0, 5.5])
def test_sets_of_parameters_have_their_zeros_in_the_same_lists(
    places: tuple[SqlCatalog, Engine, Path], first: float
) -> None:
    text = "f in (?, ?, ?, ?) and n >= 0"
    sets = {"a": [first, 5.5 - first], "b": [1.0, 1.0], "c": [70.0, 71.0], "d": [72.0, 73.0]}
    with pytest.raises(Unimplemented, match="one set of values at a time"):
        ask(places[1], text, pa.RecordBatch.from_pydict(sets))
    sets["a"] = [first, first]
    wanted = sorted(2 * having(first, 1.0))
    assert ask(places[1], text, pa.RecordBatch.from_pydict(sets)) == wanted


def test_what_cannot_be_reached_is_refused(places: tuple[SqlCatalog, Engine, Path]) -> None:
    where = "f in (1 - 1, 72, 73, 74)"
    with pytest.raises(Unimplemented, match=r"write x IN \(0\.0, …\) with the numbers themselves"):
        ask(places[1], where)


@pytest.mark.parametrize(
    ("where", "added"),
    [("f in (7, 8, 9, 10)", False), ("n in (0, 1, 2, 3)", False), ("f in (0, 1, 2, 3)", True)],
)
def test_only_lists_with_a_zero_get_another(
    places: tuple[SqlCatalog, Engine, Path], where: str, *, added: bool
) -> None:
    statement = Statement(f"explain select n from zeros where {where}")
    with places[1].stream(places[1].plan(statement, Options(schema="demo"))) as stream:
        assert ("(-0)" in str(stream.read_all().to_pylist())) is added


def test_a_list_that_only_scans_keep_is_no_list(places: tuple[SqlCatalog, Engine, Path]) -> None:
    """Few values become comparisons, but a scan is told of the list, too, beside a cast."""
    for column in ("f", "g"):
        where = f"{column} not in (cast('0.0' as double), 71e0, 5.5e0) and {column} <= 5.5e0"
        assert ask(places[1], where) == having(1.0, -1.0)


@pytest.mark.parametrize("column", ["f", "g"])
@pytest.mark.parametrize("zero", ["0.0", "-0.0", "0"])
def test_bloom_filters_do_not_tell_them_apart(tmp_path: Path, column: str, zero: str) -> None:
    """They are asked by the bits of a number, which a file without NaN lets the engine do."""
    kept = FolderTables(tmp_path)
    values = [0.5, -1.0, -0.0, 0.0, 2.5]
    halves = [slice(0, 3), slice(3, 5)]
    rows = [pa.table({"f": values[half], "g": values[half]}, SCHEMA.remove(0)) for half in halves]
    kept.publish(TableName("demo", "zeros"), rows, blooms=["f", "g"])
    kept.publish(TableName("demo", "few"), [pa.table({"k": [float(zero), 77.0]})])
    real = f"cast({zero} as real)"
    with closing(Engine(kept, kept, Limits(spill_folder=tmp_path / "spill"))) as engine:
        for where in (f"{column} = {zero}", f"{column} = {real}", f"{column} in ({zero}, 77)"):
            assert found(engine, f"select {column} from zeros where {where}") == [0.0, 0.0]
        for text in (
            f"select {column} from zeros where {column} in ({real}, 77, 78) and {column} < 5",
            f"select {column} from zeros join few on {column} = k",
            f"select {column} from zeros where {column} in (select k from few)",
            f"select {column} from zeros where {column} = (select min(k) from few)",
            f"select {column} from zeros join few on {column} = k + 0.0 where k < 1",
        ):
            assert found(engine, text) == [0.0, 0.0]
        text = f"select {column} from zeros where {column} = $1"
        for values in ([float(zero)], [4.0, float(zero)]):
            assert found(engine, text, pa.RecordBatch.from_pydict({"$1": values})) == [0.0, 0.0]
        joined = f"select (select count(*) from zeros join few on {column} = k) as n"
        assert found(engine, joined) == [2]
        hidden = f"select (select count({column}) from zeros where {column} = {zero}) as n"
        assert found(engine, hidden) == [2]


@pytest.mark.parametrize(
    "where", ["f = n", "f = n * 2", "f in (n, 3)", "f between n and n", "f = n or f = 77"]
)
def test_a_column_that_is_zero_throughout_a_file_is_no_literal(tmp_path: Path, where: str) -> None:
    """The engine puts what a file says of it in its place, and asks the Bloom filter."""
    kept = FolderTables(tmp_path)
    files = [([-0.0, -0.0], [0, 0]), ([0.0, 1.0], [0, 0]), ([-0.0, 5.0, -3.0], [0, 0, 7])]
    rows = [pa.table({"f": f, "n": pa.array(n, pa.int64())}) for f, n in files]
    kept.publish(TableName("demo", "zeros"), rows, blooms=["f"])
    with closing(Engine(kept, kept, Limits(spill_folder=tmp_path / "spill"))) as engine:
        assert found(engine, f"select count(*) from zeros where {where}") == [4]


def test_a_text_that_looks_like_a_join_is_none(places: tuple[SqlCatalog, Engine, Path]) -> None:
    text = "select count(*) from zeros where cast(n as varchar) <> 'Inner Join: a = b'"
    assert found(places[1], text) == [sum(map(len, FILES))]


def found(engine: Engine, text: str, values: pa.RecordBatch | None = None) -> list[float]:
    with engine.stream(engine.plan(Statement(text, values), Options(schema="demo"))) as stream:
        return list(stream.read_all().column(0).to_pylist())
