"""The functions that make guarded channels, and the interceptors and options for channels made elsewhere."""

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
    """Return the channel options that `insecure_channel` sets, for a channel that is made elsewhere.

    `grpc.enable_retries` is 0: it disables the retries that gRPC makes when a service config has a `retryPolicy`
    (gRFC A6). Interceptors do not see these retries, and they would multiply: 4 attempts of gRPC in each of 3 attempts
    of the pipeline are 12 calls. Transparent retries, of requests that no server has seen, stay enabled.

    `grpc.initial_reconnect_backoff_ms` is 100 and `grpc.max_reconnect_backoff_ms` is 5000: a channel that has lost its
    connection tries to connect again after 0.1 s, then after longer and longer waits of at most 5 s. The defaults of
    gRPC are 1 s and 2 minutes. During such a wait all calls fail at once without touching the network, so that retries
    after a short outage and the probes of a half-open circuit breaker would fail needlessly.

    If an option is given twice, grpc uses the first: put your own values before these.

    Returns:
        Pairs of name and value, for `options=` of a channel.
    """
    return [(_RETRIES, 0), *_RECONNECT]


def all_options(options: Sequence[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """Return the options of a guarded channel: those given by the caller, and those of `channel_options`.

    Raises:
        ValueError: the caller enables the built-in retries.
    """
    options = options or ()
    if any(name == _RETRIES and value for name, value in options):
        raise ValueError(
            f"options must not enable {_RETRIES}: the built-in retries would multiply those of the pipeline"
        )
    return [(_RETRIES, 0), *options, *_RECONNECT]


def client_interceptors(pipeline: Caller[Any], *, idempotent: Idempotent = None) -> list[Any]:
    """Return the interceptors for `grpc.intercept_channel(channel, *client_interceptors(pipeline))`.

    Create the channel with `channel_options()` as well. Interceptors that are listed after these see every attempt;
    interceptors that are listed before these see one call. Unary-unary RPCs pass through the pipeline, RPCs that stream
    bypass it. Other interceptors may repeat a call, so a failure never proves here that the request was not sent: an
    RPC that is not idempotent is only retried when the server permits it.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` can match no method.
    """
    return interceptors(Guard(pipeline, idempotent, ResilienceRpcError))


def interceptors(guard: Guard) -> list[Any]:
    """Return the interceptors of a channel: that for unary-unary RPCs."""
    return [UnaryUnaryInterceptor(guard)]


def aio_client_interceptors(pipeline: Caller[Any], *, idempotent: Idempotent = None) -> list[Any]:
    """Return the interceptors for `grpc.aio.insecure_channel(target, interceptors=..., options=channel_options())`.

    The rest is as in `client_interceptors`: the order of interceptors, the RPCs that bypass the pipeline, and the RPCs
    that are retried.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` can match no method.
    """
    return aio_interceptors(Guard(pipeline, idempotent, AioResilienceRpcError))


def aio_interceptors(guard: Guard) -> list[Any]:
    """Return the interceptors of a channel of `grpc.aio`: that for unary-unary RPCs.

    grpc uses an interceptor that implements several arities for the first of them only (grpc/grpc #31442).
    """
    return [AioUnaryUnaryInterceptor(guard)]


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Return a channel without encryption whose unary-unary RPCs pass through a pipeline.

    RPCs that stream requests or responses bypass the pipeline.

    An RPC that is not idempotent is only retried if its request was not sent, because the address of the server refuses
    connections, or if the server permits it (`grpc-retry-pushback-ms`, gRFC A6).

    The `timeout=` of an RPC, in seconds, is the deadline of the whole call, all attempts and waits included. Errors of
    the pipeline are also `grpc.RpcError`s: `CircuitOpenError` has the code UNAVAILABLE, `BulkheadFullError` and
    `RateLimitedError` have RESOURCE_EXHAUSTED, `DeadlineExceededError` has DEADLINE_EXCEEDED. Failures of the server
    are raised as grpc raises them.

    Args:
        target: the address of the server, as for `grpc.insecure_channel`.
        pipeline: the pipeline, a single policy, or what `bind` of either returns. None for a default pipeline, which
            all channels to this target share that were given none: `Timeout(30)`, `Retry()`,
            `Bulkhead(100, queue=100)`, `CircuitBreaker()`, `Timeout(10)`.
        idempotent: which methods may be repeated. True or False for all of them; a name ("/package.Service/Get") or a
            case-sensitive pattern of `fnmatch` ("/package.Service/Get*"), or several; or a function that takes the name
            of a method and returns True or False, called once for each method. A function that raises or returns
            anything else means False. None for what `bind` of the pipeline says, otherwise False.
        options: channel options for grpc. They take precedence over those of `channel_options`, but must not enable
            the built-in retries. None for none.
        compression: the compression, as for `grpc.insecure_channel`.

    Returns:
        An intercepted channel, which is used as any other.

    Raises:
        TypeError: an argument has the wrong type, such as a mapping or an async function as `idempotent`.
        ValueError: a name or pattern in `idempotent` can match no method, or `options` enable the built-in retries.
    """
    guard = Guard(given_or_default(pipeline, target), idempotent, ResilienceRpcError, target, single_attempt=True)
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
    """Return a channel with credentials whose unary-unary RPCs pass through a pipeline.

    Args:
        target: the address of the server, as for `grpc.secure_channel`.
        credentials: the channel credentials, as for `grpc.secure_channel`.
        pipeline: the pipeline; see `insecure_channel`, also for the other arguments and for what it returns.
        idempotent: which methods may be repeated.
        options: channel options for grpc.
        compression: the compression.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` can match no method, or `options` enable the built-in retries.
    """
    guard = Guard(given_or_default(pipeline, target), idempotent, ResilienceRpcError, target, single_attempt=True)
    channel = grpc.secure_channel(target, credentials, all_options(options), compression)
    return _guarded(channel, guard)


def _guarded(channel: grpc.Channel, guard: Guard) -> grpc.Channel:
    guard.connectivity.watch(connectivity_of(channel))
    return grpc.intercept_channel(channel, *interceptors(guard))


_defaults: WeakValueDictionary[str, Pipeline[Any]] = WeakValueDictionary()
_defaults_lock = new_lock()


def given_or_default(pipeline: Caller[Any] | None, target: str) -> Caller[Any]:
    """Return the given pipeline, or the default one of the target where None is given. `Guard` checks the type."""
    return default_pipeline(target) if pipeline is None else pipeline


def default_pipeline(target: str) -> Pipeline[Any]:
    """Return the pipeline of the channels to a target that were created without a pipeline, making it if needed."""
    with _defaults_lock:
        pipeline = _defaults.get(target)
        if pipeline is None:
            pipeline = _defaults[target] = Pipeline(
                Timeout(30.0), Retry(), Bulkhead(100, queue=100), CircuitBreaker(), Timeout(10.0), name=target
            )
        return pipeline
