"""NETWORK_ERRORS against the real packages. A package that is missing fails the test: it is in the test group."""

from __future__ import annotations

import asyncio
import errno
import http.client
import importlib
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from resilience import NETWORK_ERRORS, CircuitOpenError, Failure, FailureKind
from resilience._outcome.network_errors import RULES
from tests.httpx.server import Server

BROKEN = Failure()
TURNED_AWAY = Failure(FailureKind.OVERLOAD, unprocessed=True, counted=False)
UNSENT = Failure(unprocessed=True)
TIMED_OUT = Failure(FailureKind.TIMEOUT)
TIMED_OUT_UNSENT = Failure(FailureKind.TIMEOUT, unprocessed=True)
POOL_EXHAUSTED = Failure(FailureKind.TIMEOUT, unprocessed=True, counted=False)
OVERLOADED = Failure(FailureKind.OVERLOAD, unprocessed=True)

HTTPX = [
    ("ConnectError", UNSENT),
    ("ReadError", BROKEN),
    ("WriteError", BROKEN),
    ("CloseError", BROKEN),
    ("NetworkError", BROKEN),
    ("RemoteProtocolError", BROKEN),
    ("ProxyError", UNSENT),
    ("ConnectTimeout", TIMED_OUT_UNSENT),
    ("ReadTimeout", TIMED_OUT),
    ("WriteTimeout", TIMED_OUT),
    ("PoolTimeout", POOL_EXHAUSTED),
    ("LocalProtocolError", None),
    ("UnsupportedProtocol", None),
    ("DecodingError", None),
    ("TooManyRedirects", None),
    ("InvalidURL", None),
]
CASES: list[tuple[str, str, Failure | None]] = [
    *(("httpx", name, failure) for name, failure in HTTPX),
    *(("httpx2", name, failure) for name, failure in HTTPX),
    ("builtins", "ConnectionResetError", BROKEN),
    ("builtins", "BrokenPipeError", BROKEN),
    ("builtins", "ConnectionRefusedError", UNSENT),
    ("builtins", "TimeoutError", TIMED_OUT),
    ("builtins", "OSError", None),
    ("builtins", "FileNotFoundError", None),
    ("builtins", "KeyError", None),
    ("socket", "gaierror", UNSENT),
    ("asyncio", "TimeoutError", TIMED_OUT),
    ("http.client", "BadStatusLine", BROKEN),
    ("http.client", "RemoteDisconnected", BROKEN),
    ("http.client", "IncompleteRead", BROKEN),
    ("http.client", "CannotSendRequest", None),
    ("urllib.error", "URLError", None),
    ("urllib.error", "ContentTooShortError", BROKEN),
    ("urllib.error", "HTTPError", None),
    ("openai", "APIConnectionError", BROKEN),
    ("openai", "APITimeoutError", TIMED_OUT),
    ("openai", "APIStatusError", None),
    ("openai", "APIResponseValidationError", None),
    ("anthropic", "APIConnectionError", BROKEN),
    ("anthropic", "APITimeoutError", TIMED_OUT),
    ("anthropic", "APIStatusError", None),
    ("stripe", "APIConnectionError", BROKEN),
    ("stripe", "APIError", None),
    ("elasticsearch", "ConnectionError", BROKEN),
    ("elasticsearch", "ConnectionTimeout", TIMED_OUT),
    ("elastic_transport", "TlsError", None),
    ("elasticsearch", "ApiError", None),
    ("requests.exceptions", "ConnectionError", BROKEN),
    ("requests.exceptions", "ProxyError", BROKEN),
    ("requests.exceptions", "ChunkedEncodingError", BROKEN),
    ("requests.exceptions", "ConnectTimeout", TIMED_OUT_UNSENT),
    ("requests.exceptions", "ReadTimeout", TIMED_OUT),
    ("requests.exceptions", "SSLError", None),
    ("requests.exceptions", "HTTPError", None),
    ("requests.exceptions", "InvalidURL", None),
    ("aiohttp", "ServerDisconnectedError", BROKEN),
    ("aiohttp", "ClientOSError", BROKEN),
    ("aiohttp", "ClientPayloadError", BROKEN),
    ("aiohttp", "ClientConnectionResetError", BROKEN),
    ("aiohttp", "ServerTimeoutError", TIMED_OUT),
    ("aiohttp", "SocketTimeoutError", TIMED_OUT),
    ("aiohttp", "ConnectionTimeoutError", TIMED_OUT_UNSENT),
    ("aiohttp", "InvalidURL", None),
    ("redis.exceptions", "ConnectionError", BROKEN),
    ("redis.exceptions", "TimeoutError", TIMED_OUT),
    ("redis.exceptions", "BusyLoadingError", Failure(FailureKind.OVERLOAD)),
    ("redis.exceptions", "MaxConnectionsError", Failure(FailureKind.TIMEOUT, counted=False)),
    ("redis.exceptions", "AuthenticationError", None),
    ("redis.exceptions", "ResponseError", None),
    ("psycopg", "OperationalError", BROKEN),
    ("psycopg.errors", "ConnectionTimeout", TIMED_OUT_UNSENT),
    ("psycopg.errors", "ConnectionFailure", BROKEN),
    ("psycopg.errors", "AdminShutdown", BROKEN),
    ("psycopg.errors", "TooManyConnections", OVERLOADED),
    ("psycopg.errors", "DeadlockDetected", None),
    ("psycopg.errors", "DiskFull", None),
    ("psycopg", "IntegrityError", None),
    ("psycopg_pool", "PoolTimeout", TIMED_OUT_UNSENT),
    ("asyncpg.exceptions", "ConnectionDoesNotExistError", BROKEN),
    ("asyncpg.exceptions", "ConnectionFailureError", BROKEN),
    ("asyncpg.exceptions", "ConnectionRejectionError", UNSENT),
    ("asyncpg.exceptions", "CannotConnectNowError", OVERLOADED),
    ("asyncpg.exceptions", "TooManyConnectionsError", OVERLOADED),
    ("asyncpg.exceptions", "UniqueViolationError", None),
    ("trio", "TooSlowError", TIMED_OUT),
    ("trio", "BrokenResourceError", BROKEN),
    ("trio", "ClosedResourceError", None),
    ("anyio", "BrokenResourceError", BROKEN),
    ("anyio", "ConnectionFailed", UNSENT),
    ("anyio", "ClosedResourceError", None),
]


