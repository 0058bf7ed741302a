"""The object stores that statements read from, each under a name of its own in the engine.

The engine finds a store by the scheme and host of a path, and all contexts share one list of them.
Were a bucket's own name used, two tables of one bucket would read with each other's credentials,
and renewed credentials would change under running statements. So every distinct set of options is
registered once as ``s3://k2-N``, and paths are rewritten to it where they are handed to the engine.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from datafusion import SessionContext
from datafusion.object_store import AmazonS3, GoogleCloud, MicrosoftAzure

from catalog.errors import Unsupported
from catalog.scan import root
from catalog.stores import StoreOptions

#: Stores that are kept open though no statement reads from them: as many tables as are read often.
_MAX_IDLE = 256
_SCHEME = "s3://"
#: The bindings panic where settings contradict each other, as a key without its secret.
_BUILDERS_RAISE = frozenset({"PanicException", "ValueError"})
#: What the engine's S3 client asks its environment, and no argument tells it.
_UNSIGNED = "AWS_SKIP_SIGNATURE"


@dataclass(slots=True)
class _Open:
    """A registered store, and how many statements read from it."""

    number: int
    readers: int = 0

    @property
    def host(self) -> str:
        """What stands in paths where the bucket's name was; no bucket can be reached by it."""
        return f"k2-{self.number}"


@dataclass(frozen=True, slots=True)
class Reach:
    """How the engine reaches a table's paths; used by one thread at a time.

    Attributes:
        lease: what paths begin with (:func:`catalog.scan.root`) → what they begin with there; asked
            when the first such path is met, and never for local files. None: all paths stay.
        known: what it has said.
    """

    lease: Callable[[str], str] | None = None
    known: dict[str, str] = field(default_factory=dict)

    def __call__(self, paths: Sequence[str]) -> list[str]:
        """The paths as the engine opens them; those of local files stay."""
        return list(paths) if self.lease is None else [self._one(path) for path in paths]

    def _one(self, path: str) -> str:
        place = root(path)
        if not place or self.lease is None:
            return path
        if place not in self.known:
            self.known[place] = self.lease(place)
        return self.known[place] + path[len(place) :]


class Stores:
    """The engine's open stores; any thread.

    ``_lock`` guards the map and the order of registering; a store that a statement reads from is
    never removed. All contexts must come from one runtime builder, which shares their list.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[StoreOptions, _Open] = OrderedDict()
        self._count = 0

    def lease(self, context: SessionContext, options: StoreOptions, resources: ExitStack) -> str:
        """Lets ``context`` open files of a store until ``resources`` are closed.

        Returns:
            What the engine's paths begin with instead of the table's.

        Raises:
            Unsupported: the engine's client cannot be told these options.
        """
        with self._lock:
            found = self._open.get(options)
            if found is None:
                self._count += 1
                found = _Open(self._count)
                context.register_object_store(_SCHEME, _client(options), host=found.host)
                self._open[options] = found
                self._forget(context)
            self._open.move_to_end(options)
            found.readers += 1
        resources.callback(self._release, found)
        return f"{_SCHEME}{found.host}"

    def _release(self, opened: _Open) -> None:
        with self._lock:
            opened.readers -= 1

    def _forget(self, context: SessionContext) -> None:
        """Removes what was not read from for longest, of what nobody reads from."""
        idle = [options for options, each in self._open.items() if each.readers == 0]
        for options in idle[: max(0, len(idle) - 1 - _MAX_IDLE)]:  # the last is the new one
            context.deregister_object_store(_SCHEME, self._open.pop(options).host)


def _client(options: StoreOptions) -> AmazonS3 | GoogleCloud | MicrosoftAzure:
    try:
        return {"s3": _s3, "gcs": _gcs, "azure": _azure}[options.scheme](options)
    except BaseException as error:
        if type(error).__name__ not in _BUILDERS_RAISE:
            raise
    # Outside of the handler: the client's text may hold a key.
    raise Unsupported(
        f"the settings of the {options.scheme} store make no client: check them in [catalog]"
    )


def _s3(options: StoreOptions) -> AmazonS3:
    def made() -> AmazonS3:
        return AmazonS3(
            options.bucket,
            region=options.region or "us-east-1",
            access_key_id=options.access_key_id,
            secret_access_key=options.secret_access_key,
            session_token=options.session_token,
            endpoint=options.endpoint,
            allow_http=options.allow_http,
        )

    if not options.anonymous:
        return made()
    before = os.environ.get(_UNSIGNED)
    os.environ[_UNSIGNED] = "true"  # under the lock of all clients; the interpreter's, too
    try:
        return made()
    finally:
        if before is None:
            del os.environ[_UNSIGNED]
        else:
            os.environ[_UNSIGNED] = before


def _gcs(options: StoreOptions) -> GoogleCloud:
    """With the environment's service account; at an endpoint of one's own, an emulator's, none."""
    if options.endpoint is None:
        return GoogleCloud(options.bucket)
    account = {
        "gcs_base_url": options.endpoint,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(account, file)
        file.flush()
        return GoogleCloud(options.bucket, service_account_path=file.name)


def _azure(options: StoreOptions) -> MicrosoftAzure:
    tenant, client, secret = options.client or (None, None, None)
    signature = None
    if options.sas:
        words = options.sas.lstrip("?").split("&")
        signature = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    return MicrosoftAzure(
        options.bucket,
        account=options.account,
        access_key=options.account_key,
        bearer_token=options.token,
        client_id=client,
        client_secret=secret,
        tenant_id=tenant,
        sas_query_pairs=signature,
    )
