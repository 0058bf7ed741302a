"""The stock npm client, in tests/clients/npm/client.mjs, against `k2 serve`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support_clients import PASSWORD, TOKEN, USER, House, npm, program, required_or_skipped


@pytest.fixture(scope="module")
def argv() -> list[str]:
    return required_or_skipped(npm)


@pytest.fixture(scope="module")
def seen(argv: list[str], client_house: House) -> dict[str, Any]:
    """What the program saw, by step."""
    lines = program("npm", [*argv, "all", "127.0.0.1", str(client_house.open.port)])
    return {line["step"]: line["value"] for line in lines}


def login(argv: list[str], port: int, **options: object) -> Any:
    given = {"headers": [], "tls": False, "host": "127.0.0.1", "port": port, **options}
    (line,) = program("npm", [*argv, "connect", json.dumps(given)])
    return line["value"]


@pytest.mark.feature("npm", "user and password")
def test_user_and_password(argv: list[str], client_house: House) -> None:
    """A wrong password makes the client panic: it hangs, whatever the server answers."""
    port = client_house.users.port
    assert login(argv, port, username=USER, password=PASSWORD) == [{"answer": 42}]


@pytest.mark.feature("npm", "token")
def test_a_token(argv: list[str], client_house: House) -> None:
    port = client_house.users.port
    assert login(argv, port, token=TOKEN) == [{"answer": 42}]
    assert login(argv, port, token="wrong") == FAILED  # noqa: S106 - wrong on purpose
    assert login(argv, port) == FAILED


#: All that the client says of an error: the server's words are lost in it.
FAILED = {"error": "failed to prepare statement"}


def test_errors_lose_their_words_in_the_client(seen: dict[str, Any]) -> None:
    """When this fails the client has learnt to say more: the page's footnote should go."""
    assert (seen["nothing"], seen["syntax"]) == (FAILED, FAILED)


@pytest.mark.feature("npm", "queries")
def test_queries(seen: dict[str, Any]) -> None:
    labels = ["one", "two", None, "four", "five"]
    assert seen["query"] == [{"n": n, "label": label} for n, label in enumerate(labels, start=1)]
    assert seen["empty"] == []


@pytest.mark.feature("npm", "numbers, text, binary")
def test_plain_types(seen: dict[str, Any]) -> None:
    assert seen["types"][0] == {
        "id": 1,
        "yes": True,
        "small": -7,
        "big": str(2**62),
        "real": 0.5,
        "double": -1.25e300,
        "text": "täxt ✓",
        "bytes": "00ff",
        "four": "61626364",
    }


@pytest.mark.feature("npm", "nulls")
def test_nulls(seen: dict[str, Any]) -> None:
    assert {value for name, value in seen["types"][1].items() if name != "id"} == {None}
    assert seen["list"][1] == {"list": None}


@pytest.mark.feature("npm", "decimals")
def test_decimals(seen: dict[str, Any]) -> None:
    assert seen["price"][0] == {"price": "123456789012345678"}
    assert seen["wide"][0] == {"wide": "-12345678901234567890123456789012345678"}


@pytest.mark.feature("npm", "dates and timestamps")
def test_dates_and_timestamps(seen: dict[str, Any]) -> None:
    assert seen["day"][0] == {"day": "2024-02-29T00:00:00.000Z"}
    assert seen["clock"][0] == {"clock": 45_015_123_456}  # microseconds
    assert seen["at"][0] == {"at": 1_709_209_815_123.456}  # milliseconds
    assert seen["at_utc"][0] == {"at_utc": 1_709_209_815_123.456}


@pytest.mark.feature("npm", "lists, maps, structs")
def test_nested_types(seen: dict[str, Any]) -> None:
    assert seen["list"][0] == {"list": [1, None, 3]}
    assert seen["map"][0] == {"map": {"a": 1, "b": None}}
    assert seen["struct"][0] == {"struct": {"x": 1, "y": "one"}}


@pytest.mark.feature("npm", "catalogs and schemas")
def test_catalogs_and_schemas(seen: dict[str, Any]) -> None:
    assert seen["catalogs"] == [{"catalog_name": "lake"}]
    assert seen["schemas"] == [{"catalog_name": "lake", "db_schema_name": "demo"}]


@pytest.mark.feature("npm", "tables")
def test_tables(seen: dict[str, Any]) -> None:
    assert [row["table_name"] for row in seen["tables"]] == ["numbers", "types"]
    assert "table_schema" not in seen["tables"][0]


@pytest.mark.feature("npm", "columns")
def test_columns(seen: dict[str, Any]) -> None:
    """The columns come as a serialized Arrow schema."""
    (numbers,) = seen["columns"]
    assert bytes.fromhex(numbers["table_schema"]).startswith(b"\xff\xff\xff\xff")
    assert b"label".hex() in numbers["table_schema"]
