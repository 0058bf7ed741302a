"""Registries: one contract for the folder, the HTTP client and the tests' fake; then each alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support_avro import KnownSchemas, record
from support_registry import RegistryServer, serving

from catalog.avro import parse_record
from catalog.errors import (
    RegistryUnavailable,
    SchemaRefused,
    SchemaUnknown,
    SpecRefused,
)
from catalog.registry import SchemaRegistry, open_registry

Maker = Callable[[Mapping[int, object], Mapping[str, int]], SchemaRegistry]

TRADE = record(("price", "double"), name="Trade")
QUOTE = record(("bid", "double"), name="Quote")


def _folder(path: Path, schemas: Mapping[int, object], subjects: Mapping[str, int]) -> Path:
    for schema_id, avro in schemas.items():
        (path / f"{schema_id}.avsc").write_text(json.dumps(avro))
    if subjects:
        (path / "subjects.json").write_text(json.dumps(subjects))
    return path


@pytest.fixture(params=["folder", "http", "known"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Opens a registry of the kind that holds the given schemas."""
    with ExitStack() as stack:

        def folder(schemas: Mapping[int, object], subjects: Mapping[str, int]) -> SchemaRegistry:
            return open_registry(f"file:{_folder(tmp_path, schemas, subjects)}", {})

        def http(schemas: Mapping[int, object], subjects: Mapping[str, int]) -> SchemaRegistry:
            server = RegistryServer(
                schemas={i: json.dumps(avro) for i, avro in schemas.items()},
                subjects={name: [i] for name, i in subjects.items()},
            )
            return stack.enter_context(
                closing(open_registry(stack.enter_context(serving(server)).url, {}))
            )

        def known(schemas: Mapping[int, object], subjects: Mapping[str, int]) -> SchemaRegistry:
            return KnownSchemas(schemas, subjects)

        yield {"folder": folder, "http": http, "known": known}[request.param]


def test_a_schema_is_found_by_its_id(make: Maker) -> None:
    registry = make({1: TRADE, 2: QUOTE}, {"t-value": 1})
    assert registry.get(2).schema_id == 2
    assert registry.get(2).avro == QUOTE
    assert registry.get(1).avro == TRADE


def test_a_subject_leads_to_its_newest_schema(make: Maker) -> None:
    registry = make({1: TRADE, 2: QUOTE}, {"t-value": 1, "q-value": 2})
    assert registry.latest("q-value") == registry.get(2)
    assert registry.latest("t-value") == registry.get(1)


def test_an_id_that_nobody_registered_is_unknown(make: Maker) -> None:
    with pytest.raises(SchemaUnknown, match="99"):
        make({1: TRADE}, {"t-value": 1}).get(99)


def test_a_subject_that_nobody_registered_is_unknown(make: Maker) -> None:
    with pytest.raises(SchemaUnknown, match="x-value"):
        make({1: TRADE}, {"t-value": 1}).latest("x-value")


def test_a_schema_that_is_only_a_name_is_a_mapping_too(make: Maker) -> None:
    assert make({1: "string"}, {"t-value": 1}).get(1).avro == {"type": "string"}


def test_closing_twice_is_allowed(make: Maker) -> None:
    registry = make({1: TRADE}, {})
    registry.close()
    registry.close()


def test_a_folder_with_one_schema_needs_no_subjects(tmp_path: Path) -> None:
    registry = open_registry(f"file:{_folder(tmp_path, {5: TRADE}, {})}", {})
    assert registry.latest("anything").schema_id == 5


def test_a_folder_with_several_schemas_and_no_subjects_asks_for_schema_id(tmp_path: Path) -> None:
    registry = open_registry(f"file:{_folder(tmp_path, {5: TRADE, 6: QUOTE}, {})}", {})
    with pytest.raises(SchemaUnknown, match="set schema_id"):
        registry.latest("t-value")


def test_a_relative_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my schemas").mkdir()
    _folder(tmp_path / "my schemas", {5: TRADE}, {})
    monkeypatch.chdir(tmp_path)
    assert open_registry("file:./my%20schemas", {}).get(5).avro == TRADE


def test_a_folder_that_is_missing_is_said_at_once_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnavailable, match="'absent' is missing") as caught:
        open_registry(f"file:{tmp_path}/absent", {})
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.avsc").write_text('{"type": ')
    with pytest.raises(SchemaRefused, match="schema id 1 is no JSON"):
        open_registry(f"file:{tmp_path}", {}).get(1)


