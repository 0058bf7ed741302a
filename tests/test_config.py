"""Settings: layers, refusals with the nearest key, masked secrets, the documented reference."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from catalog.spec import TableName
from flight_server.config import SECTIONS, ConfigRefused, Section, Settings, load
from flight_server.settings_page import effective, reference

ROOT = Path(__file__).parent.parent
FILE = """
[server]
port = 4000
ticket_key = "0123456789abcdef-secret"
[kafka]
bootstrap.servers = "broker:9092"
"sasl.password" = "hush-1"
sasl.username = "reader"
[registry]
url = "file:./schemas"
"basic.auth.user.info" = "me:hush-2"
[catalog]
type = "sql"
uri = "postgresql://ice:hush-3@db:5432/lake"
warehouse = "./warehouse"
"s3.secret-access-key" = "hush-4"
"s3.access-key-id" = "hush-5"
[live]
folder = "live"
max_bytes = "64MiB"
[[table]]
name = "market_data.trades"
topics = ["market.equities.trades.xnas"]
sort = ["symbol", "timestamp"]
partition = ["day(timestamp)"]
flush_rows = 10
[[table]]
name = "market_data.quotes"
topics = ["q1", "q2"]
"""


def write(folder: Path, text: str = FILE) -> Path:
    path = folder / "k2.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigRefused) as refused:
        load(write(folder, text), environ or {})
    return str(refused.value)


def test_the_environment_wins_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    path = write(tmp_path)
    environ = {"K2_SERVER__PORT": "5000", "K2_SERVER__HOST": "0.0.0.0"}  # noqa: S104  # a value
    settings = load(path, environ, {"server": {"port": 6000}})
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 6000)  # noqa: S104  # the same
    assert load(path, environ).server.port == 5000
    assert load(path, {}).server.port == 4000


def test_tables_become_declarations_of_the_data_side(tmp_path: Path) -> None:
    trades, quotes = load(write(tmp_path), {"K2_TABLE__1__FLUSH_AGE_S": "2.5"}).table_specs()
    assert trades.name == TableName("market_data", "trades")
    assert (trades.flush_rows, trades.sort) == (10, ("symbol", "timestamp"))
    assert type(trades.flush_bytes) is int
    assert (quotes.topics, quotes.flush_age_s) == (("q1", "q2"), 2.5)


def test_relative_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path), {})
    assert settings.live_spec().folder == tmp_path / "live"
    assert settings.registry.url == f"file:{tmp_path / 'schemas'}"
    assert settings.catalog.properties()["warehouse"] == str(tmp_path / "warehouse")
    assert settings.limits.spill_folder == tmp_path / "k2-spill"
    sqlite = load(write(tmp_path, '[catalog]\nuri = "sqlite:///lake.db"'), {})
    assert sqlite.catalog.properties()["uri"] == f"sqlite:///{tmp_path / 'lake.db'}"
    memory = load(write(tmp_path, '[catalog]\nuri = "sqlite:///:memory:"'), {})
    assert memory.catalog.properties()["uri"] == "sqlite:///:memory:"


def test_librdkafkas_and_pyicebergs_names_pass_through(tmp_path: Path) -> None:
    environ = {
        "K2_KAFKA__BOOTSTRAP_SERVERS": "other:9092",
        "K2_CATALOG__S3__PATH_STYLE_ACCESS": "true",
        "K2_KAFKA__ssl.ca.location": "ca.pem",
    }
    settings = load(write(tmp_path), environ)
    assert settings.kafka.properties()["bootstrap.servers"] == "other:9092"
    assert settings.kafka.properties()["sasl.username"] == "reader"
    assert settings.kafka.properties()["ssl.ca.location"] == str(tmp_path / "ca.pem")
    assert settings.catalog.properties()["s3.path-style-access"] == "true"
    assert "name" not in settings.catalog.properties()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "server.prot: unknown key; did you mean 'port'?"),
        ("[sever]\nport = 1", "sever: unknown key; did you mean 'server'?"),
        ("[kafka]\nmonitor_grup = 'x'", "did you mean 'monitor_group'?"),
        ("[catalog]\nrefresh_mss = 1", "did you mean 'refresh_ms'?"),
        ("[[table]]\nname = 'a.b'\ntopcs = ['x']", "did you mean 'topics'?"),
        ("[[table]]\nname = 'ab'\ntopics = ['x']", "not of the form namespace.table"),
        (
            "[[table]]\nname = 'a.b'",
            "table.0.topics: missing; set it in the file or as K2_TABLE__0__",
        ),
        ("[server]\nport = 70000", "server.port: Input should be less than or equal to 65535"),
        ("[live]\nmax_bytes = 0", "live.max_bytes: Input should be greater than 0"),
        ("[server]\ntls_key = 'k.pem'", "tls_certificate and tls_key belong together"),
        ("[server\n", "is no TOML"),
        ("[table]\nname = 'a.b'", "every table has a [[table]] of its own"),
        (
            "[[table]]\nname='a.b'\ntopics=['x']\n[[table]]\nname='a.b'\ntopics=['y']",
            "table 'a.b' is declared twice",
        ),
        ("[[table]]\nname='a.b'\ntopics=['x']\non_error='drop'", "'stop', 'skip' or 'dead_letter'"),
        ("[[table]]\nname='a.b'\ntopics=['x']\ntombstones='x'", "'reject' or 'skip'"),
        ("[[table]]\nname='a.b'\ntopics=['x']\nmax_reject_share=0", "greater than 0"),
        ("[[table]]\nname='a.b'\ntopics=['x']\nmax_reject_share=1.1", "less than or equal to 1"),
        (
            "[[table]]\nname='a.b'\ntopics=['x']\ndead_letter_table='x'",
            "of the form namespace.table",
        ),
        (
            (
                "[[table]]\nname='a.b'\ntopics=['x']\non_error='dead_letter'\n"
                "[[table]]\nname='a.b_dead_letters'\ntopics=['y']"
            ),
            "dead letter table 'a.b_dead_letters' belongs to another table",
        ),
        (
            "[live]\nrole='standby'\n[[table]]\nname='a.b'\ntopics=['x']\non_error='skip'",
            "live.role = 'standby' cannot hold 'a.b', whose on_error passes over records",
        ),
    ],
)
def test_a_wrong_key_is_refused_with_what_to_do(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "[server]\nport = 'x'\nhots = 'y'")
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("K2_SERVER_PORT", "settings are named K2_SECTION__KEY"),
        ("K2_SERVER__PRT", "did you mean 'port'?"),
        ("K2_TABLE__NAME", "counted from 0"),
        ("K2_TABLE__5__NAME", "only 0 tables before it"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, variable: str, expected: str) -> None:
    assert expected in refusal(tmp_path, "", {variable: "1"})


def test_a_named_file_must_exist_and_the_default_one_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).server.port == 32010
    with pytest.raises(ConfigRefused, match="does not exist"):
        load(None, {"K2_CONFIG": str(tmp_path / "other.toml")})


def test_secrets_appear_neither_in_a_repr_nor_in_k2_config(tmp_path: Path) -> None:
    settings = load(write(tmp_path), {"K2_SERVER__USERS__ANN": "hush-6"})
    for text in (repr(settings), str(settings), effective(settings)):
        assert "hush" not in text
        assert "0123456789abcdef" not in text
        assert "broker:9092" in text
    assert settings.kafka.properties()["sasl.password"] == "hush-1"


@pytest.mark.parametrize(
    "line",
    [
        "[kafka]\n'ssl.key.pem' = 'hidden'",
        "[catalog]\n'adls.connection-string' = 'hidden'",
        "[catalog]\n'header.Authorization' = 'hidden'",
    ],
)
def test_a_secret_of_a_library_is_masked(tmp_path: Path, line: str) -> None:
    (tmp_path / "k2.toml").write_text(line)
    settings = load(tmp_path / "k2.toml")
    assert "hidden" not in effective(settings) + repr(settings)


def test_a_refusal_holds_no_secret(tmp_path: Path) -> None:
    short = refusal(tmp_path, "[server]\nticket_key = 'hush'\nusers = {ann = 7}")
    assert "ticket_key" in short
    assert "hush" not in short


def test_k2_config_prints_what_can_be_read_again(tmp_path: Path) -> None:
    settings = load(write(tmp_path), {})
    again = tomllib.loads(effective(settings))
    assert again["kafka"]["bootstrap.servers"] == "broker:9092"
    assert [table["name"] for table in again["table"]] == [t.name for t in settings.table]
    assert set(again) == set(SECTIONS) == set(Settings.model_fields)


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(write(tmp_path), {})
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1


def test_the_documented_reference_is_the_settings() -> None:
    """docs/configuration.md lists every key with default and meaning: `k2 config --reference`."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()
    for name, section in SECTIONS.items():
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key} says nothing about itself"


