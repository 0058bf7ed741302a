"""Who calls: hashes of passwords, a file of users, certificates on a listener of their own."""

# ruff: noqa: SIM117 - servers, clients and expectations nest as the test reads

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pyarrow import flight
from support_flight import NUMBERS, Numbers, act, bare, connect, fetch, hand, make_service, serving

from flight_server import auth
from flight_server.app import _listen, _listen_certified
from flight_server.auth import StaticUsers, hash_password, read_users
from flight_server.config import load
from flight_server.layers import ConfigRefused
from flight_server.protocol import (
    BearerToken,
    FlightSqlServer,
    Principal,
    Service,
    Tls,
    UserPassword,
    messages,
)
from flight_server.protocol.errors import Unauthenticated

QUERY = messages.StatementQuery("select n from numbers")
HASHED = hash_password("wonder:land")


# --- passwords -----------------------------------------------------------------------------------


def test_a_hash_lets_in_its_password_and_no_other() -> None:
    users = StaticUsers({"alice": HASHED, "bob": "plain"}, {"carl": "token"})
    assert users.authenticate(UserPassword("alice", "wonder:land")) == Principal("alice")
    assert users.authenticate(UserPassword("bob", "plain")) == Principal("bob")
    assert users.authenticate(BearerToken("token")) == Principal("carl")
    for user, password in [
        ("alice", "looking glass"),
        ("alice", ""),
        ("alice", HASHED),
        ("bob", "wonder:land"),
        ("eve", "wonder:land"),
        ("", ""),
    ]:
        with pytest.raises(Unauthenticated, match="wrong user, password or token"):
            users.authenticate(UserPassword(user, password))
    with pytest.raises(Unauthenticated):
        users.authenticate(BearerToken(HASHED))


def test_a_right_password_is_hashed_once_and_a_wrong_one_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some clients send the password with every call; a guesser pays each time, names or not."""
    asked: list[str] = []
    verify = auth._verify
    monkeypatch.setattr(auth, "_verify", lambda h, p: asked.append(p) or verify(h, p))
    users = StaticUsers({"alice": HASHED})
    asked.clear()
    for _ in range(3):
        users.authenticate(UserPassword("alice", "wonder:land"))
    assert asked == ["wonder:land"]
    for name in ("alice", "alice", "nobody"):
        with pytest.raises(Unauthenticated):
            users.authenticate(UserPassword(name, "guess"))
    assert asked == ["wonder:land", *["guess"] * 3]
    users.authenticate(UserPassword("alice", "wonder:land"))
    assert len(asked) == 4


def test_what_is_kept_shows_no_password() -> None:
    users = StaticUsers({"alice": HASHED})
    users.authenticate(UserPassword("alice", "wonder:land"))
    assert "wonder" not in repr(vars(users)) + repr(users)


def test_a_hash_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(ConfigRefused, match=r"'alice'.*k2 hash") as caught:
        StaticUsers({"alice": "$argon2id$v=19$oops"})
    assert "oops" not in str(caught.value)


def test_users_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# people\n\nalice:{HASHED}\nbob:{hash_password('x')}\n")
    assert StaticUsers(read_users(file)).authenticate(UserPassword("bob", "x")) == Principal("bob")


@pytest.mark.parametrize(
    "text", ["alice", "alice:plain-password", ":HASHED", "a:HASHED\na:HASHED", "\xff"]
)
def test_a_file_of_another_form_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "users"
    file.write_bytes(text.replace("HASHED", HASHED).encode("latin-1"))
    with pytest.raises(ConfigRefused, match=r"server\.users_file") as caught:
        read_users(file)
    assert "plain-password" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "prefix"), [([], "$argon2id$"), (["al"], "al:$argon2id$")])
def test_the_command_line_makes_a_hash(arguments: list[str], prefix: str) -> None:
    command = [str(Path(sys.executable).with_name("k2")), "hash", *arguments]
    done = subprocess.run(
        command, input="wonder:land\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(prefix)
    hashed = done.stdout.strip().removeprefix("al:")
    assert StaticUsers({"x": hashed}).authenticate(UserPassword("x", "wonder:land"))


def test_the_settings_join_users_file_and_tokens(tmp_path: Path) -> None:
    """A relative file is seen from the configuration's folder."""
    (tmp_path / "people").write_text(f"alice:{HASHED}\n")
    config = tmp_path / "k2.toml"
    text = '[server]\nport = 0\nusers_file = "people"\ntokens = { bob = "token-of-bob" }\n'
    config.write_text(text)
    with ExitStack() as stack:
        server = _listen(load(config, {}), make_service(Numbers()))
        stack.callback(server.stop)
        for options in (
            {"username": "alice", "password": "wonder:land"},
            {"adbc.flight.sql.authorization_header": "Bearer token-of-bob"},
        ):
            with connect(server, **options) as connection, connection.cursor() as cursor:
                cursor.execute(QUERY.query)
                assert cursor.fetch_arrow_table() == NUMBERS
        with hand(server) as client, pytest.raises(flight.FlightUnauthenticatedError):
            fetch(client, QUERY)
    config.write_text(text + 'users = { alice = "x" }\n')
    with pytest.raises(ConfigRefused, match=r"'alice' stands in server\.users"):
        _listen(load(config, {}), make_service(Numbers()))


