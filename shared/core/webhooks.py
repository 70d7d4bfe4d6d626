"""Which URLs an alert may be sent to, and which addresses those may lead to. Pure: names are resolved elsewhere.

A webhook is chosen by a request, so it must not become a way into the network the gateway runs in: its host must be on the
operator's list, and whatever the name resolves to must be a public address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that may be reached without TLS and at a private address, if the operator lists them: for trying it on one machine."""
MAX_URL: Final = 1_024

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:(?P<name>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:]+)\])(?::(?P<port>[0-9]{1,5}))?(?:/[^\s\\#]*)?",
    re.ASCII,
)
"""Stricter than any URL parser, so that no two of them can disagree about the host: no credentials, no fragment."""

_PRINTABLE: Final = re.compile(r"[!-~]+")
_PORTS: Final = {"https": 443, "http": 80}
_MAX_PORT: Final = 65_535

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_DETOURS: Final = tuple(
    map(ipaddress.ip_network, ("::/96", "2002::/16", "192.88.99.0/24", "64:ff9b:1::/48", "168.63.129.16/32"))
)
"""Public by their registration, and a way inside: IPv4 in IPv6 (compatible, 6to4, local NAT64), and Azure's own wire server."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook's URL leads. ``host`` is in lower case, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int


class WebhookRefusedError(ValueError):
    """The URL may not be called. The message says why, and does not repeat the URL: it may hold a secret."""


def target_of(url: str, allowed: Collection[str]) -> Target:
    """Return where a webhook leads; raise `WebhookRefusedError` unless it may go there.

    ``allowed`` holds ``host`` (its default port; of a loopback host any port) or ``host:port``, in lower case.
    """
    found = _URL.fullmatch(url) if len(url) <= MAX_URL and _PRINTABLE.fullmatch(url) else None
    if found is None:
        message = f"must be a URL such as https://hooks.example.com/alerts, at most {MAX_URL} characters, without credentials"
        raise WebhookRefusedError(message)
    host = (found["name"] or found["address"]).lower()
    port = int(found["port"] or _PORTS[found["scheme"]])
    target = Target(found["scheme"], host, port)
    if not _is_listed(target, allowed):
        message = "must lead to a host and port that the operator lists in SWITCHYARD_WEBHOOK_HOSTS"
        raise WebhookRefusedError(message)
    if _is_address(host) and not may_connect(host, host):
        message = "must not lead to a private address"
        raise WebhookRefusedError(message)
    if target.scheme != "https" and host not in LOOPBACK:
        message = "must be https"
        raise WebhookRefusedError(message)
    return target


def host_of(url: str) -> str | None:
    """Return the host of a webhook's URL: all of it that may be shown."""
    found = _URL.fullmatch(url)
    return None if found is None else (found["name"] or found["address"]).lower()


def _is_listed(target: Target, allowed: Collection[str]) -> bool:
    if not 0 < target.port <= _MAX_PORT:
        return False
    if f"{target.host}:{target.port}" in allowed:
        return True
    return target.host in allowed and (target.host in LOOPBACK or target.port == _PORTS["https"])


def may_connect(host: str, address: str) -> bool:
    """Say whether a name that resolved to this address may be called there: only loopback hosts have private addresses."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return found.is_loopback if host.lower() in LOOPBACK else _is_public(found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return address.is_global and not address.is_multicast and not any(address in detour for detour in _DETOURS)