def instance(kind: Any) -> Any:
    """An instance, made without the arguments that its constructor wants."""
    return kind.__new__(kind)


@pytest.mark.parametrize(("module", "name", "failure"), CASES)
def test_the_exceptions_of_real_packages(module: str, name: str, failure: Failure | None) -> None:
    kind = getattr(importlib.import_module(module), name)

    assert NETWORK_ERRORS.classify(instance(kind)) == failure


def test_every_name_that_is_listed_exists() -> None:
    missing: list[str] = []
    for name in RULES:
        module, _, attribute = name.rpartition(".")
        if module == "anyio._core._exceptions":
            continue  # where they live in some versions, whatever they call themselves
        if not hasattr(importlib.import_module(module), attribute):
            missing.append(name)

    assert missing == []


def test_classes_are_called_as_we_look_them_up() -> None:
    wrong: list[str] = []
    for name in RULES:
        module, _, attribute = name.rpartition(".")
        kind = getattr(importlib.import_module(module), attribute)
        if f"{kind.__module__}.{kind.__qualname__}" not in RULES:
            wrong.append(name)

    assert wrong == []


def test_botocore() -> None:
    exceptions: Any = importlib.import_module("botocore.exceptions")
    connect = exceptions.EndpointConnectionError(endpoint_url="http://example.invalid")
    # It tries again by itself, so that the last of its attempts says nothing about the ones before.
    assert NETWORK_ERRORS.classify(connect) == BROKEN
    assert NETWORK_ERRORS.classify(exceptions.ReadTimeoutError(endpoint_url="http://example.invalid")) == TIMED_OUT
    assert NETWORK_ERRORS.classify(exceptions.ConnectTimeoutError(endpoint_url="x")) == TIMED_OUT
    assert NETWORK_ERRORS.classify(exceptions.ProxyConnectionError(proxy_url="x", error="refused")) == BROKEN
    assert NETWORK_ERRORS.classify(exceptions.SSLError(endpoint_url="x", error="bad certificate")) is None
    assert NETWORK_ERRORS.classify(exceptions.NoRegionError()) is None


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        (ConnectionRefusedError(), UNSENT),
        (socket.gaierror(), UNSENT),
        (ConnectionResetError(), BROKEN),
        (TimeoutError(), TIMED_OUT),
        (OSError(errno.EHOSTUNREACH, "no route to host"), BROKEN),
        (ssl.SSLCertVerificationError(), None),
        (FileNotFoundError(), None),
        ("unknown url type: quotes", None),
    ],
)
def test_urllib_wraps_what_went_wrong(reason: Any, failure: Failure | None) -> None:
    assert NETWORK_ERRORS.classify(urllib.error.URLError(reason)) == failure


