"""Making guarded channels: the pipelines that they take, and their options."""

import asyncio
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Retry


@pytest.mark.parametrize("pipeline", [lambda: None, [], (), {}, "", 0, False])
def test_only_a_pipeline_is_taken(pipeline: Any) -> None:
    credentials = grpc.local_channel_credentials()

    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.client_interceptors(pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.insecure_channel("127.0.0.1:1", pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.secure_channel("127.0.0.1:1", credentials, pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.aio.insecure_channel("127.0.0.1:1", pipeline)


def test_what_grpc_takes_none_for_is_taken_here_too() -> None:
    resilience.grpc.insecure_channel("127.0.0.1:1", Retry(), options=None, compression=None).close()

    async def main() -> None:
        channel = resilience.grpc.aio.insecure_channel("127.0.0.1:1", Retry(), options=None, interceptors=None)
        await channel.close()

    asyncio.run(main())
