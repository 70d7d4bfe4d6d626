"""Entra's tokens: one that is signed, issued and in force for this gateway lets its bearer do what its roles say; no other."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from shared.adapters import entra_jwt
from shared.adapters.entra_jwt import (
    FRESH_SECONDS,
    LEEWAY,
    MAX_TOKEN,
    REFETCH_SECONDS,
    REMEMBER_SECONDS,
    RETRY_SECONDS,
    EntraTenant,
    EntraVerifier,
)
from shared.core.access import Identity, Role
from shared.core.errors import ConfigurationError, StorageUnavailableError
from shared.core.records import Caller
from shared.ports import HttpTransport
from tests.fakes import FakeClock

TENANT: Final = "11111111-2222-3333-4444-555555555555"
AUDIENCE: Final = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
PERSON: Final = "99999999-8888-7777-6666-555555555555"
CLIENT: Final = "12345678-1234-1234-1234-123456789abc"


@cache
def rsa(name: str, bits: int = 2048) -> RSAPrivateKey:
    """Return the key of that name."""
    del name
    return generate_private_key(public_exponent=65_537, key_size=bits)


def listed(kid: str, key: RSAPrivateKey | None = None, **changes: Any) -> dict[str, Any]:
    """Return a key as a tenant publishes it."""
    return {**RSAAlgorithm.to_jwk((key or rsa(kid)).public_key(), as_dict=True), "kid": kid, "use": "sig"} | changes


@dataclass
class Provider:
    """A loopback identity provider that publishes keys; it can fail, hang, and knows how often it was asked."""

    url: str = ""
    keys: list[Any] = field(default_factory=lambda: [listed("one")])
    body: bytes | None = None
    status: int = 200
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b" ")[1].decode())
        if self.gate is not None:
            await self.gate.wait()
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (self.status, len(body)) + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def provider() -> AsyncGenerator[Provider, None]:
    """Run an identity provider on a free port."""
    made = Provider()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    if made.gate is not None:
        made.gate.set()
    server.close()
    await server.wait_closed()


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that is moved by hand."""
    return FakeClock()


@pytest.fixture
async def verifier(provider: Provider, transport: HttpTransport, clock: FakeClock) -> AsyncGenerator[EntraVerifier, None]:
    """Return the verifier of a gateway whose tenant publishes one key."""
    opened = EntraVerifier(EntraTenant(TENANT, AUDIENCE, "project", provider.url), transport, clock)
    yield opened
    await opened.aclose()


Mint = Callable[..., str]