@pytest.mark.slow
@pytest.mark.parametrize(("word", "kind"), [("cut", "IncompleteRead"), ("close", "RemoteDisconnected")])
def test_urllib_against_a_server_that_hangs_up(word: str, kind: str) -> None:
    def fetch() -> bytes:
        with urllib.request.urlopen(f"{server.url}/{word}") as response:
            body: bytes = response.read()
        return body

    with Server() as server, pytest.raises((http.client.HTTPException, ConnectionError)) as caught:
        fetch()

    assert type(caught.value).__name__ == kind
    assert NETWORK_ERRORS.classify(caught.value) == BROKEN


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


def test_redis_could_not_connect() -> None:
    redis: Any = importlib.import_module("redis")
    aredis: Any = importlib.import_module("redis.asyncio")
    once: Any = importlib.import_module("redis.backoff").NoBackoff(), 0
    retry = importlib.import_module("redis.retry").Retry(*once)
    aretry = importlib.import_module("redis.asyncio.retry").Retry(*once)
    port = closed_port()

    async def ping() -> None:
        async with aredis.Redis(port=port, retry=aretry) as client:
            await client.ping()

    with pytest.raises(redis.ConnectionError) as caught, redis.Redis(port=port, retry=retry) as client:
        client.ping()
    assert NETWORK_ERRORS.classify(caught.value) == UNSENT
    with pytest.raises(redis.ConnectionError) as caught:
        asyncio.run(ping())
    assert NETWORK_ERRORS.classify(caught.value) == UNSENT


def test_redis_lost_its_connection_after_that_to_another_server_was_refused() -> None:
    lost = importlib.import_module("redis").ConnectionError("Connection closed by server.")
    lost.__context__ = ConnectionRefusedError()

    assert NETWORK_ERRORS.classify(lost) == BROKEN


def test_asyncio_could_connect_to_none_of_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()

    async def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="Multiple exceptions") as caught:
        asyncio.run(asyncio.open_connection("quotes.test", port))
    assert NETWORK_ERRORS.classify(caught.value) == UNSENT


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("cause", "failure"),
    [
        (httpx2.ConnectError("refused"), BROKEN),
        (httpx2.ReadError("cut"), BROKEN),
        (httpx2.ConnectTimeout("late"), TIMED_OUT),
        (httpx2.PoolTimeout("busy"), Failure(FailureKind.TIMEOUT, counted=False)),
        (httpx2.UnsupportedProtocol("no protocol"), None),
        (CircuitOpenError("the circuit is open"), None),
        (ValueError("of a middleware"), None),
    ],
)
def test_sdks_of_models_wrap_what_went_wrong_in_the_last_attempt(
    sdk: str, cause: Exception, failure: Failure | None
) -> None:
    """They try again by themselves, so that the last of their attempts says nothing about the ones before."""
    error = importlib.import_module(sdk).APIConnectionError(request=httpx2.Request("GET", "http://models.test"))
    error.__cause__ = cause

    assert NETWORK_ERRORS.classify(error) == failure


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_a_bad_certificate_is_not_a_failure_of_the_network_for_an_sdk(sdk: str) -> None:
    error = importlib.import_module(sdk).APIConnectionError(request=httpx2.Request("GET", "http://models.test"))
    error.__cause__ = httpx2.ConnectError("certificate verify failed")
    error.__cause__.__cause__ = ssl.SSLCertVerificationError("self-signed")

    assert NETWORK_ERRORS.classify(error) is None


