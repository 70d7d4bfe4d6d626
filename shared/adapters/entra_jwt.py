"""Entra ID's access tokens as an alternative to keys: PyJWT checks signatures, everything else about a token is checked here.

A token is good when it is signed by one of the tenant's published keys (RS256, nothing else), issued by this tenant for this
gateway, in force by our clock, and an access token: ID tokens, which pages get for themselves, name no client and are refused.
What its bearer may do is in the claim ``roles``, which the tenant's administrators assign; without one of ours: nothing.

The published keys are fetched by `HttpTransport` and kept: again every hour in the background, and for a key id that is not
known, at most every few minutes. While they can't be had, those that are known go on serving.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from shared.core.access import Identity, Role
from shared.core.errors import ConfigurationError, StorageUnavailableError
from shared.core.records import Caller
from shared.ports import Clock, HttpRequest, HttpTransport, TransportError

ALGORITHM: Final = "RS256"
AUTHORITY: Final = "https://login.microsoftonline.com"
LEEWAY: Final = 60.0
"""Seconds that Entra's clock and ours may differ by."""
REMEMBER_SECONDS: Final = 60.0
"""How long a token that was checked is not checked again; never beyond its expiry."""
FRESH_SECONDS: Final = 3_600.0
"""The age at which the published keys are fetched again: one that Entra takes back stops being good then."""
REFETCH_SECONDS: Final = 300.0
"""The least time between fetches for a key id that is not known: anybody can make such tokens."""
RETRY_SECONDS: Final = 15.0
"""The least time after a fetch that failed."""
FETCH_SECONDS: Final = 10.0
MAX_JWKS: Final = 256 * 1024
MAX_KEYS: Final = 100
MIN_KEY_BITS: Final = 2_048
MAX_TOKEN: Final = 16 * 1024
MAX_REMEMBERED: Final = 10_000
DEFAULT_PROJECT: Final = "default"

ROLES: Final[Mapping[str, Role]] = {
    "Switchyard.Admin": Role.ADMIN,
    "Switchyard.Member": Role.MEMBER,
    "Switchyard.Viewer": Role.VIEWER,
}
"""App roles to define in the app registration."""

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLAIM: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_MAX_KID: Final = 256
_OK: Final = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntraTenant:
    """Whose tokens are taken. ``tenant`` is the directory's id, ``audience`` the gateway's application: its id, or its URI.

    ``project_claim`` names the claim that holds the project; one that its bearer can't set. None: everybody's is `default`.
    """

    tenant: str
    audience: str
    project_claim: str | None = None
    authority: str = AUTHORITY

    def problems(self) -> list[str]:
        """Return what is wrong with it, in the words of the settings."""
        found = []
        if _ID.fullmatch(self.tenant.lower()) is None:
            found.append(
                "SWITCHYARD_ENTRA_TENANT must be a directory id such as 8a1b…-…: names, `common` and the like fit many"
            )
        if not self.audience or any(character.isspace() for character in self.audience):
            found.append("SWITCHYARD_ENTRA_AUDIENCE must be the gateway's application id, or its URI such as api://switchyard")
        if self.project_claim is not None and _CLAIM.fullmatch(self.project_claim) is None:
            found.append("SWITCHYARD_ENTRA_PROJECT_CLAIM must be the name of a claim")
        if not self.authority.startswith(("https://", "http://127.0.0.1:")) or self.authority.endswith("/"):
            found.append("SWITCHYARD_ENTRA_AUTHORITY must be an https URL without a slash at its end")
        return found


@dataclass(frozen=True, slots=True)
class _Checked:
    """A token that was found good: for whom, and until when (seconds since the epoch)."""

    identity: Identity
    until: float


