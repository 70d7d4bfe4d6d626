"""A storage account: where it is, how requests to it are signed, and sending them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Final

from shared.adapters.tables.azure_wire import Answer, Draft, answer
from shared.adapters.tables.retries import Retries
from shared.core.errors import ConfigurationError, StorageUnavailableError
from shared.ports import Clock, HttpRequest, HttpTransport, TokenSource

CONNECT: Final = 1.0
HEAD: Final = 2.5
"""Seconds until a connection stands, and from then until an answer begins, of each attempt."""

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Azure's pages are 4 MiB at most; the emulator has no such bound, and rows may have 1 MiB."""

SCOPE: Final = "https://storage.azure.com/.default"
EMULATOR_ACCOUNT: Final = "devstoreaccount1"
# Not a secret: Microsoft publishes this key, it is the same in every emulator, and no real account can have it.
EMULATOR_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
EMULATOR_URL: Final = f"http://127.0.0.1:10002/{EMULATOR_ACCOUNT}"

_EMULATOR: Final = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):\d{1,5}/" + EMULATOR_ACCOUNT)
_AZURE: Final = re.compile(
    r"https://[a-z0-9]{3,24}\.table\.(?:core\.windows\.net|core\.usgovcloudapi\.net|core\.chinacloudapi\.cn)"
)
_VERSION: Final = {"x-ms-version": "2020-12-06", "DataServiceVersion": "3.0;NetFx", "MaxDataServiceVersion": "3.0;NetFx"}
FORMS: Final = (
    "azurite: (the emulator), azurite:http://127.0.0.1:PORT/devstoreaccount1 or https://ACCOUNT.table.core.windows.net"
)


class Account:
    """One account, over the process's HTTP client, which stays its owner's. ``tokens`` None is the emulator's key."""

    def __init__(self, url: str, *, transport: HttpTransport, tokens: TokenSource | None, clock: Clock) -> None:
        self.url = url
        self._transport = transport
        self._tokens = tokens
        self._clock = clock
        self._retries = Retries(clock)
        self._key = base64.b64decode(EMULATOR_KEY)
        self._dated = (-1, "")
        self._running = 0
        self._closed = False
        self._idle = asyncio.Event()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the account open; what is asked within is answered before it closes."""
        if self._closed:
            message = "The store is closed."
            raise StorageUnavailableError(message)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def ask(self, draft: Draft, *, repeatable: bool) -> Answer:
        """Send and return the answer; see `Retries.answered`. Only within `use`."""
        return await self._retries.answered(lambda: self._send(draft), repeatable=repeatable)

    async def aclose(self) -> None:
        """Refuse what comes from now on and wait for what is on its way. May be called twice."""
        self._closed = True
        while self._running:
            self._idle.clear()
            await self._idle.wait()

    async def _send(self, draft: Draft) -> Answer:
        url = f"{self.url}{draft.path}?{draft.query}" if draft.query else self.url + draft.path
        date = self._date()
        headers = {"x-ms-date": date, "Authorization": await self._authorization(draft.path, date), **_VERSION, **draft.headers}
        request = HttpRequest(draft.method, url, headers, draft.body)
        response = await self._transport.send(request, connect=CONNECT, head=HEAD)
        try:
            return answer(response.status, response.headers, await response.read(MAX_ANSWER))
        finally:
            await response.aclose()

    def _date(self) -> str:
        second = int(self._clock.now())
        if self._dated[0] != second:
            self._dated = (second, formatdate(second, usegmt=True))
        return self._dated[1]

    async def _authorization(self, path: str, date: str) -> str:
        if self._tokens is not None:
            return f"Bearer {await self._tokens.token(SCOPE)}"
        # The emulator's account is named twice: as the account, and as the first segment of its path.
        text = f"{date}\n/{EMULATOR_ACCOUNT}/{EMULATOR_ACCOUNT}{path}"
        signature = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return f"SharedKeyLite {EMULATOR_ACCOUNT}:{base64.b64encode(signature).decode()}"


def emulator_url(setting: str) -> str | None:
    """Return the emulator's URL for ``azurite:`` and ``azurite:URL``; None for other settings."""
    kind, colon, url = setting.partition(":")
    if kind != "azurite" or not colon:
        return None
    if url and _EMULATOR.fullmatch(url) is None:
        message = f"SWITCHYARD_STORAGE: the emulator listens on this machine: azurite: or azurite:{EMULATOR_URL}"
        raise ConfigurationError(message, problems=[message])
    return url or EMULATOR_URL


def account_url(setting: str) -> str | None:
    """Return the URL of an account in Azure; None for other settings. Tokens go nowhere else."""
    url = setting.removesuffix("/")
    return url if _AZURE.fullmatch(url) is not None else None
