"""NETWORK_ERRORS: the connection and timeout errors of well-known clients, by qualified name.

None of these packages is imported. An exception is looked up by the names of its class and of the classes it derives
from, the nearest first; each type is looked up once.
"""

from __future__ import annotations

import errno
from typing import Any

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind, Rule
from resilience._outcome.failure import leaves, merged

BROKEN = Failure()
"""The connection broke: whether the dependency acted on the call is unknown."""
UNSENT = Failure(unprocessed=True)
"""There never was a connection, so the dependency did not act."""
LATE = Failure(FailureKind.TIMEOUT)
LATE_UNSENT = Failure(FailureKind.TIMEOUT, unprocessed=True)
LOCAL = Failure(FailureKind.TIMEOUT, unprocessed=True, counted=False)
"""Our own pool of connections is exhausted: says nothing about the dependency."""
BUSY = Failure(FailureKind.OVERLOAD, unprocessed=True)
# Clients that try again by themselves: the last of their attempts says nothing about the ones before.
LAST_BUSY = Failure(FailureKind.OVERLOAD)
LAST_LOCAL = Failure(FailureKind.TIMEOUT, counted=False)


def _by_reason(error: Any) -> Failure | None:
    """urllib3 wraps what went wrong in the last of its own attempts; requests wraps that once more."""
    inner = error.args[0] if error.args and hasattr(error.args[0], "reason") else error
    reason = getattr(inner, "reason", None)
    if type(reason).__name__ in ("SSLError", "ResponseError"):
        return None
    if type(reason).__name__ == "ProxyError":
        return _by_proxy(reason)
    found = network_errors(type(reason)) if isinstance(reason, BaseException) else None
    return found if isinstance(found, Failure) else BROKEN


def _by_proxy(error: Any) -> Failure | None:
    """urllib3 says "unable to connect to proxy" also of a connection that the proxy has dropped after the request."""
    original = getattr(error, "original_error", None)
    name = type(original).__name__
    if "SSL" in name:
        return None
    refused = name in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")
    return UNSENT if refused or str(original).startswith("Tunnel connection failed") else BROKEN


def _by_cause(error: Any) -> Failure | None:
    """Anyio and trio say by a plain OSError that they could not connect; its cause is what each address answered."""
    if type(error) is not OSError:
        return None
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return BROKEN
    inside = list(leaves(error.__cause__)) if error.__cause__ is not None else []
    found = [network_errors(type(leaf)) for leaf in inside]
    failures = [rule(leaf) if callable(rule) else rule for rule, leaf in zip(found, inside, strict=True)]
    listed = [failure for failure in failures if failure is not None]
    return merged(listed) if listed and len(listed) == len(failures) else None


def _unless_certificate(error: Any) -> Failure | None:
    """A connection was not made: nothing was sent, and only a bad certificate will be as bad next time."""
    cause: Any = error
    for _ in range(8):
        if cause is None:
            break
        if type(cause).__name__ == "SSLCertVerificationError":
            return None
        cause = cause.__cause__ or cause.__context__
    return UNSENT