def test_a_schema_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.avsc").write_text('{"type":"array","items":' * 5000 + '"int"' + "}" * 5000)
    with pytest.raises(SchemaRefused):
        open_registry(f"file:{tmp_path}", {}).get(1)


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(SpecRefused, match="ftp"):
        open_registry("ftp://registry", {})


def test_properties_that_the_client_does_not_know_are_refused() -> None:
    with pytest.raises(SpecRefused, match=r"basic\.auth\.usr"):
        open_registry("http://127.0.0.1:1", {"basic.auth.usr": "a:b"})


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(SpecRefused, match=r"max\.retries"):
        open_registry("http://127.0.0.1:1", {"max.retries": "often"})


def test_credentials_reach_the_registry() -> None:
    server = RegistryServer({1: json.dumps(TRADE)}, user="k2:secret")
    with serving(server):
        good = open_registry(server.url, {"basic.auth.user.info": "k2:secret"})
        with closing(good):
            assert good.get(1).avro == TRADE


def test_wrong_credentials_are_named_as_such_and_never_repeated() -> None:
    server = RegistryServer({1: json.dumps(TRADE)}, user="k2:secret")
    with serving(server):
        address = f"http://k2:hunter2@127.0.0.1:{server.port}"
        with closing(open_registry(address, {})) as registry:
            with pytest.raises(RegistryUnavailable, match="refused the credentials") as caught:
                registry.get(1)
            assert "hunter2" not in str(caught.value)


def test_a_registry_that_is_not_there_is_unavailable_and_can_be_asked_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        registry = open_registry(f"http://127.0.0.1:{unused.getsockname()[1]}", {})
        with closing(registry), pytest.raises(RegistryUnavailable) as caught:
            registry.get(1)
    assert caught.value.retriable


def test_a_registry_that_never_answers_is_unavailable_after_the_timeout() -> None:
    server = RegistryServer({1: json.dumps(TRADE)}, silent=threading.Event())
    with (
        serving(server),
        closing(open_registry(server.url, {}, timeout_s=0.4)) as registry,
        pytest.raises(RegistryUnavailable, match="no answer"),
    ):
        registry.get(1)


def test_an_error_of_the_registry_is_unavailable_and_not_remembered() -> None:
    server = RegistryServer({1: json.dumps(TRADE)}, status=503)
    with serving(server), closing(open_registry(server.url, {})) as registry:
        with pytest.raises(RegistryUnavailable, match="HTTP 503"):
            registry.get(1)
        server.status = None
        assert registry.get(1).avro == TRADE


def test_an_id_is_asked_for_once() -> None:
    server = RegistryServer({1: json.dumps(TRADE)})
    with serving(server), closing(open_registry(server.url, {})) as registry:
        assert registry.get(1) is registry.get(1)
    assert len(server.requests) == 1


def test_a_schema_of_another_language_is_refused() -> None:
    server = RegistryServer({1: "message A {}"}, types={1: "PROTOBUF"})
    with (
        serving(server),
        closing(open_registry(server.url, {})) as registry,
        pytest.raises(SchemaRefused, match="PROTOBUF"),
    ):
        registry.get(1)


def test_types_of_other_subjects_stand_inside_the_schema_at_their_first_use() -> None:
    """References of references too; a type that is used twice is written once."""
    money = {
        "type": "record",
        "name": "Money",
        "namespace": "m",
        "fields": [{"name": "currency", "type": "m.Currency"}, {"name": "units", "type": "long"}],
    }
    currency = {"type": "enum", "name": "m.Currency", "symbols": ["USD", "EUR"]}
    trade = {
        "type": "record",
        "name": "Trade",
        "namespace": "m",
        "fields": [
            {"name": "price", "type": "Money"},
            {"name": "fee", "type": ["null", "m.Money"]},
            {"name": "quoted_in", "type": {"type": "array", "items": "Currency"}},
        ],
    }
    server = RegistryServer(
        schemas={1: json.dumps(trade), 2: json.dumps(money), 3: json.dumps(currency)},
        subjects={"t-value": [1], "money": [2], "currency": [3]},
        references={
            1: [("m.Money", "money", 1), ("m.Currency", "currency", 1)],
            2: [("m.Currency", "currency", 1)],
        },
    )
    with serving(server), closing(open_registry(server.url, {})) as registry:
        schema = registry.latest("t-value")
    assert json.dumps(schema.avro).count('"symbols"') == 1
    tree = parse_record(schema, "refuse")
    assert [f.name for f in tree.fields] == ["price", "fee", "quoted_in"]
    assert parse_record(registry.get(1), "refuse") == tree
