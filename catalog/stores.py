"""From a catalog's properties, vended credentials included, to how a store's files are opened.

The names are pyiceberg's: ``s3.*``, ``gcs.*``, ``adls.*``, ``client.*``. Pure.
Source: Iceberg REST catalog specification, LoadTableResult ("config"), for when credentials end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from catalog.errors import Unsupported, shorten

#: How the engine reaches a store.
Kind = Literal["file", "s3", "gcs", "azure"]

_KINDS: Mapping[str, Kind] = {
    "": "file",
    "file": "file",
    **dict.fromkeys(["s3", "s3a", "s3n"], "s3"),
    **dict.fromkeys(["gs", "gcs"], "gcs"),
    **dict.fromkeys(["abfs", "abfss", "wasb", "wasbs"], "azure"),
}
#: Properties that say when vended credentials end, in ms since the epoch; Azure's name an account.
_EXPIRY = ("s3.session-token-expires-at-ms", "gcs.oauth2.token-expires-at")
_AZURE_EXPIRY = "adls.sas-token-expires-at-ms."


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What an engine needs to open a table's files itself; equal options reach the same files.

    Attributes:
        scheme: which client: ``file``, ``s3``, ``gcs`` or ``azure``.
        bucket: the bucket or container; "" for files.
        endpoint: URL of a store that is not the public one; None: the public one.
        region: the bucket's region.
        access_key_id: None: the environment's credentials, or anonymous access.
        secret_access_key: of S3; never shown.
        session_token: of S3; never shown.
        virtual_hosted: the bucket is part of the host name; else of the path.
        anonymous: send no credentials at all.
        account: Azure's storage account.
        account_key: Azure's; never shown.
        token: an OAuth token of Azure; never shown.
        sas: a shared access signature of Azure, ``sv=…&sig=…``; never shown.
        client: tenant, id and secret of an application of Azure's; never shown.
    """

    scheme: Kind
    bucket: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    virtual_hosted: bool = False
    anonymous: bool = False
    account: str | None = None
    account_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    client: tuple[str, str, str] | None = field(default=None, repr=False)

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint is plain HTTP."""
        return self.endpoint is not None and self.endpoint.startswith("http://")


def store_options(properties: Mapping[str, str], path: str) -> StoreOptions:
    """How to reach ``path`` with a store's pyiceberg properties (vended credentials included).

    Raises:
        Unsupported: a store that the engine cannot read natively, or not with these properties.
    """
    scheme = urlsplit(path).scheme
    kind = _KINDS.get(scheme)
    if kind is None:
        raise Unsupported(f"files in a {shorten(scheme)} store cannot be read yet")
    if kind == "file":
        return StoreOptions("file")
    place = urlsplit(path).netloc
    return {"s3": _s3, "gcs": _gcs, "azure": _azure}[kind](properties, place)


def _s3(properties: Mapping[str, str], place: str) -> StoreOptions:
    endpoint = properties.get("s3.endpoint") or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"https://{endpoint}"

    def either(name: str) -> str | None:
        return properties.get(f"s3.{name}") or properties.get(f"client.{name}")

    return StoreOptions(
        scheme="s3",
        bucket=place,
        endpoint=endpoint,
        region=either("region"),
        access_key_id=either("access-key-id"),
        secret_access_key=either("secret-access-key"),
        session_token=either("session-token"),
        virtual_hosted=_is_true(properties, "s3.force-virtual-addressing") or endpoint is None,
        anonymous=_is_true(properties, "s3.anonymous"),
    )


def _gcs(properties: Mapping[str, str], place: str) -> StoreOptions:
    if properties.get("gcs.oauth2.token"):
        raise Unsupported(
            "the engine's client for Google Cloud Storage takes no token (gcs.oauth2.token): give "
            "the server a service account (GOOGLE_APPLICATION_CREDENTIALS) instead"
        )
    endpoint = properties.get("gcs.service.host") or properties.get("gcs.endpoint")
    return StoreOptions("gcs", place, endpoint or None)


def _azure(properties: Mapping[str, str], place: str) -> StoreOptions:
    """``container@account.dfs.core.windows.net``, or ``container`` with ``adls.account-name``."""
    for name in ("adls.connection-string", "adls.blob-storage-authority", "adls.account-host"):
        if properties.get(name):
            raise Unsupported(
                f"the engine's client for Azure does not know {name}: set adls.account-name with "
                "adls.account-key, adls.sas-token, or adls.tenant-id, -client-id and -client-secret"
            )
    container, _, host = place.rpartition("@") if "@" in place else (place, "", "")
    account = host.partition(".")[0] or properties.get("adls.account-name")
    if not account:
        raise Unsupported("the paths of the table name no storage account: set adls.account-name")
    keyed = (f"adls.sas-token.{host}", f"adls.sas-token.{account}", "adls.sas-token")
    names = ("adls.tenant-id", "adls.client-id", "adls.client-secret")
    signature = next((found for name in keyed if (found := properties.get(name))), None)
    application = tuple(properties.get(name, "") for name in names)
    return StoreOptions(
        scheme="azure",
        bucket=container,
        account=account,
        # A signature is what was vended: the client would prefer the catalog's own key.
        account_key=None if signature else properties.get("adls.account-key") or None,
        token=None if signature else properties.get("adls.token") or None,
        sas=signature,
        client=(application[0], application[1], application[2]) if all(application) else None,
    )


def credentials_end_s(properties: Mapping[str, str]) -> float | None:
    """When the credentials in a store's properties end, in s since the epoch; None: never said."""
    names = [name for name in properties if name in _EXPIRY or name.startswith(_AZURE_EXPIRY)]
    ends = [int(text) / 1000 for name in names if (text := properties[name]).isdecimal()]
    return min(ends, default=None)


def _is_true(properties: Mapping[str, str], name: str) -> bool:
    return properties.get(name, "false").lower() == "true"
