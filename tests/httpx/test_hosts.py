"""Sets of hosts."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilience.httpx._hosts import Hosts


@pytest.mark.parametrize(
    ("hosts", "url", "matches"),
    [
        ("a.test", "http://a.test", True),
        ("A.Test", "https://a.TEST:8443/x", True),
        ("a.test:443", "https://a.test", True),
        ("a.test:443", "http://a.test", False),
        ("a.test:80", "http://a.test", True),
        ("a.test:8080", "http://a.test", False),
        ("a.test", "http://b.a.test", False),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("[::1]", "http://[::1]:8080", True),
        ("[::1]:80", "http://[::1]:8080", False),
        ("xn--mnchen-3ya.de", "https://m\u00fcnchen.de", True),
        (["a.test", "b.test"], "http://b.test", True),
        ([], "http://a.test", False),
    ],
)
def test_what_matches(hosts: Any, url: str, matches: bool) -> None:
    assert Hosts("hosts", hosts).match(httpx.URL(url)) is matches


@pytest.mark.parametrize(
    "host",
    [
        "https://a.test", "*.a.test", "user@a.test", "a.test:", ":80", "a.test:0", "a.test:99999", "a b", " a.test",
        "a.test?x", "m\u00fcnchen.de", "::1", "a.test/x",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match='an element of propagate_to must be "host" or "host:port"'):
        Hosts("propagate_to", [host])


@pytest.mark.parametrize("hosts", [3, None, [3]])
def test_what_is_no_string_is_refused(hosts: Any) -> None:
    with pytest.raises(TypeError, match="hosts"):
        Hosts("hosts", hosts)


def test_equal_sets_are_equal() -> None:
    one, other = Hosts("hosts", ["a.test", "[::1]:80"]), Hosts("hosts", ["[::1]:80", "A.test"])

    assert one == other
    assert hash(one) == hash(other)
    assert one != Hosts("hosts", "a.test")
    assert one != 3
    assert repr(one) == "['::1:80', 'a.test']"
    assert not Hosts("hosts", ())
