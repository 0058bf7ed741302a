"""The settings: one TOML file, the environment over it, frozen values out of it.

Layers, later ones win: the defaults below, ``k2.toml`` (or ``--config``), the environment
(``K2_SECTION__KEY``), the command line's flags. ``[kafka]``, ``[registry]`` and ``[catalog]`` pass
the names that are not ours on to librdkafka, to the registry's client and to pyiceberg.

pydantic alone, not pydantic-settings: neither its file nor its environment source reads
pass-through names or a list of tables, and its import costs 0.2 s at every (re)start of a child.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ByteSize, Field, NonNegativeInt, SecretStr, ValidationError, model_validator

from catalog.errors import shorten
from catalog.owners import MAX_NODE_CHARS
from catalog.spec import LiveSpec, Role, TableSpec
from flight_server.layers import (
    ConfigRefused,
    merged,
    nearest,
    read_environment,
    read_toml,
    resolved_paths,
)
from flight_server.sections import Bytes, Count, PassThrough, Port, Seconds, Section, Text
from flight_server.table_settings import Table

__all__ = ["SECTIONS", "ConfigRefused", "PassThrough", "Section", "Settings", "load"]

#: Read when neither ``--config`` nor ``K2_CONFIG`` names a file; it may be missing.
DEFAULT_FILE = "k2.toml"


class Server(Section):
    """Where and how the Flight SQL server answers."""

    host: Text = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(32010, description="Flight port; 0 takes a free one")
    metrics_port: Port | None = Field(
        None, description="port of the Prometheus endpoint, on `server.host`; none by default"
    )
    ticket_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="key that seals tickets and statement handles (16 characters or more); random "
        "by default: set it where several servers share tickets, or where tickets must survive a "
        "restart",
    )
    ticket_life_s: Seconds = Field(600, description="how long a sealed ticket is accepted, seconds")
    session_life_s: Seconds = Field(
        1800, description="an idle session (cookie) is forgotten after this many seconds"
    )
    users: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="user names and their passwords, or their hashes from `k2 hash`; without "
        "users and tokens everybody is `anonymous`",
    )
    users_file: Path | None = Field(
        None,
        description="file with a line `name:hash` per user, hashes from `k2 hash`; where it is set "
        "nobody is let in without credentials, even if it is empty",
    )
    tokens: dict[str, SecretStr] = Field(
        default_factory=dict, description="user names and their bearer tokens"
    )
    drain_s: Seconds = Field(5, description="how long statements may go on after SIGTERM, seconds")
    tls_certificate: Path | None = Field(
        None, description="PEM file with the server's certificate chain; TLS is on when it is set"
    )
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key")
    mtls_port: Port | None = Field(
        None,
        description="port of a second listener, where a client's certificate says who calls; its "
        "server certificate is `tls_certificate`",
    )
    mtls_ca: Path | None = Field(
        None, description="PEM file with the authorities that sign clients' certificates"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe level that is logged; SQL text appears at DEBUG only"
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Server:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or none")
        if (self.mtls_port is None) != (self.mtls_ca is None):
            raise ValueError("mtls_port and mtls_ca belong together: set both or none")
        if self.mtls_port is not None and self.tls_certificate is None:
            raise ValueError("mtls_port needs tls_certificate and tls_key")
        return self


class Kafka(PassThrough):
    """The broker. Every other key is librdkafka's own (`bootstrap.servers`, `sasl.*`, `ssl.*`)."""

    owner: ClassVar[str] = "librdkafka"
    monitor_group: Text | None = Field(
        None,
        description="consumer group whose positions are committed for lag tools; never read back",
    )


class Registry(PassThrough):
    """Where schemas come from. Every other key goes to the registry's client."""

    owner: ClassVar[str] = "the schema registry's client"
    url: Text = Field(
        "file:./schemas",
        description="`http(s)://…` of a Confluent-compatible registry, or `file:` and a folder "
        "with `<id>.avsc` files",
    )
    timeout_s: Seconds = Field(5, description="longest wait for the registry, seconds")


class Catalog(PassThrough):
    """The Iceberg catalog. Every other key is pyiceberg's (`type`, `uri`, `warehouse`, `s3.*`)."""

    owner: ClassVar[str] = "pyiceberg"
    name: Text = Field("lake", description="the catalog's name in SQL")
    refresh_ms: int = Field(
        1000,
        ge=0,
        description="how long an ordinary table's newest snapshot is taken for the newest, "
        "milliseconds",
    )
    timeout_s: Seconds = Field(8, description="longest wait for the catalog at start, seconds")


