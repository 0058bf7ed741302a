"""SQLAlchemy through flightsql-dbapi, in tests/clients/sqlalchemy/, against `k2 serve`."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

import pytest
from support_clients import PASSWORD, TOKEN, USER, House, program, required_or_skipped, sqlalchemy

URL = "datafusion+flightsql://{}127.0.0.1:{}?{}"
USER_URL = f"{USER}:{quote(PASSWORD)}@"


@pytest.fixture(scope="module")
def argv() -> list[str]:
    return required_or_skipped(sqlalchemy)


@pytest.fixture(scope="module")
def seen(argv: list[str], client_house: House) -> dict[str, Any]:
    """What the program saw, by step."""
    url = URL.format("", client_house.open.port, "insecure=true")
    return {line["step"]: line["value"] for line in program("sqlalchemy", [*argv, "all", url])}


@pytest.fixture(scope="module")
def logins(argv: list[str], client_house: House) -> list[Any]:
    plain, tls = client_house.users.port, client_house.tls.port
    urls = [
        URL.format(USER_URL, plain, "insecure=true"),
        URL.format("", plain, f"insecure=true&token={TOKEN}"),
        URL.format(USER_URL, tls, ""),
        URL.format("", plain, "insecure=true"),
    ]
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(client_house.authority)}
    lines = program("sqlalchemy", [*argv, "connect", *urls], **trusted)
    return [line["value"] for line in lines]


@pytest.mark.feature("SQLAlchemy", "user and password")
def test_user_and_password(logins: list[Any]) -> None:
    assert logins[0] == [{"answer": 42}]
    assert "credentials are needed" in logins[3]["error"]


@pytest.mark.feature("SQLAlchemy", "token")
def test_a_token(logins: list[Any]) -> None:
    assert logins[1] == [{"answer": 42}]


@pytest.mark.feature("SQLAlchemy", "TLS")
def test_tls(logins: list[Any]) -> None:
    assert logins[2] == [{"answer": 42}]


@pytest.mark.feature("SQLAlchemy", "queries")
def test_queries(seen: dict[str, Any]) -> None:
    assert [row["n"] for row in seen["query"]] == [1, 2, 3, 4, 5]
    assert seen["query"][1]["label"] == "two"
    assert seen["empty"] == []
    assert seen["selected"] == [{"n": 4}, {"n": 2}]  # SQLAlchemy's own SQL, over a reflected table


@pytest.mark.feature("SQLAlchemy", "parameters")
def test_parameters_are_written_into_the_statement(seen: dict[str, Any]) -> None:
    """The DBAPI below prepares, and goes on with the handle that its binding replaced."""
    assert seen["parameters"] == [{"n": 5}]
    assert "use the handle that its answer holds" in seen["prepared"]["error"]


@pytest.mark.feature("SQLAlchemy", "numbers, text, binary")
def test_plain_types(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert (row["id"], row["yes"], row["small"], row["big"]) == (1, True, -7, 2**62)
    assert (row["real"], row["double"], row["text"]) == (0.5, -1.25e300, "täxt ✓")
    assert (row["bytes"], row["four"]) == ("00ff", "61626364")


@pytest.mark.feature("SQLAlchemy", "decimals")
def test_decimals(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert row["price"] == "12345678901234.5678"
    assert row["wide"] == "-1234567890123456789012345678.9012345678"


@pytest.mark.feature("SQLAlchemy", "dates and timestamps")
def test_dates_and_timestamps(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert (row["day"], row["clock"]) == ("2024-02-29 00:00:00", "12:30:15.123456")
    assert row["at"] == "2024-02-29 12:30:15.123456"
    assert row["at_utc"] == "2024-02-29 12:30:15.123456+00:00"


@pytest.mark.feature("SQLAlchemy", "lists, maps, structs")
def test_nested_types(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert row["list"] == [1, None, 3]
    assert row["map"] == [["a", 1], ["b", None]]
    assert row["struct"] == {"x": 1, "y": "one"}


@pytest.mark.feature("SQLAlchemy", "nulls")
def test_nulls(seen: dict[str, Any]) -> None:
    """The client reads through pandas: None, NaN or NaT."""
    row = {name: value for name, value in seen["types"][1].items() if name != "id"}
    assert len(row) == 17
    for value in row.values():
        assert value in (None, "NaT") or math.isnan(value)


@pytest.mark.feature("SQLAlchemy", "errors")
def test_errors(seen: dict[str, Any]) -> None:
    assert seen["nothing"]["error"].startswith("ArrowKeyError: there is no table demo.nothing")
    assert seen["syntax"]["error"].startswith("ArrowInvalid: syntax error at line 1, column 1")


@pytest.mark.feature("SQLAlchemy", "catalogs and schemas")
def test_schemas(seen: dict[str, Any]) -> None:
    assert seen["schemas"] == ["demo", "information_schema", "market_data", "system"]


@pytest.mark.feature("SQLAlchemy", "tables")
def test_tables(seen: dict[str, Any]) -> None:
    assert seen["tables"] == ["numbers", "types"]


@pytest.mark.feature("SQLAlchemy", "columns")
def test_columns(seen: dict[str, Any]) -> None:
    found = [(column["name"], column["type"], column["nullable"]) for column in seen["columns"]]
    assert found == [("n", "BIGINT", False), ("label", "TEXT", True)]


@pytest.mark.feature("SQLAlchemy", "keys")
def test_keys(seen: dict[str, Any]) -> None:
    assert seen["keys"] == {"constrained_columns": [], "name": None}


@pytest.mark.feature("SQLAlchemy", "server info")
def test_server_info(seen: dict[str, Any]) -> None:
    assert seen["info"] == ["K2 Flight", '"']
