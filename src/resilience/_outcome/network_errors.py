"""NETWORK_ERRORS: the connection and timeout errors of well-known clients, by qualified name.

None of these packages is imported. The classes in an exception type's method resolution order are looked up by name,
and the first match counts. The result is cached for each type.
"""

from __future__ import annotations

import errno
import re
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
TURNED_AWAY = Failure(FailureKind.OVERLOAD, unprocessed=True, counted=False)
"""A proxy has turned the call away, because of too many of them."""
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
    if name in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"):
        return UNSENT
    return _by_tunnel(original) if str(original).startswith("Tunnel connection failed") else BROKEN


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


def _unless_certificate(default: Failure) -> Callable[[Any], Failure | None]:
    """Return a rule for an error of a connection, unless a certificate is invalid: a retry would fail as well.

    The client rejects that of the server; the server rejects ours by an alert (RFC 8446 6.2), which with TLS 1.3 comes
    after the handshake, instead of the response. With TLS 1.2, a server that wants a certificate and gets none sends
    `handshake_failure`, as it does if both have no cipher in common.
    """

    def by_certificate(error: Any) -> Failure | None:
        cause: Any = error
        for _ in range(8):
            if cause is None:
                break
            if type(cause).__name__ == "SSLCertVerificationError" or _is_alert(getattr(cause, "reason", None)):
                return None
            cause = cause.__cause__ or cause.__context__
        return default

    return by_certificate


def _is_alert(reason: object) -> bool:
    """Return whether the `reason` of an SSLError is an alert about a certificate; OpenSSL varies what precedes it."""
    return isinstance(reason, str) and reason.partition("ALERT_")[2] in _CERTIFICATE_ALERTS


def _by_tunnel(error: Any) -> Failure | None:
    """Classify an error of a proxy that did not open a tunnel: an answer of its own is about this client."""
    found = _REFUSED_TUNNEL.match(str(error))
    if found is None:
        return None if str(error).startswith(_REFUSED_BY_SOCKS) else UNSENT
    status = int(found[1])
    if 400 <= status < 500 and status not in _TEMPORARY:
        return None
    return TURNED_AWAY if status == 429 else UNSENT


def _by_code(error: Any) -> Failure | None:
    """Classify a gRPC error by its status code."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return _GRPC.get(getattr(code, "name", ""))


_CERTIFICATE_ALERTS = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "HANDSHAKE_FAILURE",
        "NO_CERTIFICATE",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
_REFUSED_TUNNEL = re.compile(r"(?:Tunnel connection failed: )?([1-5][0-9]{2})(?![0-9])")
"""The message of the clients about a proxy that has answered CONNECT with another status than 2xx."""
_REFUSED_BY_SOCKS = (
    "Invalid username/password",
    "Requested ",
    "Proxy Server could not connect: Connection not allowed",
)
"""Messages of httpcore about a SOCKS proxy that does not serve this client."""
_TEMPORARY = frozenset({408, 425, 429})
"""The 4xx to CONNECT that another attempt may not get."""
_HTTPX: dict[str, Rule] = {
    "NetworkError": _unless_certificate(BROKEN),
    "RemoteProtocolError": BROKEN,
    "ProxyError": _by_tunnel,
    "ConnectError": _unless_certificate(UNSENT),
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
    "aiohttp.client_exceptions.ClientConnectionError": _unless_certificate(BROKEN),
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
