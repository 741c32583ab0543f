"""FaultyServer: what each fault does on the wire, what is counted, and that nothing is left at the end of the block."""

from __future__ import annotations

import contextlib
import copy
import http.client
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from resilience import Pipeline, Retry, backoff
from resilience._util.clock import clock
from resilience.httpx import attach
from resilience.testing import virtual_time
from resilience.testing._connection import POLL
from resilience.testing._faults import FAULTS, Parameters, find
from resilience.testing._faulty_requests import FOR_ALL, LIMITS, ReceivedRequest
from resilience.testing._faulty_server import FAIL_THEN_OK, FaultyServer
from tests.support.threads import PATIENCE, in_threads, wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "faulty-server.md"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"
SILENCE = 0.1


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


class Client:
    """A connection whose bytes are looked at one by one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def ask(self, path: str, *, method: str = "GET", more: bytes = b"\r\n") -> Client:
        """Send a request; `more` is the end of its head, and its body."""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n".encode() + more)
        return self

    def rest(self) -> tuple[bytes, str]:
        """Return what arrives until the end, and how that was."""
        found = b""
        try:
            while data := self.socket.recv(65536):
                found += data
        except ConnectionResetError:
            return found, "reset"
        return found, "closed"

    def until(self, end: bytes) -> bytes:
        """Return what arrives up to some bytes, without these."""
        found = b""
        while not found.endswith(end):
            data = self.socket.recv(1)
            assert data, found
            found += data
        return found.removesuffix(end)

    def is_silent(self) -> bool:
        """Return whether nothing arrives for a while, and the connection stays open."""
        self.socket.settimeout(SILENCE)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        return False


def get(server: FaultyServer, path: str, method: str = "GET", body: bytes | None = None) -> httpx.Response:
    """Return the answer to a request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        response = connection.getresponse()
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


