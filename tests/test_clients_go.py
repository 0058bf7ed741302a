"""The stock database/sql driver of arrow-go, in tests/clients/go/main.go, against `k2 serve`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from support_clients import PASSWORD, TOKEN, USER, House, go, program, required_or_skipped


@pytest.fixture(scope="module")
def argv() -> list[str]:
    return required_or_skipped(go)


@pytest.fixture(scope="module")
def seen(argv: list[str], client_house: House) -> dict[str, Any]:
    """What the program saw, by step."""
    lines = program("go", [*argv, "all", f"flightsql://127.0.0.1:{client_house.open.port}"])
    return {line["step"]: line["value"] for line in lines}


def login(argv: list[str], house: House, dsn: str) -> Any:
    (line,) = program("go", [*argv, "connect", str(house.authority), f"flightsql://{dsn}"])
    return line["value"]


@pytest.mark.feature("Go", "user and password")
def test_user_and_password(argv: list[str], client_house: House) -> None:
    host = f"127.0.0.1:{client_house.users.port}"
    assert login(argv, client_house, f"{USER}:{quote(PASSWORD)}@{host}") == [{"answer": 42}]
    refused = login(argv, client_house, f"{USER}:wrong@{host}")["error"]
    assert "code = Unauthenticated" in refused
    assert "wrong user, password or token" in refused


@pytest.mark.feature("Go", "token")
def test_a_token(argv: list[str], client_house: House) -> None:
    dsn = f"127.0.0.1:{client_house.users.port}?token={TOKEN}"
    assert login(argv, client_house, dsn) == [{"answer": 42}]


@pytest.mark.feature("Go", "TLS")
def test_tls(argv: list[str], client_house: House) -> None:
    host = f"127.0.0.1:{client_house.tls.port}"
    user = f"{USER}:{quote(PASSWORD)}@"
    assert login(argv, client_house, f"{user}{host}?tls=trusted") == [{"answer": 42}]
    assert login(argv, client_house, f"{host}?tls=trusted&token={TOKEN}") == [{"answer": 42}]
    refused = login(argv, client_house, f"{host}?tls=true&token={TOKEN}")["error"]
    assert "unknown authority" in refused


@pytest.mark.feature("Go", "queries")
def test_queries(seen: dict[str, Any]) -> None:
    labels = ["one", "two", None, "four", "five"]
    assert seen["query"] == [{"n": n, "label": label} for n, label in enumerate(labels, start=1)]
    assert seen["empty"] == []


@pytest.mark.feature("Go", "parameters")
def test_parameters(seen: dict[str, Any]) -> None:
    """Bound again and again; the driver itself knows no timestamps and decimals as parameters."""
    assert seen["prepared"] == [2, 5, 4]
    assert seen["double"] == seen["boolean"] == [{"id": 1}]
    assert "unknown builder type" in seen["timestamp"]["error"]


@pytest.mark.feature("Go", "numbers, text, binary")
def test_plain_types(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert (row["id"], row["yes"], row["small"], row["big"]) == (1, True, -7, 2**62)
    assert (row["real"], row["double"]) == ("0.5", "-1.25e+300")
    assert (row["text"], row["bytes"]) == ("täxt ✓", "00ff")
    assert "not supported" in seen["four"]["error"]  # FixedSizeBinary: by the driver


@pytest.mark.feature("Go", "decimals")
def test_decimals_come_as_floating_point(seen: dict[str, Any]) -> None:
    assert seen["types"][0]["price"] == "1.2345678901234568e+13"


@pytest.mark.feature("Go", "dates and timestamps")
def test_dates_and_timestamps(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert row["day"] == "2024-02-29T00:00:00Z"
    assert row["clock"].endswith("T12:30:15.123456Z")
    assert row["at"] == row["at_utc"] == "2024-02-29T12:30:15.123456Z"


@pytest.mark.feature("Go", "nulls")
def test_nulls(seen: dict[str, Any]) -> None:
    assert {value for name, value in seen["types"][1].items() if name != "id"} == {None}


def test_nested_types_are_refused_by_the_driver(seen: dict[str, Any]) -> None:
    """When this fails the driver has learnt them: the page's footnote should go."""
    assert all("not supported" in seen[name]["error"] for name in ("list", "map", "struct"))


@pytest.mark.feature("Go", "errors")
def test_errors_keep_status_and_words(seen: dict[str, Any]) -> None:
    assert "code = NotFound desc = there is no table demo.nothing" in seen["nothing"]["error"]
    assert "code = InvalidArgument desc = syntax error at line 1" in seen["syntax"]["error"]


@pytest.mark.feature("Go", "cancelling")
def test_cancelling_the_context(seen: dict[str, Any], client_house: House) -> None:
    """Two hundred million rows are not read, and the server knows that nobody wants them."""
    assert seen["cancel"]["read"] < 5**12 / 10
    assert seen["after_cancel"] == [{"one": 1}]
    assert client_house.states("%t2.label as go%") == {"cancelled"}