#: Values of every kind, as TOML writes them: each setting refuses one of them at least.
STRANGE = ("''", "'no such'", "-1", "7", "true", "[[1]]", "{a = {b = 1}}")


def _refused(section: type[Section], key: str) -> list[str]:
    """The strange values that the type of a setting does not take."""
    field = section.model_fields[key]
    kind: Any = field.annotation
    for bound in field.metadata:
        kind = Annotated[kind, bound]
    adapter = TypeAdapter(kind)
    refused = []
    for text in STRANGE:
        try:
            adapter.validate_python(tomllib.loads(f"value = {text}")["value"])
        except ValidationError:
            refused.append(text)
    return refused


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name, section in SECTIONS.items() for key in section.model_fields],
)
def test_every_setting_refuses_a_wrong_value_by_its_name(
    name: str, key: str, tmp_path: Path
) -> None:
    """Made from the model: a new setting cannot be forgotten, nor take just anything."""
    wrong = _refused(SECTIONS[name], key)
    assert wrong, f"{name}.{key} takes every value there is"
    others = {"name": "'a.b'", "topics": "['t']"} if name == "table" else {}
    for text in wrong:
        lines = "\n".join(f"{k} = {v}" for k, v in (others | {key: text}).items())
        head, path = (f"[[{name}]]", f"{name}.0") if name == "table" else (f"[{name}]", name)
        said = refusal(tmp_path, f"{head}\n{lines}")
        assert said.startswith(path), f"{text}: {said}"
        assert key in said, f"{text}: {said}"


@pytest.mark.parametrize("section", ["kafka", "registry", "catalog"])
def test_a_librarys_setting_must_be_one_value(section: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, f"[{section}]\n'some.name' = [1, 2]")
    assert f"{section}: 'some.name' must be one value" in said
