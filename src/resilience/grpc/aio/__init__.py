"""Channels of `grpc.aio` that pass RPCs through a pipeline. `grpc.aio` runs on asyncio only."""

from __future__ import annotations

from resilience._util.exports import set_public_module as _set_public_module
from resilience.grpc.aio._channels import insecure_channel, secure_channel

__all__ = ["insecure_channel", "secure_channel"]

_set_public_module(__name__, __all__, globals())