def _by_code(error: Any) -> Failure | None:
    """A gRPC error says by its status code whether it is one of the network."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return _GRPC.get(getattr(code, "name", ""))


_HTTPX: dict[str, Rule] = {
    "NetworkError": BROKEN,
    "RemoteProtocolError": BROKEN,
    "ProxyError": UNSENT,
    "ConnectError": _unless_certificate,
    "TimeoutException": LATE,
    "ConnectTimeout": LATE_UNSENT,
    "PoolTimeout": LOCAL,
}
_GRPC = {"UNAVAILABLE": BROKEN, "DEADLINE_EXCEEDED": LATE}

RULES: dict[str, Rule] = {
    "builtins.ConnectionError": BROKEN,
    "builtins.ConnectionRefusedError": UNSENT,
    "builtins.TimeoutError": LATE,
    "builtins.OSError": _by_cause,
    "socket.gaierror": UNSENT,
    **{f"{module}.{name}": rule for module in ("httpx", "httpx2") for name, rule in _HTTPX.items()},
    "requests.exceptions.ConnectionError": _by_reason,
    "requests.exceptions.ChunkedEncodingError": BROKEN,
    "requests.exceptions.Timeout": LATE,
    "requests.exceptions.ConnectTimeout": LATE_UNSENT,
    "requests.exceptions.SSLError": None,
    "urllib3.exceptions.MaxRetryError": _by_reason,
    "urllib3.exceptions.ProtocolError": BROKEN,
    "urllib3.exceptions.IncompleteRead": BROKEN,
    "urllib3.exceptions.ProxyError": _by_proxy,
    "urllib3.exceptions.TimeoutError": LATE,
    "urllib3.exceptions.ConnectTimeoutError": LATE_UNSENT,
    "urllib3.exceptions.NewConnectionError": UNSENT,
    "urllib3.exceptions.EmptyPoolError": LOCAL,
    "aiohttp.client_exceptions.ClientConnectionError": BROKEN,
    "aiohttp.client_exceptions.ClientPayloadError": BROKEN,
    "aiohttp.client_exceptions.ClientConnectorError": UNSENT,
    "aiohttp.client_exceptions.ServerTimeoutError": LATE,
    "aiohttp.client_exceptions.ConnectionTimeoutError": LATE_UNSENT,
    "aiohttp.client_exceptions.ClientSSLError": None,
    "aiohttp.client_exceptions.ServerFingerprintMismatch": None,
    "redis.exceptions.ConnectionError": BROKEN,
    "redis.exceptions.TimeoutError": LATE,
    "redis.exceptions.BusyLoadingError": LAST_BUSY,
    "redis.exceptions.MaxConnectionsError": LAST_LOCAL,
    "redis.exceptions.AuthenticationError": None,
    "redis.exceptions.AuthorizationError": None,
    "redis.exceptions.ExternalAuthProviderError": None,
    "psycopg.OperationalError": lambda error: BROKEN if type(error).__name__ == "OperationalError" else None,
    "psycopg.errors.ConnectionTimeout": LATE_UNSENT,
    "psycopg.errors.ConnectionException": BROKEN,
    "psycopg.errors.ConnectionDoesNotExist": BROKEN,
    "psycopg.errors.ConnectionFailure": BROKEN,
    "psycopg.errors.SqlclientUnableToEstablishSqlconnection": UNSENT,
    "psycopg.errors.SqlserverRejectedEstablishmentOfSqlconnection": UNSENT,
    "psycopg.errors.AdminShutdown": BROKEN,
    "psycopg.errors.CrashShutdown": BROKEN,
    "psycopg.errors.IdleSessionTimeout": BROKEN,
    "psycopg.errors.CannotConnectNow": BUSY,
    "psycopg.errors.TooManyConnections": BUSY,
    "psycopg_pool.PoolTimeout": LATE_UNSENT,  # its workers connect in the background: this is how an outage looks
    "asyncpg.exceptions.PostgresConnectionError": BROKEN,
    "asyncpg.exceptions.ClientCannotConnectError": UNSENT,
    "asyncpg.exceptions.ConnectionRejectionError": UNSENT,
    "asyncpg.exceptions.AdminShutdownError": BROKEN,
    "asyncpg.exceptions.CrashShutdownError": BROKEN,
    "asyncpg.exceptions.CannotConnectNowError": BUSY,
    "asyncpg.exceptions.TooManyConnectionsError": BUSY,
    "botocore.exceptions.ConnectionError": BROKEN,
    "botocore.exceptions.ConnectionClosedError": BROKEN,
    "botocore.exceptions.ResponseStreamingError": BROKEN,
    "botocore.exceptions.EndpointConnectionError": BROKEN,
    "botocore.exceptions.ProxyConnectionError": BROKEN,
    "botocore.exceptions.ConnectTimeoutError": LATE,
    "botocore.exceptions.ReadTimeoutError": LATE,
    "botocore.exceptions.SSLError": None,
    "grpc.RpcError": _by_code,
    "trio.TooSlowError": LATE,
    "trio.BrokenResourceError": BROKEN,
    "anyio.BrokenResourceError": BROKEN,
    "anyio._core._exceptions.BrokenResourceError": BROKEN,
    "anyio.ConnectionFailed": UNSENT,
    "anyio._core._exceptions.ConnectionFailed": UNSENT,
}

_known: dict[type, Rule] = {}
MAX_CACHED_RULES = 10_000
"""So many types of exceptions are remembered; a program that makes more of them makes them as it runs."""


def network_errors(kind: type) -> Rule:
    """Return what a class of exceptions means."""
    if kind in _known:
        return _known[kind]
    rule: Rule = None
    for one in kind.__mro__:
        name = f"{one.__module__}.{one.__qualname__}"
        if name in RULES:
            rule = RULES[name]
            break
    if len(_known) < MAX_CACHED_RULES:
        _known[kind] = rule
    return rule


NETWORK_ERRORS = Allowlist.of_types(network_errors)
"""What is a failure where nothing else is said: the connection broke, or nobody answered in time.

ConnectionError, TimeoutError, socket.gaierror, and the like of httpx, httpx2, requests, urllib3, aiohttp, redis,
psycopg, asyncpg, botocore, grpc, trio and anyio. Not among them: what another try will not heal, such as a bad
certificate.
"""