@pytest.fixture
def mint(provider: Provider, clock: FakeClock) -> Mint:
    """Return a maker of tokens, good ones but for what is changed; a claim that is ... is left out."""

    def make(
        *, kid: Any = "one", key: RSAPrivateKey | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        now = int(clock.now())
        claims: dict[str, Any] = {
            "iss": f"{provider.url}/{TENANT}/v2.0",
            "aud": AUDIENCE,
            "tid": TENANT,
            "iat": now,
            "nbf": now,
            "exp": now + 3_600,
            "oid": PERSON,
            "azp": CLIENT,
            "scp": "access",
            "roles": ["Switchyard.Member"],
            "ver": "2.0",
        } | changes
        return signed(
            {"alg": "RS256", "typ": "JWT", "kid": kid, **(header or {})},
            {name: value for name, value in claims.items() if value is not ...},
            key or rsa("one"),
        )

    return make


def part(value: object) -> str:
    """Return a part of a token."""
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def signed(header: dict[str, Any], claims: dict[str, Any], key: RSAPrivateKey) -> str:
    """Sign with RS256 whatever the header says."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(RSAAlgorithm(RSAAlgorithm.SHA256).sign(text.encode(), key))}"


# ---- who is it -------------------------------------------------------------------------------------------------------


async def test_a_persons_token(verifier: EntraVerifier, mint: Mint, provider: Provider) -> None:
    """It stands for the person's object id; the project is the configured claim, `default` without."""
    expected = Identity(Caller(f"entra:{PERSON}", "default", name="entra"), frozenset({Role.MEMBER}))

    assert await verifier.verify(mint()) == expected
    found = await verifier.verify(mint(project="shop"))
    assert found is not None
    assert ("shop", f"entra:{PERSON}") == (found.caller.project, found.caller.key_id)
    assert [f"/{TENANT}/discovery/v2.0/keys"] == provider.asked


async def test_an_applications_token(verifier: EntraVerifier, mint: Mint) -> None:
    """Without a scope an application calls for itself: it is its client id, in tokens of either version."""
    for token in (
        mint(scp=...),
        mint(scp=..., azp=..., appid=CLIENT, iss=f"https://sts.windows.net/{TENANT}/", ver="1.0"),
    ):
        found = await verifier.verify(token)
        assert found is not None
        assert f"entra:{CLIENT}" == found.caller.key_id


@pytest.mark.parametrize(
    ("claim", "roles"),
    [
        (["Switchyard.Admin"], {Role.ADMIN}),
        (["Switchyard.Viewer", "Other.Admin"], {Role.VIEWER}),
        (["Switchyard.Member", "Switchyard.Viewer"], {Role.MEMBER, Role.VIEWER}),
        (["switchyard.admin", "admin", "Switchyard.Admin "], set()),
        ([], set()),
        (..., set()),
        ("Switchyard.Admin", set()),
        ({"Switchyard.Admin": True}, set()),
        ([["Switchyard.Admin"]], set()),
        (None, set()),
    ],
)
async def test_roles_come_from_the_claim(verifier: EntraVerifier, mint: Mint, claim: Any, roles: set[Role]) -> None:
    """Ours, exactly as they are named; anything else is no role, and no role may do nothing."""
    found = await verifier.verify(mint(roles=claim))

    assert found is not None
    assert roles == found.roles
    assert (Role.ADMIN in roles) == found.caller.admin


# ---- what is refused -------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("another signer", {"key": rsa("other")}),
    ("a key that is not published", {"kid": "two", "key": rsa("other")}),
    ("no kid", {"header": {"kid": None}}),
    ("a number as kid", {"kid": 5}),
    ("a list as kid", {"kid": ["one"]}),
    ("a huge kid", {"kid": "x" * 5_000}),
    ("crit", {"header": {"crit": ["exp"], "exp": 1}}),
    ("detached payload", {"header": {"b64": False, "crit": ["b64"]}}),
    ("another audience", {"aud": "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"}),
    ("no audience", {"aud": ...}),
    ("a number as audience", {"aud": 5}),
    ("another tenant's issuer", {"iss": "https://sts.windows.net/21111111-2222-3333-4444-555555555555/"}),
    ("an issuer that begins the same", {"iss": f"https://sts.windows.net/{TENANT}/x"}),
    ("no issuer", {"iss": ...}),
    ("a list as issuer", {"iss": [f"https://sts.windows.net/{TENANT}/"]}),
    ("another tenant", {"tid": "21111111-2222-3333-4444-555555555555"}),
    ("no tenant", {"tid": ...}),
    ("no expiry", {"exp": ...}),
    ("text as expiry", {"exp": "2099"}),
    ("infinite expiry", {"exp": math.inf}),
    ("NaN as expiry", {"exp": math.nan}),
    ("true as expiry", {"exp": True}),
    ("a fraction as expiry", {"exp": 1.8e9}),
    ("10^30 as expiry", {"exp": 10**30}),
    ("text as start", {"nbf": "0"}),
    ("an ID token", {"azp": ...}),
    ("a client that is no id", {"azp": "portal"}),
    ("a person that is no id", {"oid": "../admin"}),
    ("no person", {"oid": ...}),
    ("a project that is no name", {"project": "a/b"}),
    ("a list as project", {"project": ["shop"]}),
    ("an empty project", {"project": ""}),
]


@pytest.mark.parametrize(("case", "changes"), WRONG, ids=[case for case, _ in WRONG])
async def test_a_wrong_token_is_nobodys(verifier: EntraVerifier, mint: Mint, case: str, changes: dict[str, Any]) -> None:
    """Each refusal, beside a token that differs in this alone and is good."""
    assert await verifier.verify(mint()) is not None
    assert await verifier.verify(mint(**changes)) is None, case


async def test_only_rs256_with_a_published_key(verifier: EntraVerifier, mint: Mint) -> None:
    """`none`, HS256 with the public key as its secret, other algorithms, and keys the token brings along."""
    head, claims, signature = mint().split(".")
    public = rsa("one").public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    forged = []
    for algorithm in ("none", "None", "NONE", "HS256", "hs256", "RS384", "PS256", "ES256", "rs256", "", None, ["RS256"]):
        text = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': 'one'})}.{claims}"
        secret = hmac.new(pem, text.encode(), hashlib.sha256).digest()
        forged += [f"{text}.{part(secret)}", f"{text}.{signature}", f"{text}."]
    forged.append(mint(kid="mine", key=rsa("other"), header={"jwk": listed("mine", rsa("other"))}))
    forged.append(mint(key=rsa("other"), header={"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/"}))

    assert await verifier.verify(f"{head}.{claims}.{signature}") is not None
    for token in forged:
        assert await verifier.verify(token) is None, token


