"""The tables and queries of TPC-H: made by tpchgen, kept as Iceberg tables, asked as plain SQL."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

#: Comes with requirements.lock.
GENERATOR = Path(sys.executable).with_name("tpchgen-cli")
TABLES = (
    *("customer", "lineitem", "nation", "orders"),
    *("part", "partsupp", "region", "supplier"),
)
#: Places of the tables' own decimals: sums of them are exact.
_MONEY = 2
#: Rows of a data file: lineitem has six files at scale factor 1.
_FILE_ROWS = 1_000_000


def queries() -> list[str]:
    """The 22 queries, over unqualified names."""
    text = Path(__file__).with_name("tpch.sql").read_text()
    parts = re.split(r"^-- \d+$", text, flags=re.MULTILINE)[1:]
    return [part.strip().removesuffix(";") for part in parts]


def make(folder: Path, scale: float, namespace: str) -> dict[str, Path]:
    """Fills a SQL catalog ``lake`` in ``folder`` (``catalog.db`` and ``lake/``).

    Args:
        folder: may hold other tables of that catalog already.
        scale: TPC-H's scale factor; 1 is 6 M rows of lineitem.
        namespace: of the tables.

    Returns:
        Per table the folder that holds its data files and nothing else.

    Raises:
        subprocess.CalledProcessError: the generator failed.
    """
    raw = folder / "tpch-raw"
    command = [str(GENERATOR), "parquet", "-s", str(scale), "--output-dir", str(raw)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    warehouse, database = f"file://{folder}/lake", f"sqlite:///{folder}/catalog.db"
    found = {}
    with closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        catalog.create_namespace(namespace)
        for name in TABLES:
            rows = pq.read_table(raw / f"{name}.parquet")
            rows = rows.cast(_plain(rows.schema))
            table = catalog.create_table(f"{namespace}.{name}", rows.schema)
            for first in range(0, rows.num_rows, _FILE_ROWS):
                table.append(rows.slice(first, _FILE_ROWS))
            found[name] = Path(table.location().removeprefix("file://")) / "data"
    return found


def _plain(schema: pa.Schema) -> pa.Schema:
    """The generator's strings are views, which Iceberg's writer does not know."""
    views = {pa.string_view(): pa.string()}
    return pa.schema([field.with_type(views.get(field.type, field.type)) for field in schema])


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two answers agree, number by number.

    Engines type sums, averages and extracts differently: numbers may differ by 10⁻⁹ of themselves,
    and decimals by one in their last place (an average is cut there).
    """
    left, right = _values(one), _values(other)
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_equal, a, b)) for a, b in zip(left, right, strict=True)
    )


def _values(table: pa.Table) -> list[tuple[object, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return one == other
    try:
        left, right = float(one), float(other)  # type: ignore[arg-type]  # dates are no numbers
    except TypeError:
        return one == other
    places = [-int(n.as_tuple().exponent) for n in (one, other) if isinstance(n, Decimal)]
    last = 10.0 ** -min(places) if places and min(places) > _MONEY else 0.0
    return abs(left - right) <= max(last, 1e-9 * max(abs(left), abs(right)))