def test_an_empty_file_of_users_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("# nobody yet\n")
    (tmp_path / "k2.toml").write_text('[server]\nport = 0\nusers_file = "people"\n')
    server = _listen(load(tmp_path / "k2.toml", {}), make_service(Numbers()))
    with hand(server) as client, pytest.raises(flight.FlightUnauthenticatedError):
        fetch(client, QUERY)
    server.stop()


# --- certificates --------------------------------------------------------------------------------


class Certificates:
    """Authorities, and what they sign, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ca", "other"):
            self._openssl("req", "-x509", "-subj", f"/CN={name}", *self._key(name), "-days", "2")
        self.sign("server", "ca", "DNS:localhost,IP:127.0.0.1")
        self.sign("alice", "ca", "URI:spiffe://house/alice")
        self.sign("bob", "ca", "")
        self.sign("eve", "other", "URI:spiffe://house/alice")

    def _key(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        return [*curve, "-keyout", f"{name}.key", "-out", f"{name}.pem"]

    def _openssl(self, *command: str) -> None:
        subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=self.folder)

    def sign(self, name: str, authority: str, alternative: str) -> None:
        """A certificate of ``authority`` for ``name``."""
        extra = ["-addext", f"subjectAltName={alternative}"] if alternative else []
        signer = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-days", "2"]
        subject = ["-subj", f"/CN={name}"]
        self._openssl("req", "-x509", *subject, *extra, *signer, *self._key(name))

    def read(self, name: str) -> bytes:
        """A PEM file."""
        return (self.folder / name).read_bytes()

    def client(self, port: int, name: str | None) -> flight.FlightClient:
        """A client that shows the certificate of ``name``."""
        mine = {}
        if name is not None:
            mine = {"cert_chain": self.read(f"{name}.pem"), "private_key": self.read(f"{name}.key")}
        location = f"grpc+tls://localhost:{port}"
        return flight.connect(location, tls_root_certs=self.read("ca.pem"), **mine)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class WhoAmI(Numbers):
    """Remembers who called."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def plan(self, statement: Any, call: Any) -> Any:
        """As always."""
        self.seen.append(call.principal.name)
        return super().plan(statement, call)


@pytest.fixture
def backend() -> WhoAmI:
    return WhoAmI()


@pytest.fixture
def service(backend: WhoAmI) -> Service:
    return make_service(backend)


@pytest.fixture
def certified(service: Service, certificates: Certificates) -> Iterator[FlightSqlServer]:
    tls = Tls(*map(certificates.read, ("server.pem", "server.key", "ca.pem")))
    server = FlightSqlServer(service, "grpc+tls://127.0.0.1:0", tls=tls)
    yield server
    server.stop()


def test_a_certificate_says_who_calls(
    certified: FlightSqlServer, certificates: Certificates, backend: WhoAmI
) -> None:
    """The first alternative name, or else the common name; headers count for nothing."""
    lies = flight.FlightCallOptions(headers=[(b"authorization", b"Basic Y2FybDp4")])
    for name in ("alice", "bob"):
        with certificates.client(certified.port, name) as client:
            assert fetch(client, QUERY) == NUMBERS
            assert fetch(client, QUERY, options=lies) == NUMBERS
    assert backend.seen == ["spiffe://house/alice"] * 2 + ["bob"] * 2