async def test_what_is_no_token_is_nobodys(verifier: EntraVerifier, mint: Mint, provider: Provider) -> None:
    """Cut, changed, padded, nested, too long: refused, without a question to the provider where the form is wrong."""
    good = mint()
    head, claims, signature = good.split(".")
    deep = part(b"[" * 5_000)
    shapeless = ["", ".", "..", "a.b.c", head, f"{head}.{claims}", "é" + good, good + "\ud83d", f"{deep}.{claims}.{signature}"]
    shapeless += [good + "x" * MAX_TOKEN, f"{part(b'[]')}.{claims}.{signature}", f"{part(b'{')}.{claims}.{signature}"]
    for token in shapeless:
        assert await verifier.verify(token) is None
    assert provider.asked == []

    other = part(json.loads(base64.urlsafe_b64decode(claims + "==")) | {"roles": ["Switchyard.Admin"]})
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    for token in (f"{head}.{other}.{signature}", f"{head}.{claims}.{flipped}", f"{head}.{claims}.", f"{good}.{signature}"):
        assert await verifier.verify(token) is None
    for odd in (b"[]", b"5", b"{", b"\xff", b"[" * 5_000):
        text = f"{head}.{part(odd)}"
        token = f"{text}.{part(RSAAlgorithm(RSAAlgorithm.SHA256).sign(text.encode(), rsa('one')))}"
        assert await verifier.verify(token) is None
    assert await verifier.verify(good) is not None


async def test_a_token_is_good_while_it_is_in_force(verifier: EntraVerifier, mint: Mint, clock: FakeClock) -> None:
    """From its start to its expiry, give or take the leeway, by our clock; also when it was remembered."""
    now = int(clock.now())
    token = mint(nbf=now + LEEWAY + 10, exp=now + 200)  # a float, as no start may be
    assert await verifier.verify(token) is None
    token = mint(nbf=now + int(LEEWAY) + 10, exp=now + 200)
    seen = []
    for _ in range(5):
        seen.append(await verifier.verify(token) is not None)
        clock.seconds += 65
    assert [False, True, True, True, False] == seen