@pytest.mark.slow
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_a_real_refusal_of_an_sdk(sdk: str) -> None:
    module: Any = importlib.import_module(sdk)
    make = module.OpenAI if sdk == "openai" else module.Anthropic
    url = f"http://127.0.0.1:{closed_port()}"
    with make(api_key="key", base_url=url, max_retries=0) as client, pytest.raises(module.APIConnectionError) as caught:
        client.models.list()

    assert NETWORK_ERRORS.classify(caught.value) == BROKEN


def test_what_urllib3_and_requests_wrap() -> None:
    requests: Any = importlib.import_module("requests")
    urllib3: Any = importlib.import_module("urllib3.exceptions")
    refused = urllib3.NewConnectionError(SimpleNamespace(host="h"), "refused")
    wrapped = urllib3.MaxRetryError(SimpleNamespace(), "/", refused)
    assert NETWORK_ERRORS.classify(refused) == UNSENT
    assert NETWORK_ERRORS.classify(wrapped) == UNSENT
    assert NETWORK_ERRORS.classify(requests.ConnectionError(wrapped)) == UNSENT
    broken = urllib3.MaxRetryError(SimpleNamespace(), "/", urllib3.ProtocolError("cut"))
    assert NETWORK_ERRORS.classify(requests.ConnectionError(broken)) == BROKEN
    assert NETWORK_ERRORS.classify(requests.ConnectionError("cut")) == BROKEN
    for answered in (urllib3.SSLError("bad certificate"), urllib3.ResponseError("too many 500 error responses")):
        given_up = urllib3.MaxRetryError(SimpleNamespace(), "/", answered)
        assert NETWORK_ERRORS.classify(given_up) is None
        assert NETWORK_ERRORS.classify(requests.ConnectionError(given_up)) is None


def test_a_proxy_that_drops_the_connection_may_have_passed_the_request_on() -> None:
    requests: Any = importlib.import_module("requests")
    urllib3: Any = importlib.import_module("urllib3.exceptions")
    cases: list[tuple[Exception, Failure | None]] = [
        (urllib3.ProtocolError("Connection aborted."), BROKEN),
        (ConnectionResetError(), BROKEN),
        (urllib3.NewConnectionError(SimpleNamespace(host="h"), "refused"), UNSENT),
        (urllib3.ConnectTimeoutError("late"), UNSENT),
        (OSError("Tunnel connection failed: 403 Forbidden"), None),
        (OSError("Tunnel connection failed: 429 Too Many Requests"), TURNED_AWAY),
        (OSError("Tunnel connection failed: 502 Bad Gateway"), UNSENT),
        (urllib3.SSLError("bad certificate"), None),
        (ssl.SSLCertVerificationError("self-signed"), None),
    ]
    for original, failure in cases:
        error = urllib3.ProxyError("Unable to connect to proxy", original)
        wrapped = urllib3.MaxRetryError(SimpleNamespace(), "/", error)
        assert NETWORK_ERRORS.classify(error) == failure, original
        assert NETWORK_ERRORS.classify(wrapped) == failure, original
        assert NETWORK_ERRORS.classify(requests.exceptions.ProxyError(wrapped)) == failure, original


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("407 Proxy Authentication Required", None),
        ("404 ", None),
        ("408 Request Timeout", UNSENT),
        ("429 Too Many Requests", TURNED_AWAY),
        ("503 Service Unavailable", UNSENT),
        ("Invalid username/password", None),
        ("Requested NO AUTHENTICATION REQUIRED from proxy server, but got NO ACCEPTABLE METHODS.", None),
        ("Proxy Server could not connect: Connection not allowed by ruleset.", None),
        ("Proxy Server could not connect: Host unreachable.", UNSENT),
        ("4040 is no status", UNSENT),
    ],
)
def test_what_a_proxy_says_about_this_client_is_an_answer(module: str, message: str, failure: Failure | None) -> None:
    assert NETWORK_ERRORS.classify(importlib.import_module(module).ProxyError(message)) == failure


