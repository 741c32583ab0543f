"""Making guarded channels: the pipelines that they take, and their options."""

import asyncio
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Retry
from resilience.grpc._channels import all_options


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


def test_the_options_switch_the_built_in_retry_off() -> None:
    assert resilience.grpc.channel_options()[0] == ("grpc.enable_retries", 0)
    with pytest.raises(ValueError, match="enable_retries"):
        resilience.grpc.insecure_channel("127.0.0.1:1", Retry(), options=[("grpc.enable_retries", 1)])


def test_the_options_have_a_channel_connect_again_soon_unless_the_caller_has_it_otherwise() -> None:
    first, most = ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5000)
    mine = ("grpc.initial_reconnect_backoff_ms", 700)

    assert resilience.grpc.channel_options()[1:] == [first, most]
    assert all_options([mine])[1:] == [mine, first, most]  # of an option that is given twice, grpc takes the first