class EntraVerifier:
    """A `TokenVerifier` for one tenant. Raise `ConfigurationError` when the tenant is described wrongly."""

    def __init__(self, tenant: EntraTenant, transport: HttpTransport, clock: Clock) -> None:
        if problems := tenant.problems():
            message = "The Entra settings have problems: " + "; ".join(problems)
            raise ConfigurationError(message, problems=problems)
        self._tenant = tenant
        self._id = tenant.tenant.lower()
        self._issuers = [f"{tenant.authority}/{self._id}/v2.0", f"https://sts.windows.net/{self._id}/"]
        self._keys = _PublishedKeys(f"{tenant.authority}/{self._id}/discovery/v2.0/keys", transport, clock)
        self._clock = clock
        self._checked: dict[bytes, _Checked] = {}

    async def verify(self, token: str) -> Identity | None:
        """Return whom a token stands for, None when it is not good.

        Raise `StorageUnavailableError` when the tenant's keys were never had.
        """
        if len(token) > MAX_TOKEN or not token.isascii():
            return None
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock.now()
        known = self._checked.get(digest)
        if known is not None and now < known.until:
            return known.identity
        try:
            claims = await self._claims(token)
            identity, expiry = self._identity(claims), _in_force(claims, now)
        except _RefusedError as refusal:
            _log.info("An Entra token was refused: %s", refusal)
            return None
        self._remember(digest, _Checked(identity, min(expiry, now + REMEMBER_SECONDS)))
        return identity

    async def aclose(self) -> None:
        """Give up what is being fetched."""
        await self._keys.aclose()

    async def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that this tenant signed and issued for this gateway."""
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("alg") != ALGORITHM or "crit" in header or not isinstance(kid, str) or len(kid) > _MAX_KID:
                message = "its header is not that of a token signed by Entra"
                raise _RefusedError(message)
            key = await self._keys.find(kid)
            if key is None:
                message = "its key is not one the tenant publishes"
                raise _RefusedError(message)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._tenant.audience,
                issuer=self._issuers,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _RefusedError(type(error).__name__) from None
        if claims.get("tid") != self._id:
            message = "it is not of this tenant"
            raise _RefusedError(message)
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        client = claims.get("azp", claims.get("appid"))
        if not _is_id(client):
            message = "it names no client: it is not an access token"
            raise _RefusedError(message)
        # A person's token has `scp`; without, an application calls for itself.
        subject = claims.get("oid") if "scp" in claims else client
        if not _is_id(subject):
            message = "it names nobody"
            raise _RefusedError(message)
        named = claims.get("roles", [])
        roles = frozenset(ROLES[name] for name in named if name in ROLES) if _is_texts(named) else frozenset()
        caller = Caller(f"entra:{subject}", self._project(claims), admin=Role.ADMIN in roles, name="entra")
        return Identity(caller, roles)

    def _project(self, claims: Mapping[str, Any]) -> str:
        if self._tenant.project_claim is None:
            return DEFAULT_PROJECT
        project = claims.get(self._tenant.project_claim, DEFAULT_PROJECT)
        if not isinstance(project, str) or _PROJECT.fullmatch(project) is None:
            message = "its project is not a name of 1 to 64 letters, digits, `.`, `_` or `-`"
            raise _RefusedError(message)
        return project

    def _remember(self, digest: bytes, checked: _Checked) -> None:
        self._checked.pop(digest, None)
        if len(self._checked) >= MAX_REMEMBERED:
            del self._checked[next(iter(self._checked))]
        self._checked[digest] = checked


class _RefusedError(Exception):
    """A token is not good. The message says why, and holds nothing of it."""


class _PublishedKeys:
    """The keys that a tenant signs with, by their ids."""

    def __init__(self, url: str, transport: HttpTransport, clock: Clock) -> None:
        self._url = url
        self._transport = transport
        self._clock = clock
        self._keys: dict[str, RSAPublicKey] | None = None
        self._fetched = -math.inf
        self._not_before = -math.inf
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> RSAPublicKey | None:
        """Return the key of that id, None when the tenant publishes none; raise `StorageUnavailableError`."""
        moment = self._clock.monotonic()
        if self._keys is not None and kid in self._keys:
            if moment - self._fetched >= FRESH_SECONDS and moment >= self._not_before:
                self._begin(moment)  # nobody waits: the key is good
            return self._keys[kid]
        if self._fetch is None and moment >= self._not_before:
            self._begin(moment)
        if self._fetch is not None:
            await asyncio.shield(self._fetch)
        if self._keys is None:
            message = "The keys that Entra signs tokens with could not be fetched. Try again soon, or use an API key."
            raise StorageUnavailableError(message, code="identity_provider_unavailable", retry_after=RETRY_SECONDS)
        return self._keys.get(kid)

    async def aclose(self) -> None:
        """Give up a fetch under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)

    def _begin(self, moment: float) -> None:
        if self._fetch is None:
            self._not_before = moment + RETRY_SECONDS
            self._fetch = asyncio.create_task(self._refresh(moment))
            self._fetch.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._fetch = None
        if not task.cancelled():
            task.exception()  # whoever waited has gone: it was seen

    async def _refresh(self, moment: float) -> None:
        """Fetch the keys. A failure leaves those that are known."""
        request = HttpRequest("GET", self._url, {"accept": "application/json"})
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                response = await self._transport.send(request, connect=FETCH_SECONDS, head=FETCH_SECONDS)
                try:
                    status, body = response.status, await response.read(MAX_JWKS)
                finally:
                    await response.aclose()
            if status != _OK:
                _log.error("Entra's keys could not be fetched: status %d", status)
                return
            self._keys = _keys_in(body)
        except (TransportError, TimeoutError, ValueError) as error:
            _log.error("Entra's keys could not be fetched: %s", type(error).__name__)
            return
        self._fetched, self._not_before = moment, moment + REFETCH_SECONDS


def _keys_in(body: bytes) -> dict[str, RSAPublicKey]:
    """Return the signing keys of a JWKS; raise `ValueError` when it is none, or has no key that can be used."""
    document = orjson.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    found: dict[str, RSAPublicKey] = {}
    for one in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        key = _key(one)
        if key is not None:
            found[one["kid"]] = key
    if not found:
        message = "no key in it can be used"
        raise ValueError(message)
    return found


def _key(listed: object) -> RSAPublicKey | None:
    """Return a listed key that signs with RS256 and is long enough; None for any other."""
    if not isinstance(listed, dict) or not isinstance(listed.get("kid"), str):
        return None
    if listed.get("kty") != "RSA" or listed.get("use", "sig") != "sig" or listed.get("alg", ALGORITHM) != ALGORITHM:
        return None
    try:
        key = RSAAlgorithm.from_jwk({name: listed[name] for name in ("kty", "n", "e")})
    except (jwt.PyJWTError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= MIN_KEY_BITS else None


def _in_force(claims: Mapping[str, Any], now: float) -> float:
    """Return a token's expiry; raise when it is over, or not in force yet."""
    expiry, start = claims["exp"], claims.get("nbf", 0)
    if not _is_moment(expiry) or not _is_moment(start):
        message = "its times are not whole seconds"
        raise _RefusedError(message)
    if now >= expiry + LEEWAY:
        message = "it has expired"
        raise _RefusedError(message)
    if now < start - LEEWAY:
        message = "it is not in force yet"
        raise _RefusedError(message)
    return float(expiry)


def _is_moment(value: object) -> bool:
    latest = 253_402_300_799  # the end of the year 9999
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= latest


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
