"""No secret gets into what the library writes when real connections, real proxies and real time end a call."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, logs
from resilience.events import BreakerChanged, RetryScheduled, TimedOut
from resilience.testing import FaultyServer
from tests.httpx.helpers import NOW, everywhere, retrying
from tests.httpx.planted import HOST, Calls, Plan, Secrets

pytestmark = pytest.mark.slow

SHORT = 0.15
"""The seconds of a deadline."""


@pytest.fixture(autouse=True)
def everything_is_logged(nothing_logged_yet: None, log_interval: None) -> None:
    logs.configure(interval=0.0)


@pytest.fixture(scope="module")
def server() -> Generator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def query(secrets: Secrets) -> str:
    """Return the query of a request, which is a secret, and asks for an answer with secrets."""
    headers = [f"set-cookie:a={secrets['set-cookie']}", f"retry-after:{secrets['hint']}"]
    return "&".join([f"key={secrets['query']}", *[f"header={header}" for header in headers]])


def through(url: str) -> Callable[[Secrets], dict[str, Any]]:
    """Return what makes the arguments of a client that has a proxy with a password."""
    return lambda secrets: {"proxy": url.replace("//", f"//{secrets['user']}:{secrets['proxy password']}@")}


FAULTS: dict[str, tuple[str, str]] = {
    "answered": ("/ok?body=x&", "200"),
    "given up": ("/status/503?", "503"),
    "not retried": ("/status/404?", "404"),
    "turned away": ("/status/429?", "429"),
    "reset": ("/reset?", "ReadError"),
    "closed": ("/close?", "RemoteProtocolError"),
    "half a head": ("/half-headers?", "RemoteProtocolError"),
    "cut": ("/short-body?", "RemoteProtocolError"),
    "cut by a reset": ("/short-body-reset?", "ReadError"),
    "a bad chunk": ("/chunk-bad?", "RemoteProtocolError"),
    "no gzip": ("/bad-gzip?", "DecodingError"),
    "redirected without end": ("/redirect-loop?", "TooManyRedirects"),
}


@everywhere
@pytest.mark.parametrize(("path", "end"), FAULTS.values(), ids=FAULTS)
def test_nothing_is_leaked_by_a_fault(
    way: str, path: str, end: str, server: FaultyServer, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = Secrets()
    plan = Plan(retrying(attempts=2), None, [end] * 3, {"follow_redirects": True})
    calls = Calls(way, plan, secrets, url=f"{server.url}{path}{query(secrets)}")
    calls()
    calls.output.texts += capfd.readouterr()

    calls.check()


@everywhere
@pytest.mark.parametrize(
    ("path", "reject_with", "end"),
    [
        ("/stall", "error", "DeadlineExceededError"),
        ("/stall", "response", "504"),
        ("/head-drip", "error", "DeadlineExceededError"),
        ("/headers-stall", "error", "DeadlineExceededError"),
        ("/drip-503", "error", "DeadlineExceededError or 503"),
    ],
)
def test_nothing_is_leaked_by_a_deadline(
    way: str, path: str, reject_with: str, end: str, server: FaultyServer, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = Secrets()
    plan = Plan(
        *(Pipeline(Timeout(SHORT), Retry(2, wait=NOW)), None),
        [end] * 3,
        settings={"reject_with": reject_with},
        events=(TimedOut,),
    )
    calls = Calls(way, plan, secrets, url=f"{server.url}{path}?{query(secrets)}")
    calls()
    calls.output.texts += capfd.readouterr()

    calls.check()


def test_nothing_is_leaked_by_a_thread_that_is_left_behind(server: FaultyServer) -> None:
    secrets = Secrets()
    plan = Plan(Pipeline(Timeout(SHORT, thread=True)), None, ["DeadlineExceededError"] * 3, events=(TimedOut,))
    calls = Calls("sync", plan, secrets, url=f"{server.url}/head-drip?interval=0.02&{query(secrets)}")
    calls()

    calls.check()


@everywhere
def test_nothing_is_leaked_by_a_refused_connection(way: str, server: FaultyServer) -> None:
    secrets = Secrets()
    breaker = CircuitBreaker(consecutive_failures=4)
    ends = ["ConnectError", "ConnectError or CircuitOpenError", "CircuitOpenError"]
    plan = Plan(retrying(breaker, attempts=2), None, ends, events=(RetryScheduled, BreakerChanged))
    calls = Calls(way, plan, secrets, url=f"{server.refused_url}/{secrets['path']}?{query(secrets)}")
    calls()

    calls.check()


PROXIES: dict[str, tuple[str, str, str, str]] = {
    "passes on": ("http", "url", "/status/503", "503"),
    "is refused": ("http", "refused_url", "/", "ConnectError"),
    "closes": ("http", "accept_close_url", "/", "RemoteProtocolError or ReadError"),
    "makes no tunnel": ("https", "url", "/", "ProxyError"),
    "is refused before the tunnel": ("https", "refused_url", "/", "ConnectError"),
    "is silent": ("https", "silent_url", "/", "DeadlineExceededError"),
}


@everywhere
@pytest.mark.parametrize(("scheme", "proxy", "path", "end"), PROXIES.values(), ids=PROXIES)
def test_nothing_is_leaked_by_a_proxy(
    way: str, scheme: str, proxy: str, path: str, end: str, server: FaultyServer, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = Secrets()
    client = through(getattr(server, proxy))(secrets)
    plan = Plan(Pipeline(Timeout(SHORT * 4), Retry(2, wait=NOW)), None, [end] * 3, client)
    calls = Calls(way, plan, secrets, url=f"{scheme}://{HOST}{path}?{query(secrets)}")
    calls()
    calls.output.texts += capfd.readouterr()

    calls.check()


def test_the_password_of_a_proxy_was_sent(server: FaultyServer) -> None:
    """So there was something to leak."""
    server.clear()
    secrets = Secrets()
    plan = Plan(retrying(), None, ["200"] * 3, through(server.url)(secrets))
    calls = Calls("sync", plan, secrets, url=f"http://{HOST}/ok?{query(secrets)}")
    calls()

    calls.check()
    assert all("basic" in request.headers["proxy-authorization"].lower() for request in server.requests)
    assert secrets.leaks(str(request.headers) + request.query for request in server.requests)