async def test_nothing_of_a_token_is_logged(verifier: EntraVerifier, mint: Mint, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal says why, and neither the token nor its claims."""
    caplog.set_level("DEBUG")
    tokens = [mint(name="canary"), mint(aud="canary-audience"), mint(kid="canary-kid"), mint(oid="canary-oid")]
    for token in tokens:
        await verifier.verify(token)

    assert "refused" in caplog.text
    assert "canary" not in caplog.text
    for token in tokens:
        assert token not in caplog.text + repr(verifier)


# ---- keys and caches -------------------------------------------------------------------------------------------------


async def test_a_checked_token_is_remembered_by_all_of_it(
    verifier: EntraVerifier, mint: Mint, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute, and another one with the same beginning is not it (CVE-2026-35030)."""
    checks: list[str] = []
    decode = jwt.decode

    def counted(token: str, *args: Any, **options: Any) -> Any:
        checks.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    token = mint()
    for _ in range(50):
        assert await verifier.verify(token) is not None
    assert len(checks) == 1
    assert await verifier.verify(token[:-8] + "AAAAAAAA") is None
    clock.seconds += REMEMBER_SECONDS
    assert await verifier.verify(token) is not None
    assert len(checks) == 3


async def test_what_is_remembered_is_bounded(verifier: EntraVerifier, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room."""
    monkeypatch.setattr(entra_jwt, "MAX_REMEMBERED", 3)
    for number in range(6):
        assert await verifier.verify(mint(jti=str(number))) is not None
    assert len(verifier._checked) == 3


async def test_keys_are_fetched_once(verifier: EntraVerifier, mint: Mint, provider: Provider) -> None:
    """Fifty first callers share a fetch, and the next need none; one who leaves stops nobody."""
    asked = [asyncio.ensure_future(verifier.verify(mint(jti=str(number)))) for number in range(50)]
    await asyncio.sleep(0)
    asked[0].cancel()

    assert all(await asyncio.gather(*asked[1:]))
    assert all([await verifier.verify(mint(jti=f"later {number}")) for number in range(5)])
    assert len(provider.asked) == 1


async def test_a_new_key_is_found_and_strangers_cost_little(
    verifier: EntraVerifier, mint: Mint, provider: Provider, clock: FakeClock
) -> None:
    """An unknown key id asks the provider again, but not more than every few minutes."""
    await verifier.verify(mint())
    provider.keys.append(listed("two"))
    rolled = mint(kid="two", key=rsa("two"))
    for number in range(20):
        assert await verifier.verify(mint(kid=f"made up {number}")) is None
    assert await verifier.verify(rolled) is None
    assert len(provider.asked) == 1
    clock.seconds += REFETCH_SECONDS
    assert await verifier.verify(rolled) is not None
    assert len(provider.asked) == 2


async def test_a_key_that_is_taken_back_stops(
    verifier: EntraVerifier, mint: Mint, provider: Provider, clock: FakeClock
) -> None:
    """Within an hour and a token's minute; nobody waits for the fetch that finds out."""
    await verifier.verify(mint())
    provider.keys = [listed("two")]
    clock.seconds += FRESH_SECONDS
    provider.gate = asyncio.Event()
    assert await verifier.verify(mint(jti="a")) is not None
    provider.gate.set()
    while verifier._keys._fetch is not None:
        await asyncio.sleep(0.001)
    assert await verifier.verify(mint(jti="b")) is None


async def test_an_outage_of_the_provider_keeps_known_keys(
    verifier: EntraVerifier, mint: Mint, provider: Provider, clock: FakeClock
) -> None:
    """For as long as it lasts, with a try now and then; when it ends the keys are new again."""
    await verifier.verify(mint())
    provider.status = 503
    for _ in range(5):
        clock.seconds += FRESH_SECONDS
        assert await verifier.verify(mint()) is not None
        while verifier._keys._fetch is not None:
            await asyncio.sleep(0.001)
        assert await verifier.verify(mint(jti="again")) is not None
    assert len(provider.asked) == 6


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302},
        {"body": b"not json"},
        {"body": b"[]"},
        {"body": b'{"keys": {}}'},
        {"body": b'{"keys": []}'},
        {"body": b'{"keys": [5, {}, {"kid": 1}, {"kid": "one", "kty": "RSA"}]}'},
        {"body": b'{"keys": [{"kid": "one", "kty": "RSA", "n": "!", "e": 5}]}'},
        {"body": b" " * 300_000 + b'{"keys": []}'},
        {"keys": [{"kid": "one", "kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [listed("one", use="enc")]},
        {"keys": [listed("one", alg="RS512")]},
        {"keys": [listed("one", rsa("short", 1024))]},
    ],
    ids=str,
)
async def test_without_keys_nobody_is_let_in(
    verifier: EntraVerifier, mint: Mint, provider: Provider, clock: FakeClock, broken: dict[str, Any]
) -> None:
    """A provider that is down, or publishes nothing usable: 503 with a time to come back, and soon another try."""
    for name, value in broken.items():
        setattr(provider, name, value)
    for _ in range(3):
        with pytest.raises(StorageUnavailableError) as failure:
            await verifier.verify(mint())
        assert ("identity_provider_unavailable", RETRY_SECONDS) == (failure.value.code, failure.value.retry_after)
    assert len(provider.asked) == 1
    provider.status, provider.body, provider.keys = 200, None, [listed("one")]
    clock.seconds += RETRY_SECONDS
    assert await verifier.verify(mint()) is not None


async def test_closing_gives_up_a_fetch(provider: Provider, transport: HttpTransport, clock: FakeClock, mint: Mint) -> None:
    """Nothing hangs at the end."""
    verifier = EntraVerifier(EntraTenant(TENANT, AUDIENCE, None, provider.url), transport, clock)
    provider.gate = asyncio.Event()
    asked = asyncio.ensure_future(verifier.verify(mint()))
    while not provider.asked:
        await asyncio.sleep(0.001)
    await verifier.aclose()

    with pytest.raises(asyncio.CancelledError):
        await asked


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        (EntraTenant("common", AUDIENCE), "TENANT"),
        (EntraTenant("contoso.onmicrosoft.com", AUDIENCE), "TENANT"),
        (EntraTenant("", AUDIENCE), "TENANT"),
        (EntraTenant(f"{TENANT}/x", AUDIENCE), "TENANT"),
        (EntraTenant(TENANT, ""), "AUDIENCE"),
        (EntraTenant(TENANT, "a b"), "AUDIENCE"),
        (EntraTenant(TENANT, AUDIENCE, ""), "PROJECT_CLAIM"),
        (EntraTenant(TENANT, AUDIENCE, authority="http://login.example"), "AUTHORITY"),
    ],
)
def test_wrong_settings_are_refused(tenant: EntraTenant, name: str, transport: HttpTransport, clock: FakeClock) -> None:
    """A tenant that fits many would let them all in."""
    with pytest.raises(ConfigurationError, match=f"SWITCHYARD_ENTRA_{name}"):
        EntraVerifier(tenant, transport, clock)
