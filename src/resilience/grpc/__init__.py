"""Guarded channels and client interceptors for `grpc` and `grpc.aio`, and interceptors for servers.

    channel = resilience.grpc.insecure_channel("quotes:50051", quotes, idempotent="/quotes.Quotes/Get*")
    channel = resilience.grpc.aio.insecure_channel("quotes:50051", quotes, idempotent="/quotes.Quotes/Get*")

All RPCs pass through the pipeline: with single messages and with streams, also when they are called as futures.
Requires the extra `grpc`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from resilience._util.exports import set_public_module as _set_public_module
from resilience._util.extras import import_first as _import_first

if not _TYPE_CHECKING:
    _import_first("grpc")  # before the modules that need it, for an error that names the extra

from resilience.grpc import aio
from resilience.grpc._channels import client_interceptors, insecure_channel, secure_channel
from resilience.grpc._failures import RPC_FAILURES, rpc_failures
from resilience.grpc._options import channel_options
from resilience.grpc._server import server_interceptor
from resilience.grpc.aio._channels import aio_client_interceptors
from resilience.grpc.aio._server import aio_server_interceptor

__all__ = [
    "RPC_FAILURES",
    "aio",
    "aio_client_interceptors",
    "aio_server_interceptor",
    "channel_options",
    "client_interceptors",
    "insecure_channel",
    "rpc_failures",
    "secure_channel",
    "server_interceptor",
]

_set_public_module(__name__, __all__, globals())
