"""The functions that make guarded channels, and the interceptors for channels made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from resilience._call.caller import Caller
from resilience._pipeline.standard import standard_per_target
from resilience.grpc._channel import GuardedChannel
from resilience.grpc._connectivity import connectivity_of
from resilience.grpc._errors import ResilienceRpcError
from resilience.grpc._failures import RPC_FAILURES
from resilience.grpc._guard import Guard
from resilience.grpc._interceptors import SyncInterceptor
from resilience.grpc._methods import HEALTH_CHECKS, Idempotent
from resilience.grpc._options import channel_options


def client_interceptors(
    pipeline: Caller[Any],
    *,
    idempotent: Idempotent = None,
    propagate: bool = False,
    unguarded: str | Iterable[str] = HEALTH_CHECKS,
) -> list[Any]:
    """Return the interceptors for `grpc.intercept_channel(channel, *client_interceptors(pipeline))`: for all arities.

    Create the channel with `channel_options` as well. Interceptors that are listed after these see every attempt;
    interceptors that are listed before these see one call. Other interceptors may repeat a call, so a failure never
    proves here that the request was not sent: an RPC that is not idempotent is only retried when the server permits it.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method.
    """
    guard = Guard(pipeline, idempotent, ResilienceRpcError, propagate=propagate, unguarded=unguarded)
    return [SyncInterceptor(guard)]


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    propagate: bool = False,
    unguarded: str | Iterable[str] = HEALTH_CHECKS,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Return a channel without encryption whose RPCs pass through a pipeline.

    An RPC that is not idempotent is only retried if its request was not sent, because the address of the server refuses
    connections, or if the server permits it (`grpc-retry-pushback-ms`, gRFC A6). Each attempt sends the request as it
    was when the call was made. The messages of a request stream are kept for another attempt up to 256 KiB; if they are
    larger, no other attempt is made. A stream of responses is retried until its first response has arrived.

    The `timeout=` of an RPC, in seconds, is the deadline of the whole call, all attempts and waits included. None,
    infinity, NaN and what gRPC cannot express mean none. A stream of responses without any deadline is settled at its
    first response, since it may last for ever; otherwise it holds its permits until it ends.

    Errors of the pipeline are also `grpc.RpcError`s: `CircuitOpenError` has the code UNAVAILABLE, `BulkheadFullError`
    and `RateLimitedError` have RESOURCE_EXHAUSTED, `DeadlineExceededError` has DEADLINE_EXCEEDED. Failures of the
    server are raised as grpc raises them.

    Args:
        target: the address of the server, as for `grpc.insecure_channel`.
        pipeline: the pipeline, a single policy, or what `bind` of either returns. None for the standard pipeline of all
            channels without one, "grpc", which has a budget, a cooldown, a bulkhead and a circuit breaker for each
            target; see `standard`.
        idempotent: which methods may be repeated. True or False for all of them; a name ("/package.Service/Get") or a
            case-sensitive pattern of `fnmatch` ("/package.Service/Get*"), or several; or a function that takes the name
            of a method and returns True or False, called once for each method. A function that raises or returns
            anything else means False. None for what `bind` of the pipeline says. For a method about which this says
            nothing, the `idempotency_level` of its descriptor counts, if its generated code is loaded; otherwise it is
            not idempotent.
        propagate: whether each attempt sends its number as `x-envoy-attempt-count`. Let it tell only your own services.
        unguarded: names and patterns of methods that bypass the pipeline. By default they are those of gRPC's health
            checks, which are to reach a server whose circuit breaker is open, and say nothing about its methods.
        options: channel options for grpc. They take precedence over those of `channel_options`, but for the retry
            policies of a service config, which are removed. None for none.
        compression: the compression, as for `grpc.insecure_channel`.

    Returns:
        An intercepted channel, which is used as any other.

    Raises:
        TypeError: an argument has the wrong type, such as a mapping or an async function as `idempotent`.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method, or the service config in
            `options` is not the JSON of an object.
    """
    guard = guard_of(target, pipeline, idempotent, ResilienceRpcError, propagate, unguarded)
    return _guarded(grpc.insecure_channel(target, options=channel_options(options), compression=compression), guard)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    propagate: bool = False,
    unguarded: str | Iterable[str] = HEALTH_CHECKS,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Return a channel with credentials whose RPCs pass through a pipeline.

    Args:
        target: the address of the server, as for `grpc.secure_channel`.
        credentials: the channel credentials, as for `grpc.secure_channel`.
        pipeline: the pipeline; see `insecure_channel`, also for the other arguments and for what it returns.
        idempotent: which methods may be repeated.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.
        options: channel options for grpc.
        compression: the compression.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method, or the service config in
            `options` is not the JSON of an object.
    """
    guard = guard_of(target, pipeline, idempotent, ResilienceRpcError, propagate, unguarded)
    return _guarded(
        grpc.secure_channel(target, credentials, options=channel_options(options), compression=compression), guard
    )


def _guarded(channel: grpc.Channel, guard: Guard) -> grpc.Channel:
    guard.connectivity.watch(connectivity_of(channel))
    return GuardedChannel(channel, guard)


def guard_of(
    target: str,
    pipeline: Caller[Any] | None,
    idempotent: Idempotent,
    error_class: type[Any],
    propagate: bool,
    unguarded: str | Iterable[str],
    *,
    single_attempt: bool = True,
) -> Guard:
    """Return the guard of a new channel; see `insecure_channel` and `Guard`."""
    return Guard(
        standard_per_target("grpc", RPC_FAILURES) if pipeline is None else pipeline,
        idempotent,
        error_class,
        target,
        propagate=propagate,
        unguarded=unguarded,
        single_attempt=single_attempt,
    )