@pytest.mark.parametrize(
    ("path", "sent", "ending"),
    [
        ("/close", b"", "closed"),
        ("/reset", b"", "reset"),
        ("/half-status", b"HTTP/1.1 20", "closed"),
        ("/half-headers", b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
        ("/short-body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789", "closed"),
        ("/short-body-reset", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789", "reset"),
        ("/chunk-cut", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n10\r\ncut", "closed"),
        ("/chunk-bad", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nzz\r\n", "closed"),
        ("/keepalive-close", GOOD, "closed"),
        ("/keepalive-reset", GOOD, "reset"),
        (
            "/408-idle",
            GOOD + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "closed",
        ),
        (
            "/early-503",
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 3\r\n\r\n503",
            "closed",
        ),
        ("/fail-then-ok?fault=half-status", b"HTTP/1.1 20", "closed"),
    ],
)
def test_a_fault_that_ends_the_connection(server: FaultyServer, path: str, sent: bytes, ending: str) -> None:
    with Client(server.url).ask(path) as client:
        assert client.rest() == (sent, ending)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/ok", b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Content-Length: 2\r\n\r\nok"),
        ("/ok?size=5", b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Content-Length: 5\r\n\r\nxxxxx"),
        ("/ok?size=0", b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Content-Length: 0\r\n\r\n"),
        ("/ok?body=%C3%A9", b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Content-Length: 2\r\n\r\n\xc3\xa9"),
        ("/ok?header=Content-Type:a/b", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: a/b\r\n\r\nok"),
        (
            "/status/503?retry-after=1&retry-after=soon&header=RateLimit:%22a%22%3Br=0",
            b"HTTP/1.1 503 Service Unavailable\r\n" + PLAIN + b"Content-Length: 3\r\n"
            b'Retry-After: 1\r\nRetry-After: soon\r\nRateLimit: "a";r=0\r\n\r\n503',
        ),
        ("/status/529", b"HTTP/1.1 529 \r\n" + PLAIN + b"Content-Length: 3\r\n\r\n529"),
        ("/425", b"HTTP/1.1 425 Too Early\r\n" + PLAIN + b"Content-Length: 3\r\n\r\n425"),
        ("/status/204", b"HTTP/1.1 204 No Content\r\n" + PLAIN + b"\r\n"),
        ("/redirect-loop", b"HTTP/1.1 302 Found\r\nLocation: /redirect-loop\r\nContent-Length: 0\r\n\r\n"),
        ("/early-hints", HINT + GOOD),
        ("/head-drip?interval=0", GOOD),
        ("/drip?size=3&interval=0", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxxx"),
        ("/drip-503?size=3&interval=0", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nxxx"),
        ("/bad-gzip", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"),
        ("/long-body", GOOD + b"-and-much-more"),
        (
            "/sse?events=2&interval=0",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
        ),
        ("/echo", b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_a_fault_after_which_the_connection_takes_another_request(server: FaultyServer, path: str, sent: bytes) -> None:
    with Client(server.url).ask(path).ask("/early-503") as client:
        assert client.until(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close") == sent

    assert server.connections == 1


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/stall", b""),
        ("/headers-stall", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        ("/head-drip?interval=60", b"H"),
        ("/hints-forever?interval=60", HINT),
        ("/drip?interval=60", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"),
        ("/keepalive-close?delay=60", GOOD),
    ],
)
def test_a_fault_that_falls_silent(server: FaultyServer, path: str, sent: bytes) -> None:
    with Client(server.url).ask(path) as client:
        assert client.until(sent) == b""
        assert client.is_silent()
        assert server.open_connections == 1


@pytest.mark.parametrize("path", ["/stall", "/headers-stall", "/hints-forever?interval=0", "/drip?interval=0.001"])
def test_it_ends_when_the_client_leaves(server: FaultyServer, path: str) -> None:
    with Client(server.url).ask(path):
        wait_until(lambda: server.count() == 1)

    wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize(
    ("path", "intervals"),
    [("/head-drip?interval=0.005", 37), ("/drip?interval=0.01&size=21", 20), ("/sse?interval=0.1&events=3", 2)],
)
def test_a_drip_takes_as_long_as_it_has_intervals(server: FaultyServer, path: str, intervals: int) -> None:
    interval = float(path.split("interval=")[1].partition("&")[0])
    before = clock.monotonic()

    assert get(server, path).status_code == 200
    assert clock.monotonic() - before >= 0.9 * intervals * interval


def test_hints_come_for_ever(server: FaultyServer) -> None:
    with Client(server.url).ask("/hints-forever?interval=0.001") as client:
        assert [client.until(HINT) for _ in range(20)] == [b""] * 20


@pytest.mark.parametrize("path", ["/ok", "/status/503", "/long-body", "/bad-gzip", "/nothing"])
def test_an_answer_to_head_has_no_body(server: FaultyServer, path: str) -> None:
    with Client(server.url).ask(path, method="HEAD").ask("/half-status") as client:
        client.until(b"\r\n\r\n")
        assert client.rest() == (b"HTTP/1.1 20", "closed")


def test_a_kept_connection_that_ends_sends_no_body_for_head_either(server: FaultyServer) -> None:
    with Client(server.url).ask("/keepalive-close", method="HEAD") as client:
        assert client.rest() == (GOOD.removesuffix(b"ok"), "closed")


def test_connection_close_is_obeyed(server: FaultyServer) -> None:
    with Client(server.url).ask("/ok", more=b"Connection: close\r\n\r\n") as client:
        assert client.rest()[1] == "closed"


def test_a_client_that_reads_late_gets_everything(server: FaultyServer) -> None:
    with Client(server.url).ask("/ok?size=20000000") as client:
        wait_until(lambda: server.count() == 1)
        threading.Event().wait(3 * POLL)
        client.ask("/half-status")
        found, ending = client.rest()

    head, _, body = found.partition(b"\r\n\r\n")
    assert b"Content-Length: 20000000" in head
    assert body == b"x" * 20_000_000 + b"HTTP/1.1 20"
    assert ending == "closed"


def test_echo_returns_the_body(server: FaultyServer) -> None:
    with Client(server.url) as client:
        client.ask("/echo", method="POST", more=b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\nhello")
        assert client.until(b"hello").endswith(b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\n")
        client.ask(
            "/echo", method="POST", more=b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n, wide wor\r\n"
        )
        client.socket.sendall(b"2\r\nld\r\n0\r\nTrailer: x\r\n\r\n")
        assert client.until(b"hello, wide world").endswith(b"Content-Length: 17\r\n\r\n")


def test_early_503_does_not_wait_for_the_body(server: FaultyServer) -> None:
    with Client(server.url).ask("/early-503", method="POST", more=b"Content-Length: 100\r\n\r\nfirst") as client:
        assert client.rest()[0].endswith(b"\r\n\r\n503")

    with httpx.Client(timeout=PATIENCE) as whole:
        assert whole.put(f"{server.url}/early-503", content=b"x" * 5_000_000).status_code == 503
    assert [(one.body_length, one.complete) for one in server.requests] == [(0, False), (0, False)]


def test_the_first_requests_fail_by_key(server: FaultyServer) -> None:
    path = "/fail-then-ok?failures=2&fault=status/429&retry-after=7&key="

    assert [get(server, path + key).status_code for key in "aababab"] == [429, 429, 429, 200, 429, 200, 200]
    failed, good = get(server, path + "c"), get(server, path + "a")
    assert (failed.headers.get("Retry-After"), good.headers.get("Retry-After")) == ("7", None)
    assert get(server, "/fail-then-ok").status_code == 503  # one failure, of status 503, unless said otherwise
    assert get(server, "/fail-then-ok").status_code == 200


def test_a_pipeline_gets_through(server: FaultyServer) -> None:
    with attach(httpx.Client(), Pipeline(Retry(3, wait=backoff.none()))) as client:
        assert client.get(f"{server.url}/fail-then-ok?failures=2&fault=reset").text == "ok"

    assert (server.connections, server.count("GET", "/fail-then-ok")) == (3, 3)


def test_nothing_listens_on_the_port_that_refuses(server: FaultyServer) -> None:
    with pytest.raises(ConnectionRefusedError):
        Client(server.refused_url)
    assert server.connections == 0


def test_the_port_that_resets(server: FaultyServer) -> None:
    with pytest.raises(ConnectionResetError), Client(server.accept_reset_url) as client:
        client.socket.recv(1)
        pytest.fail("not reset")
    assert server.connections == 1


def test_the_port_that_closes(server: FaultyServer) -> None:
    with Client(server.accept_close_url).ask("/ok") as client:
        assert client.rest() == (b"", "closed")
    assert (server.connections, server.requests) == (1, [])


def test_the_port_that_is_silent(server: FaultyServer) -> None:
    with Client(server.silent_url).ask("/ok") as client:
        assert client.is_silent()
    assert (server.connections, server.requests) == (1, [])


def test_an_unknown_path_lists_the_faults(server: FaultyServer) -> None:
    response = get(server, "/nothing?at=all", "POST", body=b"x")

    assert response.status_code == 404
    assert set(response.text.partition("known are ")[2].strip().split(", ")) == {
        *[f"/{name}" for name in FAULTS],
        *["/status/<code>", f"/{FAIL_THEN_OK}"],
    }
    assert server.count("POST", "/nothing") == 1


@pytest.mark.parametrize("path", ["/status/199", "/status/600", "/status/x", "/status", "/fail-then-ok?fault=nothing"])
def test_other_paths_that_are_unknown(server: FaultyServer, path: str) -> None:
    assert get(server, path).status_code == 404


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/ok?sizes=1", "unknown parameter 'sizes'; known are body, header, key, retry-after, size"),
        ("/reset?delay=1", "unknown parameter 'delay'; known are header, key, retry-after"),
        ("/fail-then-ok?size=1&fault=reset", "known are failures, fault, header, key, retry-after"),
        ("/ok?size=-1", "size must be an integer from 0 to 100000000, not '-1'"),
        ("/ok?size=1.5", "size must be an integer"),
        ("/ok?size=100000001", "size must be an integer"),
        ("/fail-then-ok?failures=", "failures must be an integer from 0 to 1000000, not ''"),
        ("/drip?interval=inf", "interval must be a number from 0 to 3600, not 'inf'"),
        ("/keepalive-close?delay=" + "9" * 400, "delay must be a number"),
        ("/ok?header=name", "header must be name:value in Latin-1, not 'name'"),
        ("/ok?header=:value", "header must be name:value"),
        ("/ok?header=a:%E2%82%AC", "header must be name:value"),
        ("/ok?retry-after=1%0D%0A2", "header must be name:value"),
    ],
)
def test_a_wrong_parameter_is_said(server: FaultyServer, path: str, text: str) -> None:
    response = get(server, path)

    assert response.status_code == 400
    assert text in response.text


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "not a request line of HTTP/1.1: 'GET / HTTP/1.0'"),
        (b"\x16\x03\x01 hello\r\n\r\n", "not a request line"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", "Invalid IPv6 URL"),
        (b"GET /ok HTTP/1.1\r\nX: " + b"x" * 70_000, "longer than 65536 bytes"),
        (b"POST /ok HTTP/1.1\r\nContent-Length: many\r\n\r\n", "not a length: 'many'"),
        (b"POST /ok HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "not a length: '-1'"),
    ],
)
def test_what_is_not_http_is_refused(server: FaultyServer, sent: bytes, text: str) -> None:
    with Client(server.url) as client:
        client.socket.sendall(sent)
        found, ending = client.rest()

    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert text in found.decode()
    assert ending == "closed"


def test_requests_are_recorded(server: FaultyServer) -> None:
    with Client(server.url) as client:
        client.ask("/ok?key=a", method="PUT", more=b"X-Id: 1\r\nx-id: 2\r\nContent-Length: 5\r\n\r\nhello").until(b"ok")

    headers = {"host": "test", "x-id": "1, 2", "content-length": "5"}
    assert server.requests == [ReceivedRequest("PUT", "/ok", "key=a", headers, 5, complete=True)]
    assert (server.count(), server.count("PUT"), server.count(path="/ok"), server.count("GET", "/ok")) == (1, 1, 1, 0)


def test_a_record_is_frozen_and_does_not_show_the_headers(server: FaultyServer) -> None:
    with Client(server.url) as client:
        client.ask("/ok", more=b"Authorization: secret\r\n\r\n").until(b"ok")
    (request,) = server.requests

    assert "secret" not in repr(request)
    assert pickle.loads(pickle.dumps(request)) == copy.copy(request) == request
    for name in ("method", "complete"):
        with pytest.raises(AttributeError):
            setattr(request, name, "PUT")


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n64\r\nhello"]
)
def test_a_body_that_was_cut_is_not_complete(server: FaultyServer, framing: bytes) -> None:
    with Client(server.url).ask("/ok", method="POST", more=framing):
        pass
    wait_until(lambda: server.count() == 1)

    assert (server.requests[0].body_length, server.requests[0].complete) == (5, False)


def test_half_a_head_is_no_request(server: FaultyServer) -> None:
    with Client(server.url).ask("/ok", more=b""):
        pass
    wait_until(lambda: server.connections == 1 and server.open_connections == 0)

    assert server.requests == []


def test_clear_starts_over(server: FaultyServer) -> None:
    assert [get(server, "/fail-then-ok").status_code for _ in range(2)] == [503, 200]
    before = server.requests

    server.clear()
    assert (server.connections, server.requests, len(before)) == (0, [], 2)
    assert get(server, "/fail-then-ok").status_code == 503


@pytest.mark.usefixtures("frequent_switches")
def test_counters_are_exact_among_threads(server: FaultyServer) -> None:
    def ask(index: int) -> list[int]:
        path = f"/fail-then-ok?failures=40&key=shared&header=index:{index}"
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            return [client.post(path, content=b"x" * index).status_code for _ in range(10)]

    statuses = [status for one in in_threads(8, ask) for status in one]

    assert (statuses.count(503), statuses.count(200)) == (40, 40)
    assert (server.connections, server.count("POST", "/fail-then-ok")) == (8, 80)
    assert sum(request.body_length for request in server.requests) == 10 * sum(range(8))
    assert all(request.complete for request in server.requests)


WAITS = [
    *["/stall", "/headers-stall", "/head-drip?interval=3600", "/drip?interval=3600", "/hints-forever?interval=3600"],
    *["/408-idle?delay=3600", "/sse?interval=3600", "/early-503", "/ok", "/ok?size=100000000"],
]


def test_the_end_of_the_block_ends_everything() -> None:
    before = threading.enumerate()
    with contextlib.ExitStack() as clients:
        with FaultyServer() as server:
            for path in WAITS:
                clients.enter_context(Client(server.url)).ask(path)
            clients.enter_context(Client(server.url)).ask("/ok", method="POST", more=b"Content-Length: 5\r\n\r\nhe")
            for url in (server.url, server.silent_url, server.accept_close_url):
                clients.enter_context(Client(url))
            wait_until(lambda: server.connections == len(WAITS) + 4 and server.count() == len(WAITS))
            ending = clock.monotonic()

        assert clock.monotonic() - ending <= at_most(0.5)
        assert threading.enumerate() == before
        assert server.open_connections == 0
        assert server.count() == len(WAITS) + 1  # with that of a body that did not come
        for url in (server.url, server.silent_url, server.refused_url):
            with pytest.raises(ConnectionRefusedError):
                Client(url)


def test_it_ends_after_an_error_too() -> None:
    before = threading.enumerate()
    with pytest.raises(KeyError), FaultyServer() as server, Client(server.url).ask("/stall"):
        raise KeyError
    assert threading.enumerate() == before


def test_threads_that_have_ended_are_forgotten(server: FaultyServer) -> None:
    for _ in range(50):
        get(server, "/ok")

    assert len(server._ports._threads) < 50


def test_it_is_entered_once() -> None:
    server = FaultyServer()
    server.__exit__()  # nothing to end
    with server, pytest.raises(RuntimeError, match="only once"):
        server.__enter__()
    with pytest.raises(RuntimeError, match="only once"), server:
        pass


def test_what_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = threading.enumerate()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"), FaultyServer():
            pass
    assert threading.enumerate() == before


def test_it_waits_in_real_time_inside_virtual_time(server: FaultyServer) -> None:
    real: Callable[[], float] = clock.monotonic
    before = real()
    with virtual_time() as virtual:
        assert get(server, "/drip?size=3&interval=0.05").status_code == 200
    assert real() - before >= 0.09
    assert virtual.elapsed == 0


def rows(page: str) -> dict[str, dict[str, str]]:
    """Return the parameters of each fault in the table of the page, with the defaults that it shows."""
    found = re.findall(r"^\| `/([^`]+)` \| .+ \| (.*)\|$", page, re.MULTILINE)
    return {path: dict(re.findall(r"`([a-z]+)=([^`]*)`", parameters)) for path, parameters in found}


def test_the_page_lists_every_fault_with_its_parameters() -> None:
    expected = {name: set(fault.parameters) for name, fault in FAULTS.items()}
    expected["status/<code>"] = set(find("503").parameters)
    expected[FAIL_THEN_OK] = {"failures", "fault"}
    page = PAGE.read_text("utf-8")
    shown = rows(page)

    assert {path: set(parameters) for path, parameters in shown.items()} == expected
    assert [name for name in FOR_ALL if f"`{name}=" not in page] == []
    assert set.union(*expected.values()) == {*LIMITS, "body", "fault"}


def test_the_page_shows_the_defaults() -> None:
    defaults = {name: str(value) for name, value in asdict(Parameters()).items()}
    shown = {pair for parameters in rows(PAGE.read_text("utf-8")).values() for pair in parameters.items()}

    assert {name for name, value in shown if value not in ("", defaults[name])} == {"size"}
    assert {value for name, value in shown if name == "size"} == {"", "100"}  # that of the drips


@pytest.mark.parametrize("path", ["/sse", "/drip", "/drip-503", "/ok"])
def test_a_head_request_gets_no_body(server: FaultyServer, path: str) -> None:
    with httpx.Client(base_url=server.url) as client:
        client.head(path)
        assert client.get("/ok").text == "ok"