@pytest.mark.parametrize("name", ["eve", None], ids=["another authority", "none"])
def test_who_shows_no_certificate_of_the_authority_is_not_let_in(
    certified: FlightSqlServer, certificates: Certificates, backend: WhoAmI, name: str | None
) -> None:
    with certificates.client(certified.port, name) as client:
        with pytest.raises(flight.FlightUnavailableError):
            fetch(client, QUERY)
    assert backend.seen == []


def test_tickets_are_for_the_certificates_name_on_any_listener(
    certified: FlightSqlServer, certificates: Certificates, service: Service
) -> None:
    """The two listeners share keys and service, and keep users apart."""
    from support_flight import descriptor, read  # noqa: PLC0415 - only here

    with certificates.client(certified.port, "alice") as client:
        ticket = client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket
        assert read(client.do_get(ticket)) == NUMBERS
    with certificates.client(certified.port, "bob") as client:
        with pytest.raises(flight.FlightUnauthorizedError, match="another user"):
            client.do_get(ticket)
    users = StaticUsers({}, {"spiffe://house/alice": "token-of-alice"})
    bearer = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer token-of-alice")])
    with serving(service, authenticator=users) as plain, hand(plain) as client:
        assert read(client.do_get(ticket, bearer)) == NUMBERS


def test_sessions_work_with_certificates(
    certified: FlightSqlServer, certificates: Certificates
) -> None:
    """The cookie comes from the call itself: the middleware does not see the certificate."""
    cookies: list[str] = []

    class Middleware(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow has no types
        def received_headers(self, headers: dict[str, list[str]]) -> None:
            cookies.extend(headers.get("set-cookie", []))

        def sending_headers(self) -> dict[str, str]:
            return {"cookie": cookies[0]} if cookies else {}

    class Factory(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
        def start_call(self, info: Any) -> flight.ClientMiddleware:
            del info
            return Middleware()

    alice = {
        "cert_chain": certificates.read("alice.pem"),
        "private_key": certificates.read("alice.key"),
        "tls_root_certs": certificates.read("ca.pem"),
    }
    location = f"grpc+tls://localhost:{certified.port}"
    with flight.connect(location, middleware=[Factory()], **alice) as client:
        fetch(client, QUERY)
        assert len(cookies) == 1
        (body,) = act(client, messages.CloseSession())
        assert bare(body, "CloseSessionResult").status == messages.CloseStatus.CLOSED


def test_a_listener_takes_certificates_or_credentials(certificates: Certificates) -> None:
    tls = Tls(*map(certificates.read, ("server.pem", "server.key", "ca.pem")))
    with pytest.raises(ValueError, match="not both"):
        FlightSqlServer(
            make_service(Numbers()), "grpc+tls://127.0.0.1:0", tls=tls, authenticator=StaticUsers()
        )


def test_the_settings_open_a_listener_for_certificates(
    certificates: Certificates,
    tmp_path: Path,
    backend: WhoAmI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A main listener that admits anybody beside it is warned of at start."""
    folder = certificates.folder
    config = tmp_path / "k2.toml"
    tls = f'tls_certificate = "{folder}/server.pem"\ntls_key = "{folder}/server.key"\n'
    config.write_text(f'[server]\n{tls}mtls_port = 0\nmtls_ca = "{folder}/ca.pem"\n')
    with caplog.at_level("WARNING", "k2.app"):
        server = _listen_certified(load(config, {}), make_service(backend))
        assert ["anonymous_admitted" in line for line in caplog.messages] == [True]
        caplog.clear()
        closed = config.read_text() + '[server.tokens]\ncarol = "a-token-of-carol"\n'
        config.write_text(closed)
        _listen_certified(load(config, {}), make_service(backend)).stop()
        assert caplog.messages == []
    with certificates.client(server.port, "alice") as client:
        assert fetch(client, QUERY) == NUMBERS
    server.stop()
    assert backend.seen == ["spiffe://house/alice"]
    for text, words in [
        (f"{tls}mtls_port = 0\n", "belong together"),
        ('mtls_port = 0\nmtls_ca = "ca.pem"\n', "needs tls_certificate"),
    ]:
        config.write_text(f"[server]\n{text}")
        with pytest.raises(ConfigRefused, match=words):
            load(config, {})
    config.write_text(f'[server]\n{tls}mtls_port = 0\nmtls_ca = "nowhere.pem"\n')
    with pytest.raises(ConfigRefused, match=r"server\.mtls_ca cannot be read"):
        _listen_certified(load(config, {}), make_service(backend))
