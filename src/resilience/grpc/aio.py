"""Guarded channels for `grpc.aio`, which runs on asyncio only."""

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
    """Make a channel without encryption whose RPCs pass through a pipeline.

    Args:
        target: the server, as grpc takes it.
        pipeline: see `resilience.grpc.insecure_channel`, also for the others.
        idempotent: which methods may be repeated.
        options: options for grpc.
        compression: for grpc.
        interceptors: more of them, further in: they see every attempt.
    """
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _all(guard, interceptors)
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
    """Make a channel with these credentials; everything else is as in `insecure_channel`."""
    guard = _guard(target, pipeline, idempotent, interceptors)
    more = _all(guard, interceptors)
    return _watched(guard, grpc.aio.secure_channel(target, credentials, all_options(options), compression, more))


def _guard(target: str, pipeline: Caller[Any] | None, idempotent: Idempotent, more: Sequence[Any] | None) -> Guard:
    return Guard(given_or_default(pipeline, target), idempotent, AioResilienceRpcError, target, alone=not more)


def _watched(guard: Guard, channel: grpc.aio.Channel) -> grpc.aio.Channel:
    guard.connectivity.watch(aio_connectivity_of(channel))
    return channel


def _all(guard: Guard, more: Sequence[Any] | None) -> list[Any]:
    return [*aio_interceptors(guard), *(more or ())]
