"""The stock JDBC driver, in tests/clients/jdbc/Client.java, against `k2 serve`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from support_clients import PASSWORD, TOKEN, USER, House, jdbc, program, required_or_skipped

URL = "jdbc:arrow-flight-sql://127.0.0.1:{}/?useEncryption={}"


@pytest.fixture(scope="module")
def argv() -> list[str]:
    return required_or_skipped(jdbc)


@pytest.fixture(scope="module")
def seen(argv: list[str], client_house: House) -> dict[str, Any]:
    """What the program saw, by step."""
    url = URL.format(client_house.open.port, "false")
    return {line["step"]: line["value"] for line in program("jdbc", [*argv, "all", url])}


@pytest.fixture(scope="module")
def logins(argv: list[str], client_house: House) -> list[Any]:
    """What four logins gave: user and password, a token, both without and with TLS; two wrong."""
    user = f"&user={USER}&password={quote(PASSWORD)}"
    plain = URL.format(client_house.users.port, "false")
    tls = URL.format(client_house.tls.port, "true")
    trusted = f"{tls}&tlsRootCerts={quote(str(client_house.authority))}"
    urls = [
        *(plain + user, f"{plain}&token={TOKEN}"),
        *(trusted + user, f"{trusted}&token={TOKEN}"),
        *(f"{plain}&user={USER}&password=wrong", tls + user),
    ]
    return [line["value"] for line in program("jdbc", [*argv, "connect", *urls])]


#: What Avatica, below the driver, says of eleven methods about updatable results.
DRIVERS_OWN_GAP = "java.lang.RuntimeException: todo: implement this method"
DRIVERS_OWN_BUG = (
    "the driver has learnt to send timestamps in the unit that it was told (arrow-java #838): "
    "take the footnote out of the table"
)
ANSWER = [{"answer": 42}]


@pytest.mark.feature("JDBC", "user and password")
def test_user_and_password(logins: list[Any]) -> None:
    assert logins[0] == ANSWER


@pytest.mark.feature("JDBC", "token")
def test_a_token(logins: list[Any]) -> None:
    assert logins[1] == ANSWER


@pytest.mark.feature("JDBC", "TLS")
def test_tls_with_either(logins: list[Any]) -> None:
    assert logins[2:4] == [ANSWER, ANSWER]


def test_a_wrong_password_and_an_unknown_certificate_are_refused(logins: list[Any]) -> None:
    assert "wrong user, password or token" in logins[4]["message"]
    assert "certificat" in str(logins[5]).lower()


@pytest.mark.feature("JDBC", "queries")
def test_queries(seen: dict[str, Any]) -> None:
    labels = ["one", "two", None, "four", "five"]
    assert seen["query"] == [{"n": n, "label": label} for n, label in enumerate(labels, start=1)]
    assert seen["again"] == [5, 5, 5]
    assert seen["empty"] == []
    assert seen["updates"] is True  # execute() said that there is a result


@pytest.mark.feature("JDBC", "parameters")
def test_prepared_statements(seen: dict[str, Any]) -> None:
    """Described before they are bound, and bound again and again."""
    assert seen["parameter_types"] == ["Int(64, true)", "Utf8"]
    assert [column["name"] for column in seen["prepared_columns"]] == ["n"]
    assert seen["prepared"] == [[{"n": 2}], [{"n": 5}], [], []]


def test_parameters_of_every_type(seen: dict[str, Any]) -> None:
    assert len(seen["parameters"]) == 10
    lost = {name: found for name, found in seen["parameters"].items() if found != [{"id": 1}]}
    assert lost == {"date_trunc('millisecond', at)": []}, DRIVERS_OWN_BUG


def test_parameters_whose_type_only_a_cast_says(seen: dict[str, Any]) -> None:
    """The driver cannot bind without a type, and sends moments in milliseconds."""
    assert seen["casts"] == ["true", "17", "täxt", "2024-02-29"]


@pytest.mark.feature("JDBC", "numbers, text, binary")
def test_plain_types(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    wanted = {
        "id": 1,
        "yes": True,
        "small": -7,
        "big": 2**62,
        "real": "0.5",
        "double": "-1.25E300",
        "text": "täxt ✓",
        "bytes": "00ff",
        "four": "61626364",
    }
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.feature("JDBC", "decimals")
def test_decimals_keep_their_precision(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert row["price"] == "12345678901234.5678"
    assert row["wide"] == "-1234567890123456789012345678.9012345678"
    sizes = {c["name"]: (c["type_name"], c["precision"], c["scale"]) for c in seen["columns"]}
    assert sizes["price"] == ("DECIMAL", 18, 4)
    assert sizes["wide"] == ("DECIMAL", 38, 10)


@pytest.mark.feature("JDBC", "dates and timestamps")
def test_dates_and_timestamps(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert (row["day"], row["at"]) == ("2024-02-29", "2024-02-29 12:30:15.123456")
    assert row["clock"].startswith("12:30:15")
    assert row["at_utc"]["instant"] == "2024-02-29T12:30:15.123456Z"
    assert "not implemented" in row["at_utc"]["refused"]  # getObject(): the driver's own words


@pytest.mark.feature("JDBC", "lists, maps, structs")
def test_nested_types(seen: dict[str, Any]) -> None:
    row = seen["types"][0]
    assert row["list"] == [1, None, 3]
    assert row["map"] == {"a": 1, "b": None}
    assert row["struct"] == {"x": 1, "y": "one"}


@pytest.mark.feature("JDBC", "nulls")
def test_nulls(seen: dict[str, Any]) -> None:
    assert {value for name, value in seen["types"][1].items() if name != "id"} == {None}


@pytest.mark.feature("JDBC", "catalogs and schemas")
def test_catalogs_and_schemas(seen: dict[str, Any]) -> None:
    assert seen["catalogs"] == [{"TABLE_CAT": "lake"}]
    names = [row["TABLE_SCHEM"] for row in seen["schemas"]]
    assert names == ["demo", "information_schema", "market_data", "system"]
    assert [row["TABLE_SCHEM"] for row in seen["schemas_filtered"]] == ["demo"]


@pytest.mark.feature("JDBC", "tables")
def test_tables(seen: dict[str, Any]) -> None:
    assert [row["TABLE_NAME"] for row in seen["tables"]] == ["numbers", "types"]
    assert seen["tables_none"] == []
    assert [row["TABLE_TYPE"] for row in seen["table_types"]] == ["BASE TABLE", "VIEW"]


@pytest.mark.feature("JDBC", "columns")
def test_columns(seen: dict[str, Any]) -> None:
    found = {(row["TABLE_NAME"], row["COLUMN_NAME"]): row for row in seen["table_columns"]}
    assert len(found) == 2 + 18
    number, price = found["numbers", "n"], found["types", "price"]
    assert (number["TYPE_NAME"], number["IS_NULLABLE"]) == ("BIGINT", "NO")
    assert (price["COLUMN_SIZE"], price["DECIMAL_DIGITS"]) == (18, 4)


@pytest.mark.feature("JDBC", "keys")
def test_keys(seen: dict[str, Any]) -> None:
    names = ("primary_keys", "imported_keys", "exported_keys", "cross_reference")
    assert [seen[name] for name in names] == [[], [], [], []]


@pytest.mark.feature("JDBC", "server info")
def test_every_method_of_the_metadata_answers(seen: dict[str, Any]) -> None:
    assert seen["product"] == "K2 Flight"
    assert {*seen["methods"]["failed"].values()} == {DRIVERS_OWN_GAP}
    answers = seen["methods"]["answers"]
    assert len(answers) > 130
    assert (answers["isReadOnly"], answers["getIdentifierQuoteString"]) == (True, '"')
    assert answers["supportsTransactions"] is False
    assert answers["getTypeInfo"] == []  # the driver does not ask the server


@pytest.mark.feature("JDBC", "session options")
def test_the_catalog_of_the_url(seen: dict[str, Any]) -> None:
    """The driver's close() ends a session twice, the second time on a channel that is closed."""
    assert seen["catalog"] == [{"one": 1}]
    assert seen["catalog_closed"] in (None, "Channel shutdown invoked")


@pytest.mark.feature("JDBC", "session options")
def test_session_statements(seen: dict[str, Any]) -> None:
    """By execute, executeUpdate and executeQuery, plain and prepared."""
    found = seen["session"]
    assert (found["execute"], found["count"], found["update"]) == (False, 0, 0)
    assert found["numbers"] == [{"n": 5}]
    assert found["shown"] == [{"name": "time_zone", "value": "Europe/Zurich"}]
    assert [row["name"] for row in found["all"]][:2] == ["catalog", "schema"]
    assert (found["prepared"], found["reset"]) == (0, [{"name": "time_zone", "value": "UTC"}])
    assert "there is no session option 'colour'" in found["unknown"]["message"]


@pytest.mark.feature("JDBC", "cancelling")
def test_cancelling(seen: dict[str, Any], client_house: House) -> None:
    """Two hundred million rows are not read, and the server knows that nobody wants them."""
    assert re.search("[Cc]ancel", seen["cancel"]["message"])
    assert seen["after_cancel"] == [{"one": 1}]
    assert client_house.states("%t11%") == {"cancelled"}
