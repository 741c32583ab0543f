"""The HTTP/2 side of FaultyServer: what each path does, and what is recorded."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib import util
from typing import Any

import httpx
import pytest
from h2 import connection, events

from resilience.testing import FaultyServer

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.fixture
def client(server: FaultyServer) -> Iterator[httpx.Client]:
    with httpx.Client(http1=False, http2=True, base_url=server.http2_url, timeout=5.0) as client:
        yield client


def test_answers_by_status(client: httpx.Client, server: FaultyServer) -> None:
    assert client.get("/ok").text == "ok"
    response = client.post("/503", content=b"12345", headers={"x-id": "7"})

    assert (response.status_code, response.text, response.http_version) == (503, "503", "HTTP/2")
    (request,) = [one for one in server.requests if one.method == "POST"]
    assert (request.path, request.body_length, request.headers["x-id"], request.complete) == ("/503", 5, "7", True)


@pytest.mark.parametrize(
    ("path", "error"),
    [("/refuse-stream", "error_code:.*7"), ("/reset-stream", "error_code:.*2"), ("/goaway", "last_stream_id:0")],
)
def test_a_fault_lasts_for_so_many_requests(path: str, error: str, client: httpx.Client, server: FaultyServer) -> None:
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError, match=error):
            client.get(path, params={"failures": 2, "key": "a"})
    assert client.get(path, params={"failures": 2, "key": "a"}).text == "ok"
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(path, params={"key": "b"})
    server.clear()
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(path, params={"key": "b"})
    assert server.count("GET", path) == 1


def test_a_stall_ends_with_the_block(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.get("/stall", timeout=0.2)


def test_other_paths_and_parameters_are_refused(client: httpx.Client) -> None:
    assert client.get("/fail").status_code == 404
    assert "/goaway" in client.get("/fail").text
    assert client.get("/goaway?failures=-1").status_code == 400
    assert client.get("/goaway?interval=1").status_code == 400


def test_a_broken_protocol_ends_the_connection(server: FaultyServer) -> None:
    with httpx.Client(base_url=server.http2_url, timeout=5.0) as plain, pytest.raises(httpx.RemoteProtocolError):
        plain.get("/ok")


def test_it_says_what_it_needs(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *more: Any) -> None:
        assert name == "h2"

    monkeypatch.setattr("resilience.testing._faulty_server.find_spec", find)
    with pytest.raises(ImportError, match=r"pip install h2, or httpx\[http2\]"):
        server.http2_url  # noqa: B018 - a property
    assert util.find_spec("h2") is not None


def test_head_gets_the_head_only(client: httpx.Client) -> None:
    for path, status in (("/ok", 200), ("/503", 503), ("/fail", 404), ("/goaway?failures=-1", 400)):
        response = client.head(path)
        assert (response.status_code, response.content) == (status, b"")
        assert int(response.headers["content-length"]) > 0
    for path in ("/204", "/304"):
        assert (client.get(path).content, client.head(path).content) == (b"", b"")


@pytest.mark.parametrize(
    ("path", "status"), [("/" + "9" * 5000, 404), ("//[x", 404), ("/ok?failures=%E9%BF%BF", 400), ("/600", 404)]
)
def test_absurd_paths_are_answered(path: str, status: int, server: FaultyServer) -> None:
    with httpx.Client(http1=False, http2=True, timeout=5.0) as client:
        request = client.build_request("GET", server.http2_url)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == status


def test_a_stream_that_is_reset_at_once_disturbs_no_other(server: FaultyServer) -> None:
    state: Any = connection.H2Connection()
    state.initiate_connection()
    for number in (1, 3):
        state.send_headers(
            number, [(":method", "GET"), (":path", "/ok"), (":scheme", "http"), (":authority", "a")], True
        )
        if number == 1:
            state.reset_stream(number)
    host, _, port = server.http2_url.removeprefix("http://").partition(":")
    ended: list[int] = []
    with socket.create_connection((host, int(port)), timeout=5.0) as client:
        client.sendall(state.data_to_send())
        while not ended and (data := client.recv(65_536)):
            ended += [event.stream_id for event in state.receive_data(data) if isinstance(event, events.StreamEnded)]

    assert ended == [3]
