"""Vended credentials: each table is read with its own, renewed before they end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import RestCatalog, S3Store
from pyiceberg.catalog import load_catalog
from support_vending import Vending, vending

from catalog.errors import CatalogError, LakeUnavailable
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.spec import TableName
from catalog.tables import Tables
from catalog.versions import Versions
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import FlightSqlError

ROWS = pa.table({"n": pa.array([1, 2, 3], pa.int64())})
#: What the catalog's own properties say of the store: no key.
_OPEN = ("s3.endpoint", "s3.region", "s3.path-style-access")


@pytest.fixture
def namespace(iceberg_rest: RestCatalog) -> str:
    """Two tables in one bucket."""
    made = iceberg_rest.unique_namespace()
    with closing(load_catalog("made", **iceberg_rest.properties)) as catalog:
        catalog.create_namespace(made)
        for name in ("mine", "theirs"):
            catalog.create_table((made, name), ROWS.schema).append(ROWS)
    return made


@contextmanager
def engine_over(site: Vending, s3: S3Store, folder: Path) -> Iterator[tuple[Engine, Lake]]:
    """An engine whose catalog knows no key of the store."""
    properties = {name: s3.properties[name] for name in _OPEN}
    lake = Lake.open("lake", {**properties, "type": "rest", "uri": site.uri}, timeout_s=10)
    made = Engine(Tables(lake, LiveReader(folder), [], refresh_ms=0), lake, Limits())
    try:
        yield made, lake
    finally:
        made.close()
        lake.close()


def keys(s3: S3Store, *, right: bool = True, left_s: float | None = None) -> dict[str, str]:
    """Vended keys of the store, or wrong ones; ``left_s``: how long they say that they are good."""
    vended = {
        "s3.access-key-id": s3.access_key,
        "s3.secret-access-key": s3.secret_key if right else "wrong",
    }
    if left_s is not None:
        vended["s3.session-token-expires-at-ms"] = str(int((time.time() + left_s) * 1000))
    return vended


def total(engine: Engine, namespace: str, table: str) -> int:
    plan = engine.plan(Statement(f"select sum(n) from {table}"), Options(schema=namespace))
    return int(engine.stream(plan).read_all()[0][0].as_py())


def test_tables_of_one_bucket_are_read_with_their_own_credentials(
    iceberg_rest: RestCatalog, s3: S3Store, namespace: str, tmp_path: Path
) -> None:
    """Neither can be read with the other's, whichever was read before."""
    with (
        vending(iceberg_rest.uri, lambda _: keys(s3)) as site,
        engine_over(site, s3, tmp_path) as (engine, _),
    ):
        assert total(engine, namespace, "theirs") == 6
        site.vend = lambda table: keys(s3, right=table == "mine")
        for _ in range(2):
            assert total(engine, namespace, "mine") == 6
            with pytest.raises((CatalogError, FlightSqlError), match="credentials"):
                total(engine, namespace, "theirs")


def test_credentials_are_renewed_before_they_end(
    iceberg_rest: RestCatalog, s3: S3Store, namespace: str, tmp_path: Path
) -> None:
    """What has ended is never used: it is asked for anew, also for a version pinned before."""
    with (
        vending(iceberg_rest.uri, lambda _: keys(s3, left_s=3600)) as site,
        engine_over(site, s3, tmp_path) as (engine, lake),
    ):
        plan = engine.plan(Statement("select sum(n) from mine"), Options(schema=namespace))
        name = TableName(namespace, "mine")
        loads = site.loads["mine"]
        assert lake.store_options(name, "s3://lake/x").secret_access_key == s3.secret_key
        assert site.loads["mine"] == loads  # good for long: nobody is asked
        site.vend = lambda _: keys(s3, right=False, left_s=-1)
        lake.head(name)
        site.vend = lambda _: keys(s3, left_s=3600)
        assert engine.stream(plan).read_all()[0][0].as_py() == 6
        assert site.loads["mine"] == loads + 2


def test_credentials_are_used_to_their_end_while_the_catalog_is_away(
    iceberg_rest: RestCatalog, s3: S3Store, namespace: str
) -> None:
    """A catalog that does not answer ends no statement whose credentials are still good."""
    name = TableName(namespace, "mine")
    vended: Mapping[str, str] = keys(s3, left_s=0.2)
    properties = {**iceberg_rest.properties, **vended}
    with closing(load_catalog("made", **properties)) as catalog:
        table = catalog.load_table((namespace, "mine"))

        def away(_: TableName) -> object:
            raise LakeUnavailable("the catalog is away")

        versions = Versions(away)  # type: ignore[arg-type] # it never returns
        versions.remember(name, table)
        end_s = int(vended["s3.session-token-expires-at-ms"]) / 1000
        asked, ended = 0, False
        while not ended and time.time() < end_s + 5:
            try:
                assert versions.store(name) is table.io
                asked += 1
            except LakeUnavailable:
                ended = True
        assert asked
        assert ended
        assert time.time() >= end_s
