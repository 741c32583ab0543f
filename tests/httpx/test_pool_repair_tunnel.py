"""Pools whose connections fail inside of a CONNECT tunnel: no slot is lost."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience.httpx import attach
from tests.httpx.helpers import WAYS, both_modules

pytestmark = pytest.mark.slow
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@contextmanager
def proxy(after_connect: bytes | None, heads: list[bytes] | None = None) -> Generator[str]:
    """A proxy that opens every tunnel, sends these bytes into it in place of TLS, and closes it; None: says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5.0)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(4096)
                if not received:
                    return
                head += received
            if heads is not None:
                heads.append(head)
            if not head.startswith(b"CONNECT"):
                connection.sendall(PLAIN)
                return
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            connection.recv(4096)  # the client's part of the handshake
            if after_connect is None:
                over.wait(5.0)
            else:
                connection.sendall(after_connect)

    def quietly(connection: socket.socket) -> None:
        try:
            serve(connection)
        except OSError:
            return  # the client has gone

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=quietly, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5.0)
        for thread in threads:
            thread.join(5.0)


def outcomes(way: str, module: Any, url: str) -> list[object]:
    """Make three requests through a pool of one connection, the last one without TLS."""
    settings: dict[str, Any] = {
        "proxy": url,
        "limits": module.Limits(max_connections=1),
        "timeout": module.Timeout(0.3, pool=0.5),
    }
    urls = ["https://target.test", "https://target.test", "http://target.test"]
    pipeline = Pipeline(Timeout(5.0))
    found: list[object] = []
    if way == "sync":
        with attach(module.Client(**settings), pipeline) as client:
            for one in urls:
                try:
                    found.append(client.get(one).status_code)
                except module.TransportError as error:
                    found.append(type(error).__name__)
        return found

    async def main() -> None:
        async with attach(module.AsyncClient(**settings), pipeline) as client:
            for one in urls:
                try:
                    found.append((await client.get(one)).status_code)
                except module.TransportError as error:
                    found.append(type(error).__name__)

    if way == "asyncio":
        asyncio.run(main())
    else:
        trio.run(main)
    return found


@pytest.mark.parametrize("way", WAYS)
@both_modules
@pytest.mark.parametrize(
    ("after_connect", "error"),
    [(b"no TLS at all, but garbage", "ConnectError"), (b"", "ConnectError"), (None, "ConnectTimeout")],
    ids=["garbage", "end", "silence"],
)
def test_a_tunnel_that_fails_gives_its_place_back(
    way: str, module: Any, after_connect: bytes | None, error: str
) -> None:
    with proxy(after_connect) as url:
        assert outcomes(way, module, url) == [error, error, 200]


@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_a_post_that_is_cut_while_tls_is_made_in_a_tunnel_is_repeated(way: str, module: Any) -> None:
    """Nothing of it was sent: the CONNECT is a request to the proxy."""
    heads: list[bytes] = []
    pipeline = Pipeline(Retry(2, wait=backoff.none()), Timeout(0.3), budget=None)
    with proxy(None, heads) as url:
        if way == "sync":
            with attach(module.Client(proxy=url), pipeline) as client, pytest.raises(DeadlineExceededError):
                client.post("https://target.test", content=b"once")
        else:

            async def main() -> None:
                async with attach(module.AsyncClient(proxy=url), pipeline) as client:
                    with pytest.raises(DeadlineExceededError):
                        await client.post("https://target.test", content=b"once")

            if way == "asyncio":
                asyncio.run(main())
            else:
                trio.run(main)
    assert len(heads) == 2
