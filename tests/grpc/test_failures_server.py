"""Requests that cannot be sent for metadata or credentials: that says nothing about the server."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitBreaker, Pipeline, Retry
from tests.grpc.helpers import SOON, Rpc, stub, ways
from tests.grpc.servers import Service, stub_of

pytestmark = pytest.mark.slow


@ways
def test_metadata_that_cannot_be_sent_says_nothing_about_the_server(service: Service, way: Rpc) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    get = stub(service, Pipeline(Retry(3, wait=SOON), breaker))

    with pytest.raises((grpc.RpcError, ValueError)):  # which of them depends on the version of grpc
        way(get, b"x", metadata=[("authorization", "a line\n")])
    assert breaker.state == "closed"
    assert service.seen == []
    assert way(get, b"x") == b"x"


def test_credentials_that_cannot_be_had_say_nothing_about_the_server() -> None:
    class Issuer(grpc.AuthMetadataPlugin):
        asked = 0

        def __call__(self, context: Any, callback: Any) -> None:
            self.asked += 1
            raise ConnectionError

    issuer, breaker = Issuer(), CircuitBreaker(consecutive_failures=1)
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), grpc.metadata_call_credentials(issuer)
    )
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    pipeline = Pipeline(Retry(3, wait=SOON), breaker)
    channel = resilience.grpc.secure_channel(f"127.0.0.1:{port}", credentials, pipeline, idempotent="*/Get")
    try:
        for method, asked in (("Put", 1), ("Get", 4)):
            with pytest.raises(grpc.RpcError):
                stub_of(channel, method)(b"x")
            assert issuer.asked == asked
    finally:
        server.stop(0).wait()
    assert breaker.state == "closed"
