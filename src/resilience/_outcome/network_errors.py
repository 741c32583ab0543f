"""NETWORK_ERRORS: the connection and timeout errors of well-known clients, by qualified name.

None of these packages is imported. The classes in an exception type's method resolution order are looked up by name,
and the first match counts. The result is cached for each type.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind, Rule
from resilience._outcome.failure import leaves, merged

BROKEN = Failure()
"""The connection broke: it is unknown whether the dependency processed the call."""
UNSENT = Failure(unprocessed=True)
"""No connection was established, so the dependency did not process the call."""
TIMED_OUT = Failure(FailureKind.TIMEOUT)
TIMED_OUT_UNSENT = Failure(FailureKind.TIMEOUT, unprocessed=True)
POOL_EXHAUSTED = Failure(FailureKind.TIMEOUT, unprocessed=True, counted=False)
"""The client's own connection pool is exhausted, which does not indicate the health of the dependency."""
OVERLOADED = Failure(FailureKind.OVERLOAD, unprocessed=True)
# For clients with built-in retries: the error of their last attempt does not show whether an earlier one was processed.
OVERLOADED_AFTER_RETRIES = Failure(FailureKind.OVERLOAD)
POOL_EXHAUSTED_AFTER_RETRIES = Failure(FailureKind.TIMEOUT, counted=False)


def _by_reason(error: Any) -> Failure | None:
    """Classify an error by its `reason`: urllib3 wraps the error of its last attempt, and requests wraps that again."""
    inner = error.args[0] if error.args and hasattr(error.args[0], "reason") else error
    reason = getattr(inner, "reason", None)
    if type(reason).__name__ in ("SSLError", "ResponseError"):
        return None
    if type(reason).__name__ == "ProxyError":
        return _by_proxy(reason)
    found = network_errors(type(reason)) if isinstance(reason, BaseException) else None
    return found if isinstance(found, Failure) else BROKEN


def _by_proxy(error: Any) -> Failure | None:
    """Classify urllib3's ProxyError by its cause: the proxy may also have dropped the connection after the request."""
    original = getattr(error, "original_error", None)
    name = type(original).__name__
    if "SSL" in name:
        return None
    refused = name in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")
    return UNSENT if refused or str(original).startswith("Tunnel connection failed") else BROKEN


def _of(error: BaseException | None) -> Failure | None:
    """Return the failure for an error inside another one; None if it is no network error, or if there is none."""
    rule = network_errors(type(error))
    return rule(error) if callable(rule) else rule


def _by_urllib_reason(error: Any) -> Failure | None:
    """Classify urllib's URLError by its `reason`: an OSError, or a text if the URL is not one that can be opened."""
    return _of(getattr(error, "reason", None))


def _by_connect_error(error: Any) -> Failure | None:
    """Classify redis-py's ConnectionError: if it says that it came of connecting, the error of the socket decides."""
    inner = _of(error.__cause__ or error.__context__) if " connecting to " in str(error) else None
    return UNSENT if inner is not None and inner.unprocessed else BROKEN


def _after_retries(default: Failure) -> Callable[[Any], Failure | None]:
    """Return a rule for the error of an SDK that retries by itself, and that wraps the error of its last attempt.

    Some of them wrap any exception: one that is not of the network, such as that of an invalid certificate or a
    rejection by a pipeline around their transport, is not a failure here either. It is not known what became of the
    attempts before the last one, so that no such error is unprocessed.
    """

    def by_last_attempt(error: Any) -> Failure | None:
        failure = default if error.__cause__ is None else _of(error.__cause__)
        return replace(failure, unprocessed=False) if failure is not None and failure.unprocessed else failure

    return by_last_attempt


def _by_cause(error: Any) -> Failure | None:
    """Classify a plain OSError by its cause: anyio and trio raise it when no address could be connected to."""
    if type(error) is not OSError:
        return None
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return BROKEN
    if str(error).startswith("Multiple exceptions: [Errno "):  # asyncio could not connect to any of several addresses
        return UNSENT
    causes = list(leaves(error.__cause__)) if error.__cause__ is not None else []
    failures = [_of(cause) for cause in causes]
    listed = [failure for failure in failures if failure is not None]
    return merged(listed) if listed and len(listed) == len(failures) else None


