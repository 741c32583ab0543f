"""The recipe for redis-py, as its page has it, with servers that close connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from tests.recipes.pages import definitions
from tests.support.threads import PATIENCE

pytestmark = pytest.mark.slow
Serve = Callable[[socket.socket], None]


@contextmanager
def listening(serve: Serve) -> Iterator[tuple[int, list[None]]]:
    """Listen on loopback; yield the port, and a list with an item for each connection."""
    accepted: list[None] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(None)
            with connection:
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield int(listener.getsockname()[1]), accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def close(connection: socket.socket) -> None:
    """Read a command, and close the connection."""
    connection.recv(4096)


def answer_once(connection: socket.socket) -> None:
    """Answer a command, and close the connection."""
    connection.recv(4096)
    connection.sendall(b"$2\r\nok\r\n")


def client_of(port: int) -> redis.Redis:
    """A client with the settings of the page."""
    given = definitions("redis.md", "client = redis.Redis").client.connection_pool.connection_kwargs
    settings = {name: given[name] for name in ("retry", "socket_timeout", "socket_connect_timeout")}
    return redis.Redis(port=port, protocol=2, driver_info=None, **settings)


def test_with_the_settings_of_the_page_a_command_is_sent_once() -> None:
    with listening(close) as (port, accepted), client_of(port) as client:
        with pytest.raises(redis.ConnectionError):
            client.get("price")
        assert len(accepted) == 1


def test_without_them_it_is_sent_eleven_times() -> None:
    with listening(close) as (port, accepted):
        client = redis.Redis(port=port, protocol=2, driver_info=None)
        retries = client.get_retry()
        assert retries is not None
        client.set_retry(RedisRetry(NoBackoff(), retries.get_retries()))  # the same number, without the waits
        with client, pytest.raises(redis.ConnectionError):
            client.get("price")
        assert len(accepted) == 11


def test_a_connection_that_was_closed_while_idle_is_replaced_without_retries() -> None:
    closed = threading.Event()

    def answer_and_close(connection: socket.socket) -> None:
        answer_once(connection)
        connection.close()
        closed.set()

    with listening(answer_and_close) as (port, accepted), client_of(port) as client:
        assert client.get("price") == b"ok"
        assert closed.wait(PATIENCE)  # what is sent before that is lost
        assert client.get("price") == b"ok"
        assert len(accepted) == 2


def test_an_increment_is_repeated_only_if_no_connection_was_made() -> None:
    page = definitions("redis.md", "client = redis.Redis", "def count")
    with listening(close) as (port, accepted), client_of(port) as page.client:
        with pytest.raises(redis.ConnectionError) as caught:
            page.count("calls")
        assert len(accepted) == 1
        assert "not idempotent" in caught.value.__notes__[0]
    with client_of(port) as page.client, pytest.raises(redis.ConnectionError) as caught:
        page.count("calls")
    assert "after 3 attempts" in caught.value.__notes__[0]
