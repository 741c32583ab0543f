"""Making guarded channels, and the parts of one for channels that are made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import grpc

from resilience import Bulkhead, CircuitBreaker, Pipeline, Retry, Timeout
from resilience._call.caller import Caller
from resilience._util.locks import new_lock
from resilience.grpc._aio_unary import AioUnaryUnaryInterceptor
from resilience.grpc._connectivity import connectivity_of
from resilience.grpc._errors import AioResilienceRpcError, ResilienceRpcError
from resilience.grpc._guard import Guard, Idempotent
from resilience.grpc._unary import UnaryUnaryInterceptor

_RETRIES: Final = "grpc.enable_retries"
_RECONNECT: Final = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5000))


def channel_options() -> list[tuple[str, Any]]:
    """Return the options for a channel that is made elsewhere; of an option that is given twice, grpc takes the first.

    They switch off the retries that gRPC itself makes when a service config says so (gRFC A6). Interceptors do not see
    those, and they would multiply: 4 attempts of its own in each of 3 of ours are 12 calls.

    And they have a channel that has lost its server try to connect again after 0.1 s, and then, longer from time to
    time, after 5 s at most. gRPC's own waits are 1 s at first and two minutes at most, and until they are over, all
    calls fail at once without touching the network: retries after a short outage and a half-open circuit breaker would
    ask in vain.
    """
    return [(_RETRIES, 0), *_RECONNECT]


def all_options(options: Sequence[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """Return the options of a guarded channel, those of the caller included."""
    options = options or ()
    if any(name == _RETRIES and value for name, value in options):
        raise ValueError(f"options must not have {_RETRIES} on: the built-in retries would multiply the pipeline's")
    return [(_RETRIES, 0), *options, *_RECONNECT]


def client_interceptors(pipeline: Caller[Any], *, idempotent: Idempotent = None) -> list[Any]:
    """Return the interceptors for `grpc.intercept_channel(channel, *client_interceptors(pipeline))`.

    Args:
        pipeline: the pipeline, or one of its policies, or what its `bind` returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.

    Give the channel `channel_options()` as well. Interceptors that are listed after these see every attempt, those
    that are listed before see one call. Unary-unary RPCs pass through the pipeline, the others pass it by.
    """
    return interceptors(Guard(pipeline, idempotent, ResilienceRpcError))


def interceptors(guard: Guard) -> list[Any]:
    """Return one interceptor for each arity."""
    return [UnaryUnaryInterceptor(guard)]


def aio_client_interceptors(pipeline: Caller[Any], *, idempotent: Idempotent = None) -> list[Any]:
    """Return the interceptors for `grpc.aio.insecure_channel(target, interceptors=..., options=channel_options())`.

    Args:
        pipeline: the pipeline, or one of its policies, or what its `bind` returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.

    Interceptors that are listed after these see every attempt, those that are listed before see one call. Unary-unary
    RPCs pass through the pipeline, the others pass it by.
    """
    return aio_interceptors(Guard(pipeline, idempotent, AioResilienceRpcError))


def aio_interceptors(guard: Guard) -> list[Any]:
    """Return one interceptor for each arity: of one for several, grpc would use the first only (#31442)."""
    return [AioUnaryUnaryInterceptor(guard)]


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Make a channel without encryption whose RPCs pass through a pipeline.

    Args:
        target: the server, as grpc takes it.
        pipeline: the pipeline; None: one that all such channels to this target share (`Timeout(30)`, `Retry()`,
            `Bulkhead(100, queue=100)`, `CircuitBreaker()`, `Timeout(10)`).
        idempotent: which methods may be repeated: True or False for all; names of methods ("/package.Service/Get"),
            or patterns as those of `fnmatch` ("/package.Service/Get*"), one or several, upper and lower case told
            apart; or a predicate that is asked once for each method, and returns True or False. Without it, what the
            pipeline's `bind` says, else False: then a call is only repeated when its request surely was not sent (the
            server's address refuses connections), or when the server asks for it (pushback).
        options: options for grpc; they go before those of `channel_options`, but for the built-in retries.
        compression: for grpc.

    Raises:
        TypeError: an argument of the wrong type, also a mapping or an async predicate as `idempotent`.
        ValueError: a name or pattern that can match no method, or `options` that switch the built-in retries on.

    A caller's `timeout=` is the deadline of the whole call. Our errors are `grpc.RpcError`s too; failures of the server
    come out as grpc's own. Unary-unary RPCs pass through the pipeline, the others pass it by.
    """
    guard = Guard(given_or_default(pipeline, target), idempotent, ResilienceRpcError, target, alone=True)
    channel = grpc.insecure_channel(target, all_options(options), compression)
    return _guarded(channel, guard)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Make a channel with these credentials; everything else is as in `insecure_channel`."""
    guard = Guard(given_or_default(pipeline, target), idempotent, ResilienceRpcError, target, alone=True)
    channel = grpc.secure_channel(target, credentials, all_options(options), compression)
    return _guarded(channel, guard)


def _guarded(channel: grpc.Channel, guard: Guard) -> grpc.Channel:
    guard.connectivity.watch(connectivity_of(channel))
    return grpc.intercept_channel(channel, *interceptors(guard))


_defaults: WeakValueDictionary[str, Pipeline[Any]] = WeakValueDictionary()
_making = new_lock()


def given_or_default(pipeline: Caller[Any] | None, target: str) -> Caller[Any]:
    """Return the pipeline that was given; only None means the one of the target. `Guard` refuses what is none."""
    return default_pipeline(target) if pipeline is None else pipeline


def default_pipeline(target: str) -> Pipeline[Any]:
    """Return the pipeline of all channels to a target that were given none."""
    with _making:
        pipeline = _defaults.get(target)
        if pipeline is None:
            pipeline = _defaults[target] = Pipeline(
                Timeout(30.0), Retry(), Bulkhead(100, queue=100), CircuitBreaker(), Timeout(10.0), name=target
            )
        return pipeline
