"""Channels that google-cloud-firestore makes itself, with TLS and credentials, and that are guarded afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
import trustme

from resilience import Pipeline, Retry
from resilience.grpc import aio_client_interceptors, channel_options, client_interceptors
from tests.grpc.fake_firestore import (
    NAMED,
    READS,
    Firestore,
    aio_transport_class,
    anonymous,
    errors,
    services,
    transport_class,
)
from tests.grpc.helpers import SOON, UNAVAILABLE

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
SERVICE_CONFIG = (
    "grpc.service_config",
    json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]}),
)
"""A channel option by which gRPC itself makes four attempts of each."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def firestore(authority: trustme.CA) -> Iterator[Firestore]:
    certificate = authority.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    server = Firestore(grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)]))
    yield server
    server.stop()


def settings_of(authority: trustme.CA, options: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the arguments of `create_channel` of a transport for a server with a certificate of this authority."""
    return {
        "credentials": anonymous(),
        "ssl_credentials": grpc.ssl_channel_credentials(authority.cert_pem.bytes()),
        "options": options,
    }


def ask(client: Any) -> str:
    return str(client.get_document(request=NAMED, retry=None, timeout=20.0).name)


async def aask(client: Any) -> str:
    return str((await client.get_document(request=NAMED, retry=None, timeout=20.0)).name)


def make_guarded(pipeline: Pipeline[Any], host: str, *, options: Any = (), **settings: Any) -> grpc.Channel:
    """Make the channel as the transport would, but guard it; this is given to the transport as its channel."""
    channel = transport_class().create_channel(host, options=channel_options(options), **settings)
    return grpc.intercept_channel(channel, *client_interceptors(pipeline, idempotent=READS))


def test_a_channel_of_the_sdk_is_guarded(firestore: Firestore, authority: trustme.CA) -> None:
    settings = settings_of(authority, [SERVICE_CONFIG])
    channel = make_guarded(Pipeline(Retry(3, wait=SOON)), firestore.target, **settings)
    with services().FirestoreClient(transport=transport_class()(channel=channel)) as client:
        firestore.script(UNAVAILABLE, "b")
        assert ask(client) == "b"
        firestore.script(*[UNAVAILABLE] * 20)
        with pytest.raises(errors().ServiceUnavailable):
            ask(client)

    assert len(firestore.seen) == 2 + 3


def test_without_channel_options_attempts_multiply(firestore: Firestore, authority: trustme.CA) -> None:
    """So the service config of these tests has an effect where it is not removed."""
    settings = settings_of(authority, [SERVICE_CONFIG])
    bare = transport_class().create_channel(firestore.target, **settings)
    channel = grpc.intercept_channel(bare, *client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=READS))
    with services().FirestoreClient(transport=transport_class()(channel=channel)) as client:
        firestore.script(*[UNAVAILABLE] * 20)
        with pytest.raises(errors().ServiceUnavailable):
            ask(client)

    assert len(firestore.seen) == 3 * 4


def test_a_channel_of_the_async_sdk_is_guarded(firestore: Firestore, authority: trustme.CA) -> None:
    async def main() -> None:
        interceptors = aio_client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=READS)
        settings = settings_of(authority, channel_options([SERVICE_CONFIG]))
        channel = aio_transport_class().create_channel(firestore.target, interceptors=interceptors, **settings)
        transport = aio_transport_class()(channel=channel)
        client = services().FirestoreAsyncClient(transport=transport)
        firestore.script(UNAVAILABLE, "b")
        assert await aask(client) == "b"
        firestore.script(*[UNAVAILABLE] * 20)
        with pytest.raises(errors().ServiceUnavailable):
            await aask(client)
        await transport.close()

    asyncio.run(main())
    assert len(firestore.seen) == 2 + 3


def test_a_transport_takes_a_function_that_makes_a_guarded_channel(firestore: Firestore, authority: trustme.CA) -> None:
    """It is called with the host, the credentials and the channel options of the SDK."""
    root = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    make = partial(make_guarded, Pipeline(Retry(3, wait=SOON)))
    transport = transport_class()(
        host=firestore.target, credentials=anonymous(), channel=make, ssl_channel_credentials=root
    )
    with services().FirestoreClient(transport=transport) as client:
        firestore.script(UNAVAILABLE, "b")
        assert ask(client) == "b"

    assert len(firestore.seen) == 2
