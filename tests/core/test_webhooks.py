"""Where webhooks may lead: listed hosts, https, public addresses, and no second opinion about which host a URL names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from shared.core.webhooks import Target, WebhookRefusedError, host_of, may_connect, target_of

HOSTS = frozenset({"hooks.example.com", "alerts.example.com:8443", "localhost", "::1", "10.0.0.5", "93.184.216.34"})


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", Target("https", "hooks.example.com", 443)),
        ("https://HOOKS.Example.com:443/a/b?c=%20d", Target("https", "hooks.example.com", 443)),
        ("https://alerts.example.com:8443/", Target("https", "alerts.example.com", 8443)),
        ("http://localhost:8080/x", Target("http", "localhost", 8080)),
        ("http://[::1]:9/x", Target("http", "::1", 9)),
        ("https://93.184.216.34/x", Target("https", "93.184.216.34", 443)),
        ("https://hooks.example.com/@evil.example", Target("https", "hooks.example.com", 443)),
    ],
)
def test_a_listed_host_may_be_called(url: str, target: Target) -> None:
    """At its default port, at the listed one, at any of a loopback host."""
    assert target == target_of(url, HOSTS)
    assert target.host == host_of(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example.com", "//hooks.example.com", "ftp://hooks.example.com/", "javascript:alert(1)"),
        *(
            "http://hooks.example.com/",
            "https://hooks.example.com:8443/",
            "https://alerts.example.com/",
            "https://other.example/",
        ),
        *("https://hooks.example.com./", "https://x.hooks.example.com/", "https://hooks.example.com.evil.example/"),
        *(
            "https://u:p@hooks.example.com/",
            "https://hooks.example.com@evil.example/",
            "https://hooks.example.com:443@evil.example",
        ),
        *("https://hooks.example.com\\@evil.example/", "https://hooks.example.com/#f", "https://hooks.example.com/a b"),
        *(
            "https://hooks.example.com\n/",
            "https://hooks.example.com/\0",
            "https://hooks.example.com/\t",
            " https://hooks.example.com",
        ),
        *("https://hooks.example.com:0/", "https://hooks.example.com:65536/", "https://hooks.example.com:/", "https://:443/"),
        *(
            "https://hooks.example.com?x",
            "https:///hooks.example.com/",
            "https:hooks.example.com",
            "https://hooks。example.com/",
        ),
        *("https://10.0.0.5/", "https://0x0a000005/", "https://167772165/", "https://[::ffff:127.0.0.1]/", "http://127.0.0.1/"),
        "https://hooks.example.com/" + "x" * 1024,
    ],
)
def test_anything_else_may_not(url: str) -> None:
    """And the refusal does not repeat it."""
    with pytest.raises(WebhookRefusedError) as refusal:
        target_of(url, HOSTS)
    assert "u:p" not in str(refusal.value)
    assert "evil" not in str(refusal.value)


@given(st.text(alphabet="htps:/@.\\#?%[]0127ae-\t\n \0hooks.example.com", max_size=60))
def test_the_client_that_calls_sees_the_same_host(text: str) -> None:
    """Whatever passes names to the HTTP client's URL parser the very host and port that were checked."""
    for url in (text, f"https://hooks.example.com{text}", f"https://{text}hooks.example.com/"):
        try:
            target = target_of(url, HOSTS)
        except WebhookRefusedError:
            continue
        parsed = URL(url)
        assert (parsed.scheme, parsed.host, parsed.port) == (target.scheme, target.host, target.port)
        assert parsed.raw_user is None


PUBLIC = ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34")
PRIVATE = (
    *(
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
    ),
    *(
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.88.99.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
    ),
    *("fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001::1", "::127.0.0.1"),
    *("168.63.129.16", "", "example.com", "1.2.3", "0x7f.0.0.1", "1.2.3.4.5"),
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    """Also one that is written in IPv6, or reached by NAT64."""
    assert may_connect("hooks.example.com", address)
    assert not may_connect("localhost", address)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_may_not(address: str) -> None:
    """Private, link-local, shared, multicast, metadata services, and every way to write IPv4 in IPv6."""
    assert not may_connect("hooks.example.com", address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_loopback_host_is_on_this_machine(address: str) -> None:
    """By its name, in any case."""
    assert may_connect("LOCALHOST", address)
