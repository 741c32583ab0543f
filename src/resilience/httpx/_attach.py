"""`attach`: pass the requests of a client through a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from resilience._call.caller import Caller
from resilience.httpx._base import BaseResilientTransport
from resilience.httpx._idempotency import IdempotencyKey
from resilience.httpx._modules import MODULES, is_a
from resilience.httpx._options import Settle
from resilience.httpx._privates import set_transports, transports_of
from resilience.httpx._routed import Routed
from resilience.httpx._settings import RejectWith, TransportSettings
from resilience.httpx._transport import AsyncResilientTransport, ResilientTransport

C = TypeVar("C")


def attach(
    client: C,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Iterable[str] | str = (),
    propagate_to: Iterable[str] | str = (),
    idempotency_key: IdempotencyKey | None = None,
    settle: Settle = "body",
    reject_with: RejectWith = "error",
) -> C:
    """Pass every request of a client through a pipeline, also through its proxies and other mounts.

    The transports of the client are wrapped in a `ResilientTransport` or an `AsyncResilientTransport`. Everything else
    of the client stays as it is. To attach the same pipeline again with the same settings changes nothing.

    Args:
        client: a `Client` or an `AsyncClient` of httpx or httpx2, or of a subclass.
        pipeline: the pipeline, a single policy, or what `bind` of either returns. None for the standard one of this
            process, named "httpx": `standard` with HTTP_FAILURES, of which each host has its own Cooldown, Bulkhead,
            CircuitBreaker and retry budget. All clients share it, so that they share what they know about a host.
        idempotent: patterns of method and path of further requests that may be repeated, such as "POST */_search": the
            method in capital letters or `*`, a space, and a pattern of the path as of `fnmatch`.
        propagate_to: the hosts, as "host" for all of its ports and schemes or "host:port", to which attempts carry
            their number in `x-envoy-attempt-count` and the time that remains in `x-envoy-expected-rq-timeout-ms`.
        idempotency_key: sends a key with requests that are not idempotent, to the hosts that it names.
        settle: "body": permits are held, and outcomes scored, until the body of the response has ended, and the
            deadline of the call bounds it. "headers": until the head has come, and no deadline bounds the body but that
            of the request's own `options`; so it always is for server-sent events (`text/event-stream`).
        reject_with: "error": a rejection or a passed deadline is raised. "response": it is a response with
            `x-should-retry: false`, of status 503 with Retry-After, or 504. SDKs that repeat every exception, such as
            those of openai and anthropic, do not repeat that. Its extension "resilience_error" has the error.

    Returns:
        The same client.

    Raises:
        TypeError: `client` is not such a client, or another argument has the wrong type.
        ValueError: the client has another pipeline, or other settings, already; or an argument is out of range.

    A response on which a Retry has given up, for whatever reason, gets the header `x-should-retry: false`, unless the
    server has set it.
    Requests with a header `x-stainless-retry-count` above 0 are repetitions by an SDK: the pipeline counts them as
    `foreign_retries` in its snapshot, and warns once.
    """
    if is_a(client, "Client"):
        make: Any = ResilientTransport
    elif is_a(client, "AsyncClient"):
        make = AsyncResilientTransport
    else:
        what = f"a Client or an AsyncClient of {' or '.join(MODULES)}"
        raise TypeError(f"client must be {what}, not {client!r}{_hint(client)}")
    settings = TransportSettings(idempotent, propagate_to, idempotency_key, settle, reject_with)
    own, mounts = transports_of(client)
    transports = [own, *(one for one in mounts.values() if one is not None)]
    guarded: list[BaseResilientTransport[Any]] = [one for one in transports if isinstance(one, BaseResilientTransport)]
    if guarded:
        if len(guarded) == len(transports) and all(one.passes_through(pipeline, settings) for one in guarded):
            return client
        raise ValueError(
            "client is guarded already, by another pipeline or with other settings, and the retries of two would "
            "multiply: attach once, such as Pipeline(outer, inner) with all settings"
        )

    def guard(transport: Any) -> Any:
        inner = transport.inner if isinstance(transport, Routed) else transport
        return make(
            pipeline,
            inner,
            idempotent=idempotent,
            propagate_to=propagate_to,
            idempotency_key=idempotency_key,
            settle=settle,
            reject_with=reject_with,
        )

    replace_transports(client, guard)
    return client


def replace_transports(client: Any, make: Callable[[Any], Any]) -> None:
    """Replace each transport of a client, its mounts included, by what `make` returns for it."""
    made: dict[int, Any] = {}

    def replaced(transport: Any) -> Any:
        if transport is None:  # a mount without a proxy uses the transport of the client
            return None
        if id(transport) not in made:
            made[id(transport)] = make(transport)
        return made[id(transport)]

    own, mounts = transports_of(client)
    set_transports(client, replaced(own), {pattern: replaced(transport) for pattern, transport in mounts.items()})


def _hint(given: object) -> str:
    """Return what to pass instead of an object, such as one of an SDK that has a client; empty if that is not known."""
    if isinstance(given, Caller):
        return "; the client comes first, and the pipeline second"
    if isinstance(given, type):
        return "; make one"
    for name, value in getattr(given, "__dict__", {}).items():
        if is_a(value, "Client") or is_a(value, "AsyncClient"):
            return f"; its client is the attribute {name}: pass that, such as client.{name}"
    return ""
