"""Guarded channels to a real server: they connect again soon, repeat nothing by themselves, and share a pipeline."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitOpenError, Pipeline, Retry, backoff, remaining
from tests.grpc.helpers import SOON, UNAVAILABLE, Rpc, stub, ways
from tests.grpc.servers import OPTIONS, Service, stub_of

pytestmark = pytest.mark.slow


@ways
def test_a_retry_gets_over_a_short_outage(service: Service, way: Rpc) -> None:
    retry = Retry(20, wait=backoff.fixed(0.05), budget=None)
    get = stub(service, Pipeline(retry), options=())  # those of ours, not those of the tests
    assert way(get, b"x") == b"x"
    service.stop()
    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(1)), options=()), b"x")
    again = threading.Timer(0.2, service.start)
    again.start()
    started = time.monotonic()

    assert way(get, b"x") == b"x"
    # This proves that the waits of our options are in force: gRPC's own first wait is at least 0.8 s.
    assert time.monotonic() - started <= 0.75
    again.join()


@ways
def test_the_built_in_retry_is_off(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.02s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config)]

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), options=options), b"x")
    assert service.count("Get") == 3


def test_without_a_pipeline_all_channels_share_the_standard_one_with_state_for_each_target(service: Service) -> None:
    one, two = (resilience.grpc.insecure_channel(service.target, options=OPTIONS) for _ in range(2))
    nowhere = resilience.grpc.insecure_channel("127.0.0.1:1", options=OPTIONS)
    for _ in range(7):
        with pytest.raises(grpc.RpcError):
            stub_of(nowhere, "Get")(b"x", timeout=5)
    with pytest.raises(CircuitOpenError):
        stub_of(nowhere, "Get")(b"x", timeout=5)

    assert stub_of(one, "Get")(b"x") == stub_of(two, "Get")(b"x") == b"x"
    assert "grpc" in resilience.pipelines()
    assert remaining() is None


def test_a_secure_channel_is_guarded_too(service: Service) -> None:
    credentials = grpc.local_channel_credentials()
    server = grpc.server(ThreadPoolExecutor(2))
    handlers: Any = (service,)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    try:
        service.script("Get", UNAVAILABLE, b"yes")
        channel = resilience.grpc.secure_channel(
            f"127.0.0.1:{port}", credentials, Pipeline(Retry(wait=SOON)), idempotent=True
        )
        assert stub_of(channel, "Get")(b"x") == b"yes"
    finally:
        server.stop(0).wait()