def _unless_certificate(error: Any) -> Failure | None:
    """Classify an error of connecting as unsent, unless the certificate is invalid: a retry would fail as well."""
    cause: Any = error
    for _ in range(8):
        if cause is None:
            break
        if type(cause).__name__ == "SSLCertVerificationError":
            return None
        cause = cause.__cause__ or cause.__context__
    return UNSENT


def _by_code(error: Any) -> Failure | None:
    """Classify a gRPC error by its status code."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return _GRPC.get(getattr(code, "name", ""))


_HTTPX: dict[str, Rule] = {
    "NetworkError": BROKEN,
    "RemoteProtocolError": BROKEN,
    "ProxyError": UNSENT,
    "ConnectError": _unless_certificate,
    "TimeoutException": TIMED_OUT,
    "ConnectTimeout": TIMED_OUT_UNSENT,
    "PoolTimeout": POOL_EXHAUSTED,
}
_SDK_OF_MODELS: dict[str, Rule] = {
    "APIConnectionError": _after_retries(BROKEN),
    "APITimeoutError": _after_retries(TIMED_OUT),
}
_GRPC = {"UNAVAILABLE": BROKEN, "DEADLINE_EXCEEDED": TIMED_OUT}

RULES: dict[str, Rule] = {
    "builtins.ConnectionError": BROKEN,
    "builtins.ConnectionRefusedError": UNSENT,
    "builtins.TimeoutError": TIMED_OUT,
    "builtins.OSError": _by_cause,
    "socket.gaierror": UNSENT,
    "http.client.BadStatusLine": BROKEN,
    "http.client.IncompleteRead": BROKEN,
    "urllib.error.URLError": _by_urllib_reason,
    "urllib.error.ContentTooShortError": BROKEN,
    "urllib.error.HTTPError": None,
    **{f"{module}.{name}": rule for module in ("httpx", "httpx2") for name, rule in _HTTPX.items()},
    "requests.exceptions.ConnectionError": _by_reason,
    "requests.exceptions.ChunkedEncodingError": BROKEN,
    "requests.exceptions.Timeout": TIMED_OUT,
    "requests.exceptions.ConnectTimeout": TIMED_OUT_UNSENT,
    "requests.exceptions.SSLError": None,
    "urllib3.exceptions.MaxRetryError": _by_reason,
    "urllib3.exceptions.ProtocolError": BROKEN,
    "urllib3.exceptions.IncompleteRead": BROKEN,
    "urllib3.exceptions.ProxyError": _by_proxy,
    "urllib3.exceptions.TimeoutError": TIMED_OUT,
    "urllib3.exceptions.ConnectTimeoutError": TIMED_OUT_UNSENT,
    "urllib3.exceptions.NewConnectionError": UNSENT,
    "urllib3.exceptions.EmptyPoolError": POOL_EXHAUSTED,
    "aiohttp.client_exceptions.ClientConnectionError": BROKEN,
    "aiohttp.client_exceptions.ClientPayloadError": BROKEN,
    "aiohttp.client_exceptions.ClientConnectorError": UNSENT,
    "aiohttp.client_exceptions.ServerTimeoutError": TIMED_OUT,
    "aiohttp.client_exceptions.ConnectionTimeoutError": TIMED_OUT_UNSENT,
    "aiohttp.client_exceptions.ClientSSLError": None,
    "aiohttp.client_exceptions.ServerFingerprintMismatch": None,
    "redis.exceptions.ConnectionError": _by_connect_error,
    "redis.exceptions.TimeoutError": TIMED_OUT,
    "redis.exceptions.BusyLoadingError": OVERLOADED_AFTER_RETRIES,
    "redis.exceptions.MaxConnectionsError": POOL_EXHAUSTED_AFTER_RETRIES,
    "redis.exceptions.AuthenticationError": None,
    "redis.exceptions.AuthorizationError": None,
    "redis.exceptions.ExternalAuthProviderError": None,
    "psycopg.OperationalError": lambda error: BROKEN if type(error).__name__ == "OperationalError" else None,
    "psycopg.errors.ConnectionTimeout": TIMED_OUT_UNSENT,
    "psycopg.errors.ConnectionException": BROKEN,
    "psycopg.errors.ConnectionDoesNotExist": BROKEN,
    "psycopg.errors.ConnectionFailure": BROKEN,
    "psycopg.errors.SqlclientUnableToEstablishSqlconnection": UNSENT,
    "psycopg.errors.SqlserverRejectedEstablishmentOfSqlconnection": UNSENT,
    "psycopg.errors.AdminShutdown": BROKEN,
    "psycopg.errors.CrashShutdown": BROKEN,
    "psycopg.errors.IdleSessionTimeout": BROKEN,
    "psycopg.errors.CannotConnectNow": OVERLOADED,
    "psycopg.errors.TooManyConnections": OVERLOADED,
    "psycopg_pool.PoolTimeout": TIMED_OUT_UNSENT,  # its workers connect in the background, so an outage has this effect
    "asyncpg.exceptions.PostgresConnectionError": BROKEN,
    "asyncpg.exceptions.ClientCannotConnectError": UNSENT,
    "asyncpg.exceptions.ConnectionRejectionError": UNSENT,
    "asyncpg.exceptions.AdminShutdownError": BROKEN,
    "asyncpg.exceptions.CrashShutdownError": BROKEN,
    "asyncpg.exceptions.CannotConnectNowError": OVERLOADED,
    "asyncpg.exceptions.TooManyConnectionsError": OVERLOADED,
    "botocore.exceptions.ConnectionError": BROKEN,
    "botocore.exceptions.ConnectionClosedError": BROKEN,
    "botocore.exceptions.ResponseStreamingError": BROKEN,
    "botocore.exceptions.EndpointConnectionError": BROKEN,
    "botocore.exceptions.ProxyConnectionError": BROKEN,
    "botocore.exceptions.ConnectTimeoutError": TIMED_OUT,
    "botocore.exceptions.ReadTimeoutError": TIMED_OUT,
    "botocore.exceptions.SSLError": None,
    **{f"{module}.{name}": rule for module in ("openai", "anthropic") for name, rule in _SDK_OF_MODELS.items()},
    "stripe._error.APIConnectionError": _after_retries(BROKEN),
    "elastic_transport.ConnectionError": BROKEN,
    "elastic_transport.ConnectionTimeout": TIMED_OUT,
    "elastic_transport.TlsError": None,
    "grpc.RpcError": _by_code,
    "trio.TooSlowError": TIMED_OUT,
    "trio.BrokenResourceError": BROKEN,
    "anyio.BrokenResourceError": BROKEN,
    "anyio._core._exceptions.BrokenResourceError": BROKEN,
    "anyio.ConnectionFailed": UNSENT,
    "anyio._core._exceptions.ConnectionFailed": UNSENT,
}

_known: dict[type, Rule] = {}
MAX_CACHED_RULES = 10_000
"""The most exception types whose rule is cached: a program may create types without limit."""


def network_errors(kind: type) -> Rule:
    """Return the rule for an exception type; None if it is not a network error."""
    if kind in _known:
        return _known[kind]
    rule: Rule = None
    for base in kind.__mro__:
        name = f"{base.__module__}.{base.__qualname__}"
        if name in RULES:
            rule = RULES[name]
            break
    if len(_known) < MAX_CACHED_RULES:
        _known[kind] = rule
    return rule


NETWORK_ERRORS = Allowlist.of_types(network_errors)
"""The default allowlist: broken connections, connections that could not be established, and timeouts.

It lists ConnectionError, TimeoutError, socket.gaierror, and the corresponding exceptions of http.client, urllib, httpx,
httpx2, requests, urllib3, aiohttp, redis, psycopg, asyncpg, botocore, openai, anthropic, stripe, elasticsearch, grpc,
trio and anyio. It does not list errors that a retry would not resolve, such as an invalid certificate. It does not look
at responses and their status: that is what `HTTP_FAILURES` does.
"""