@pytest.mark.parametrize(
    ("reason", "is_answer"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True),
        ("SSL/TLS_ALERT_BAD_CERTIFICATE", True),
        ("TLSV1_ALERT_UNKNOWN_CA", True),
        ("TLSV1_ALERT_INTERNAL_ERROR", False),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", False),
        ("", False),
    ],
)
def test_an_alert_about_our_certificate_is_an_answer(reason: str, is_answer: bool) -> None:
    httpx: Any = importlib.import_module("httpx")
    alert = ssl.SSLError(1, reason)
    alert.reason = reason
    error = httpx.ReadError("")
    error.__cause__ = alert

    assert NETWORK_ERRORS.classify(error) == (None if is_answer else BROKEN)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_connection_that_anyio_could_not_make(backend: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    async def connect(host: str) -> None:
        with pytest.raises(OSError, match=r"(?i)connect") as caught:
            await anyio.connect_tcp(host, port)
        assert NETWORK_ERRORS.classify(caught.value) == UNSENT

    anyio.run(connect, "127.0.0.1", backend=backend)
    anyio.run(connect, "localhost", backend=backend)


def test_an_os_error_is_one_of_the_network_only_if_it_says_so() -> None:
    other = OSError("all attempts failed")
    other.__cause__ = ExceptionGroup("", [ConnectionRefusedError(), PermissionError()])

    assert NETWORK_ERRORS.classify(OSError(errno.EHOSTUNREACH, "no route to host")) == BROKEN
    assert NETWORK_ERRORS.classify(OSError(errno.ENOSPC, "disk full")) is None
    assert NETWORK_ERRORS.classify(other) is None


def test_a_bad_certificate_is_not_a_failure_of_the_network() -> None:
    refused, untrusted = httpx.ConnectError("refused"), httpx.ConnectError("certificate verify failed")
    refused.__cause__ = ConnectionRefusedError()
    untrusted.__cause__ = RuntimeError("the transport's own")
    untrusted.__cause__.__context__ = ssl.SSLCertVerificationError("self-signed")

    assert NETWORK_ERRORS.classify(refused) == UNSENT
    assert NETWORK_ERRORS.classify(untrusted) is None


@pytest.mark.parametrize(
    ("code", "failure"), [("UNAVAILABLE", BROKEN), ("DEADLINE_EXCEEDED", TIMED_OUT), ("NOT_FOUND", None)]
)
def test_grpc_says_it_by_code(code: str, failure: Failure | None) -> None:
    import grpc
    import grpc.aio

    class Failed(grpc.RpcError):
        def code(self) -> Any:
            return getattr(grpc.StatusCode, code)

    metadata = grpc.aio.Metadata()
    assert NETWORK_ERRORS.classify(Failed()) == failure
    assert NETWORK_ERRORS.classify(grpc.aio.AioRpcError(getattr(grpc.StatusCode, code), metadata, metadata)) == failure
    assert NETWORK_ERRORS.classify(grpc.RpcError()) is None


def test_a_real_refusal() -> None:
    import httpx

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(httpx.ConnectError) as caught:
        httpx.get(f"http://127.0.0.1:{port}")

    assert NETWORK_ERRORS.classify(caught.value) == UNSENT


def test_groups_are_judged_by_their_leaves() -> None:
    import httpx
    import trio

    both = ExceptionGroup("", [httpx.ReadError("cut"), ExceptionGroup("", [trio.TooSlowError()])])
    assert NETWORK_ERRORS.classify(both) == TIMED_OUT
    assert NETWORK_ERRORS.classify(ExceptionGroup("", [httpx.ReadError("cut"), KeyError()])) is None


def test_none_of_them_is_imported() -> None:
    heavy = "{'httpx', 'requests', 'grpc', 'redis', 'trio', 'asyncio'}"
    code = f"import sys, resilience; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert shown.stdout.strip() == "[]"
