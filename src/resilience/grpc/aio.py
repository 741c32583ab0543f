"""Channels of `grpc.aio` that pass RPCs through a pipeline. `grpc.aio` runs on asyncio only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from resilience._call.caller import Caller
from resilience.grpc._channels import aio_interceptors, all_options, given_or_default
from resilience.grpc._connectivity import aio_connectivity_of
from resilience.grpc._errors import AioResilienceRpcError
from resilience.grpc._guard import Guard, Idempotent

__all__ = ["insecure_channel", "secure_channel"]


def insecure_channel(
    target: str,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Return a channel of `grpc.aio` without encryption whose unary-unary RPCs pass through a pipeline.

    RPCs that stream requests or responses bypass the pipeline. Errors of the pipeline are also `grpc.aio.AioRpcError`s.
    The rest is as in `resilience.grpc.insecure_channel`: deadlines, codes, and the RPCs that are retried.

    Args:
        target: the address of the server, as for `grpc.aio.insecure_channel`.
        pipeline: the pipeline, a single policy, or what `bind` of either returns. None for the default pipeline of the
            target; see `resilience.grpc.insecure_channel`.
        idempotent: which methods may be repeated; see `resilience.grpc.insecure_channel`.
        options: channel options for grpc. They take precedence over those of `resilience.grpc.channel_options`, but
            must not enable the built-in retries. None for none.
        compression: the compression, as for `grpc.aio.insecure_channel`.
        interceptors: further interceptors, inside the pipeline: they see every attempt. They may repeat a call, so with
            any of them a failure never proves that the request was not sent. None for none.

    Raises:
        TypeError: an argument has the wrong type, such as a mapping or an async function as `idempotent`.
        ValueError: a name or pattern in `idempotent` can match no method, or `options` enable the built-in retries.
    """
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _with_ours(guard, interceptors)
    return _watched(guard, grpc.aio.insecure_channel(target, all_options(options), compression, more))


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    pipeline: Caller[Any] | None = None,
    *,
    idempotent: Idempotent = None,
    options: Sequence[tuple[str, Any]] | None = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = (),
) -> grpc.aio.Channel:
    """Return a channel of `grpc.aio` with credentials whose unary-unary RPCs pass through a pipeline.

    Args:
        target: the address of the server, as for `grpc.aio.secure_channel`.
        credentials: the channel credentials, as for `grpc.aio.secure_channel`.
        pipeline: the pipeline; see `insecure_channel`, also for the other arguments.
        idempotent: which methods may be repeated.
        options: channel options for grpc.
        compression: the compression.
        interceptors: further interceptors, inside the pipeline.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a name or pattern in `idempotent` can match no method, or `options` enable the built-in retries.
    """
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _with_ours(guard, interceptors)
    return _watched(guard, grpc.aio.secure_channel(target, credentials, all_options(options), compression, more))


def _guard(target: str, pipeline: Caller[Any] | None, idempotent: Idempotent, more: Sequence[Any] | None) -> Guard:
    return Guard(given_or_default(pipeline, target), idempotent, AioResilienceRpcError, target, single_attempt=not more)


def _watched(guard: Guard, channel: grpc.aio.Channel) -> grpc.aio.Channel:
    guard.connectivity.watch(aio_connectivity_of(channel))
    return channel


def _with_ours(guard: Guard, more: Sequence[Any] | None) -> list[Any]:
    return [*aio_interceptors(guard), *(more or ())]