class Live(Section):
    """The live folder: immutable segments and one manifest per table; a cache of Kafka."""

    folder: Path = Field(Path("k2-live"), description="the folder; one ingest owns it at a time")
    max_bytes: Bytes = Field(
        ByteSize(4 * 1024**3),
        description="bound on the live bytes of one table; at the bound its consumer pauses",
    )
    metrics_port: Port | None = Field(
        None, description="port of the ingest's Prometheus endpoint, on `server.host`"
    )
    grace_s: Seconds = Field(
        30, description="how long a segment outlives the last manifest that listed it, seconds"
    )
    reload_s: Seconds = Field(
        2, description="how often the ingest looks for commits of others, seconds"
    )
    role: Role = Field(
        "writer",
        description="`writer` claims the tables and flushes them; `follower` holds their tail for "
        "the server beside it; `standby` follows, and writes while nobody else does",
    )
    take_over_after_s: Seconds = Field(
        3,
        ge=1,
        description="a standby takes a table over after so many seconds without a sign of its "
        "writer",
    )
    node: Text | None = Field(
        None,
        max_length=MAX_NODE_CHARS,
        description="what this machine is called when it owns a table; its host name by default",
    )


class Limits(Section):
    """Bounds on what one statement, and all of them together, may take."""

    statement_timeout_s: Seconds = Field(300, description="longest life of a statement, seconds")
    memory_bytes: Bytes = Field(
        ByteSize(2 * 1024**3), description="memory pool shared by all running statements"
    )
    spill_folder: Path = Field(
        Path("k2-spill"),
        description="where statements spill to, each process in a folder of its own",
    )
    spill_bytes: Bytes = Field(
        ByteSize(16 * 1024**3), description="bound on what one statement spills"
    )
    copies_bytes: Bytes = Field(
        ByteSize(16 * 1024**3),
        description="bound on local copies of data files without their deleted rows, in "
        "`spill_folder`",
    )
    footers_bytes: Bytes = Field(
        ByteSize(768 * 1024**2),
        description="bound on the footers of data files that are kept in memory (20 columns: about "
        "25 KB a file): for sessions in UTC, three eighths for statements with long answers and as "
        "much for those with short ones; the rest for other time zones, and for plans that need "
        "settings of their own",
    )
    concurrency: Count = Field(8, description="statements that run at the same time")
    reserved: NonNegativeInt = Field(
        2,
        description="how many of these places are kept for small statements; large ones always "
        "have one at least",
    )
    small_rows: Count = Field(
        1_000_000,
        description="a statement is small while the files and segments that it reads after pruning "
        "hold no more rows",
    )
    queue_wait_s: Seconds = Field(
        30,
        description="longest wait of a statement for its turn, in order of arrival, seconds; a "
        "large one waits once before it is planned and once after",
    )
    slow_reader_s: Seconds = Field(
        1,
        description="a client that takes longer for a batch, seconds, gives its place to others "
        "until it goes on reading",
    )
    max_sql_bytes: Bytes = Field(ByteSize(64 * 1024), description="longest statement, UTF-8 bytes")
    max_operators: Count = Field(
        1000, description="most operators in one statement; long chains overflow the engine's stack"
    )
    max_depth: Count = Field(50, description="deepest nesting of brackets in one statement")
    max_product_rows: Count = Field(
        1_000_000_000,
        description="largest estimated product of a join without a condition (such joins cannot be "
        "cancelled)",
    )
    max_result_rows: Count | None = Field(
        None, description="rows that one statement may return; any number by default"
    )
    max_result_bytes: Bytes | None = Field(
        None, description="Arrow bytes that one statement may return; any number by default"
    )
    max_parameter_sets: Count = Field(
        1000, description="rows of parameters that one statement may be executed with"
    )
    batch_bytes: Bytes = Field(
        ByteSize(2 * 1024**2),
        description="largest batch on the wire; some clients refuse more than 4 MiB",
    )


