"""Guarded channels to a real server: they connect again soon, repeat nothing by themselves, and share a pipeline."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout, backoff, remaining
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


@contextmanager
def aging(service: Service) -> Iterator[str]:
    """A server that closes each connection after 20 ms, with a GOAWAY; yields its target."""
    options = [("grpc.max_connection_age_ms", 20), ("grpc.max_connection_age_grace_ms", 2000)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    handlers: Any = (service,)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_connections_that_the_server_closes_for_their_age_fail_no_call(service: Service) -> None:
    pipeline = Pipeline(Bulkhead(100), CircuitBreaker())
    with aging(service) as target, resilience.grpc.insecure_channel(target, pipeline) as channel:
        get = stub_of(channel, "Get")

        def calls(number: int) -> set[bytes]:
            return {get(b"x", timeout=20) for _ in range(number)}

        with ThreadPoolExecutor(4) as pool:
            assert set.union(*pool.map(calls, [500] * 4)) == {b"x"}
    assert service.count("Get") == 2000


def test_nor_does_it_on_grpc_aio(service: Service) -> None:
    async def main(target: str) -> None:
        pipeline = Pipeline(Bulkhead(100), CircuitBreaker())
        async with resilience.grpc.aio.insecure_channel(target, pipeline) as channel:
            get = stub_of(channel, "Get")

            async def calls(number: int) -> None:
                for _ in range(number):
                    assert await get(b"x", timeout=20) == b"x"

            await asyncio.gather(*(calls(500) for _ in range(4)))

    with aging(service) as target:
        asyncio.run(main(target))
    assert service.count("Get") == 2000


def test_compression_credentials_and_metadata_with_duplicate_keys_pass_through(service: Service) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    handlers: Any = (service,)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    service.script("Get", UNAVAILABLE, b"yes")
    try:
        with resilience.grpc.secure_channel(
            f"127.0.0.1:{port}",
            grpc.local_channel_credentials(),
            Pipeline(Retry(wait=SOON)),
            idempotent=True,
            compression=grpc.Compression.Gzip,
        ) as channel:
            token = grpc.access_token_call_credentials("secret")
            metadata = [("x-a", "1"), ("x-a", "2")]
            get = stub_of(channel, "Get")
            assert (
                get(b"x" * 5000, metadata=metadata, credentials=token, compression=grpc.Compression.Deflate) == b"yes"
            )
    finally:
        server.stop(0).wait()
    for seen in service.seen:
        assert [pair for pair in seen.pairs if pair[0] == "x-a"] == metadata
        assert ("authorization", "Bearer secret") in seen.pairs
        assert seen.request == b"x" * 5000


def test_a_process_that_is_forked_before_it_uses_a_pipeline_works(service: Service) -> None:
    code = "import sys; sys.path[:0] = {0!r}; import tests.grpc.test_channels_server as t; t.forks({1!r})"
    subprocess.run([sys.executable, "-c", code.format(sys.path, service.target)], check=True, timeout=60)
    assert service.count("Get") == 4


def forks(target: str) -> None:
    """Make calls in two forked children, through a pipeline that was made before; run in a process without threads."""
    pipeline = Pipeline(Retry(), Bulkhead(1), CircuitBreaker(), Timeout(5))
    interceptors = resilience.grpc.client_interceptors(pipeline)
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            with resilience.grpc.insecure_channel(target, pipeline) as channel:
                ok = stub_of(channel, "Get")(b"x") == b"x"
            with grpc.insecure_channel(target) as bare:
                guarded = stub_of(grpc.intercept_channel(bare, *interceptors), "Get")
                ok = ok and guarded.future(b"x").result() == b"x"
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_channel_can_be_made_where_makers_take_interceptors_by_keyword(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some instrumentations replace `grpc.aio.insecure_channel` by a function that adds interceptors, such as this."""
    bare: Any = grpc.aio.insecure_channel

    def patched(*args: Any, interceptors: Any = None, **kwargs: Any) -> Any:
        return bare(*args, interceptors=[*(interceptors or ())], **kwargs)

    async def main() -> None:
        async with resilience.grpc.aio.insecure_channel(service.target, Pipeline(Retry())) as channel:
            assert await stub_of(channel, "Get")(b"x") == b"x"

    monkeypatch.setattr(grpc.aio, "insecure_channel", patched)
    asyncio.run(main())
