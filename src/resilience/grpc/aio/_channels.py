"""The functions that make guarded channels of `grpc.aio`, and the interceptors for channels made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from resilience._call.caller import Caller
from resilience.grpc._channels import guard_of
from resilience.grpc._connectivity import aio_connectivity_of
from resilience.grpc._errors import AioResilienceRpcError
from resilience.grpc._guard import Guard
from resilience.grpc._methods import HEALTH_CHECKS, Idempotent
from resilience.grpc._options import channel_options
from resilience.grpc.aio._channel import AioGuardedChannel
from resilience.grpc.aio._interceptors import aio_interceptors


def aio_client_interceptors(
    pipeline: Caller[Any],
    *,
    idempotent: Idempotent = None,
    propagate: bool = False,
    unguarded: str | Iterable[str] = HEALTH_CHECKS,
) -> list[Any]:
    """Return the interceptors for `grpc.aio.insecure_channel(target, interceptors=..., options=channel_options())`.

    There is one for each arity. The rest is as in `client_interceptors`: the order of interceptors, and the RPCs that
    are retried. To cancel a task that waits for `code()`, `details()` or metadata of a call with one request and one
    response cancels the call, too, unlike that of any other call.

    Args:
        pipeline: the pipeline, a single policy, or what `bind` of either returns (`bind(target="quotes")`).
        idempotent: which methods may be repeated; see `insecure_channel`.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method.
    """
    return aio_interceptors(
        Guard(pipeline, idempotent, AioResilienceRpcError, propagate=propagate, unguarded=unguarded)
    )


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    propagate: bool = False,
    unguarded: str | Iterable[str] = HEALTH_CHECKS,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Return a channel of `grpc.aio` without encryption whose RPCs pass through a pipeline.

    Errors of the pipeline are also `grpc.aio.AioRpcError`s. If the request iterator of a caller raises an exception,
    the call raises an error with the code UNKNOWN, as the synchronous API does, and with that exception as its cause;
    without the library it would raise a CancelledError. The rest is as in `resilience.grpc.insecure_channel`: requests,
    deadlines, codes, and the RPCs that are retried.

    Args:
        target: the address of the server, as for `grpc.aio.insecure_channel`.
        pipeline: the pipeline, a single policy, or what `bind` of either returns. None for the standard pipeline of
            channels; see `resilience.grpc.insecure_channel`.
        idempotent: which methods may be repeated; see `resilience.grpc.insecure_channel`, also for the next three.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.
        options: channel options for grpc.
        compression: the compression, as for `grpc.aio.insecure_channel`.
        interceptors: further interceptors, inside the pipeline: they see every attempt. They may repeat a call, so with
            any of them a failure never proves that the request was not sent. With one for unary RPCs, to cancel a task
            that waits for `code()`, `details()` or metadata of such a call cancels the call, too. None for none.

    Raises:
        TypeError: an argument has the wrong type, such as a mapping or an async function as `idempotent`.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method, or the service config in
            `options` is not the JSON of an object.
    """
    guard = _guard(target, pipeline, idempotent, propagate, unguarded, interceptors)
    ours = aio_interceptors(guard)
    channel = grpc.aio.insecure_channel(
        target,
        options=channel_options(options),
        compression=compression,
        interceptors=[*ours, *(interceptors or ())],
    )
    return _guarded(channel, guard, ours)


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
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Return a channel of `grpc.aio` with credentials whose RPCs pass through a pipeline.

    Args:
        target: the address of the server, as for `grpc.aio.secure_channel`.
        credentials: the channel credentials, as for `grpc.aio.secure_channel`.
        pipeline: the pipeline; see `insecure_channel`, also for the other arguments.
        idempotent: which methods may be repeated.
        propagate: whether each attempt sends its number.
        unguarded: the methods that bypass the pipeline.
        options: channel options for grpc.
        compression: the compression.
        interceptors: further interceptors, inside the pipeline.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` or `unguarded` can match no method, or the service config in
            `options` is not the JSON of an object.
    """
    guard = _guard(target, pipeline, idempotent, propagate, unguarded, interceptors)
    ours = aio_interceptors(guard)
    channel = grpc.aio.secure_channel(
        target,
        credentials,
        options=channel_options(options),
        compression=compression,
        interceptors=[*ours, *(interceptors or ())],
    )
    return _guarded(channel, guard, ours)


def _guard(
    target: str,
    pipeline: Caller[Any] | None,
    idempotent: Idempotent,
    propagate: bool,
    unguarded: str | Iterable[str],
    others: Sequence[Any] | None,
) -> Guard:
    single = not others
    return guard_of(target, pipeline, idempotent, AioResilienceRpcError, propagate, unguarded, single_attempt=single)


def _guarded(channel: grpc.aio.Channel, guard: Guard, ours: Sequence[Any]) -> grpc.aio.Channel:
    guard.connectivity.watch(aio_connectivity_of(channel))
    return AioGuardedChannel(channel, guard, ours[0])