class Settings(Section):
    """Everything that can be configured; one attribute per section, ``table`` in file order."""

    server: Server = Server()  # type: ignore[call-arg]  # all defaults stand in Field()
    kafka: Kafka = Kafka()  # type: ignore[call-arg]  # the same
    registry: Registry = Registry()  # type: ignore[call-arg]  # the same
    catalog: Catalog = Catalog()  # type: ignore[call-arg]  # the same
    live: Live = Live()  # type: ignore[call-arg]  # the same
    limits: Limits = Limits()  # type: ignore[call-arg]  # the same
    table: tuple[Table, ...] = ()

    @model_validator(mode="after")
    def _tables_have_one_name_each(self) -> Settings:
        names = [table.name for table in self.table]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"table {twice[0]!r} is declared twice: give each [[table]] its name")
        keeping = [str(t.spec().dead_letters) for t in self.table if t.on_error == "dead_letter"]
        taken = sorted({name for name in keeping if [*names, *keeping].count(name) > 1})
        if taken:
            raise ValueError(
                f"dead letter table {taken[0]!r} belongs to another table: give each table's "
                f"dead_letter_table a name of its own"
            )
        return self

    @model_validator(mode="after")
    def _followers_pass_nothing_over(self) -> Settings:
        """Which records a writer passed over is known from its commits only."""
        passing = [table.name for table in self.table if table.on_error != "stop"]
        if passing and self.live.role != "writer":
            raise ValueError(
                f"live.role = {self.live.role!r} cannot hold {passing[0]!r}, whose on_error passes "
                f'over records: set on_error = "stop", or leave the table to a writer alone'
            )
        return self

    def table_specs(self) -> tuple[TableSpec, ...]:
        """The declared tables, in file order."""
        return tuple(table.spec() for table in self.table)

    def live_spec(self) -> LiveSpec:
        """The live folder as the data side wants it."""
        live = self.live
        return LiveSpec(
            *(live.folder, int(live.max_bytes), live.grace_s, live.reload_s),
            role=live.role,
            take_over_after_s=live.take_over_after_s,
        )


SECTIONS: Mapping[str, type[Section]] = {
    "server": Server,
    "kafka": Kafka,
    "registry": Registry,
    "catalog": Catalog,
    "live": Live,
    "limits": Limits,
    "table": Table,
}


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """The effective settings.

    Args:
        path: the file; None reads ``K2_CONFIG`` or ``k2.toml`` of the working folder, and goes on
            without a file where neither exists.
        environ: the environment; None reads the process's own.
        overrides: section → key → value, over everything else (the command line's flags).

    Raises:
        ConfigRefused: says which key is wrong and what to do; the message holds no value of a
            pass-through section, so no secret.
    """
    environ = os.environ if environ is None else environ
    file = path or (Path(environ["K2_CONFIG"]) if environ.get("K2_CONFIG") else None)
    folder = (file or Path(DEFAULT_FILE)).absolute().parent
    layers = [
        _default_paths(),
        read_toml(file or Path(DEFAULT_FILE), required=file is not None),
        read_environment(environ, passing={k for k, v in SECTIONS.items() if _passes(v)}),
        overrides or {},
    ]
    try:
        return Settings(**resolved_paths(merged(layers), folder))  # type: ignore[arg-type]  # pydantic checks
    except ValidationError as error:
        raise ConfigRefused("\n".join(_explain(each) for each in error.errors())) from error


def _default_paths() -> dict[str, dict[str, object]]:
    """Defaults that are relative to the configuration's folder, as the lowest layer."""
    return {
        "registry": {"url": Registry.model_fields["url"].default},
        "live": {"folder": Live.model_fields["folder"].default},
        "limits": {"spill_folder": Limits.model_fields["spill_folder"].default},
    }


def _passes(section: type[Section]) -> bool:
    return issubclass(section, PassThrough)


def _explain(error: Mapping[str, object]) -> str:
    """One line for one error: key, what is wrong, what to do."""
    location = error["loc"]
    parts = location if isinstance(location, tuple) else ()
    key = ".".join(str(part) for part in parts) or "settings"
    if error["type"] == "extra_forbidden":
        return _unknown_key(parts)
    if error["type"] == "missing":
        return f"{key}: missing; set it in the file or as {_variable(parts)}"
    what = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    plain = isinstance(given, (str, int, float)) and not set(parts) & {
        "ticket_key",
        "users",
        "tokens",
    }
    return f"{key}: {what}" + (f" (is {shorten(given)!r})" if plain else "")


def _unknown_key(parts: tuple[object, ...]) -> str:
    *where, last = [str(part) for part in parts]
    known = SECTIONS[where[0]].model_fields if where else SECTIONS
    near = nearest(last, known, cutoff=0.5)
    hint = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known))}"
    return f"{'.'.join([*where, last])}: unknown key; {hint}"


def _variable(parts: tuple[object, ...]) -> str:
    return "K2_" + "__".join(str(part).upper() for part in parts)
