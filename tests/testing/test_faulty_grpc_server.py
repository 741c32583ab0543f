"""FaultyGrpcServer: what each fault looks like to a client, what is recorded, and that nothing is left behind."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

import resilience.grpc
from resilience import Pipeline, Retry, backoff
from resilience.grpc._status_details import retry_delay
from resilience.testing import FaultyGrpcServer
from resilience.testing._rpc_faults import CODES, FAULTS, FOR_ALL, Asked, find
from tests.support.threads import PATIENCE, in_threads, wait_until

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "faulty-server.md"
SILENCE = 0.1
CODE = grpc.StatusCode


@pytest.fixture
def server() -> Iterator[FaultyGrpcServer]:
    with FaultyGrpcServer() as running:
        yield running


@pytest.fixture
def channel(server: FaultyGrpcServer) -> Iterator[grpc.Channel]:
    # Without the pool of connections that channels of one target share.
    with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def method(channel: grpc.Channel, name: str) -> Callable[..., Any]:
    """Return what calls a unary method; a stub has such types."""
    return cast(Callable[..., Any], channel.unary_unary(name))


def unary_stream(channel: grpc.Channel, fault: str) -> Any:
    return cast(Any, channel.unary_stream(f"/test.Faults/{fault}"))(b"")


def ask(channel: grpc.Channel, fault: str, *, timeout: float = PATIENCE) -> Any:
    return method(channel, f"/test.Faults/{fault}")(b"hello", timeout=timeout)


def stream(channel: grpc.Channel, fault: str, *requests: bytes, timeout: float = PATIENCE) -> list[Any]:
    """Return the messages of a stream, and at its end the code if it failed."""
    call = cast(Any, channel.stream_stream(f"/test.Faults/{fault}"))(iter(requests), timeout=timeout)
    found: list[Any] = []
    try:
        found += call
    except grpc.RpcError:
        found.append(call.code())
    return found


def failure(channel: grpc.Channel, fault: str, *, timeout: float = PATIENCE) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, fault, timeout=timeout)
    return caught.value


def test_good_answers(channel: grpc.Channel) -> None:
    assert ask(channel, "ok") == b"ok"
    assert ask(channel, "echo") == b"hello"
    assert len(ask(channel, "ok?size=300000")) == 300_000  # more than the client makes room for at once
    assert ask(channel, "slow?delay=0.01&metadata=x-note:a") == b"ok"
    assert stream(channel, "ok?messages=3&interval=0.01") == [b"ok"] * 3
    assert stream(channel, "echo", b"a", b"", b"c") == [b"a", b"", b"c"]
    assert cast(Any, channel.stream_unary("/test.Faults/ok"))(iter([b"a", b"b"])) == b"ok"
    assert list(unary_stream(channel, "ok?messages=2")) == [b"ok", b"ok"]


@pytest.mark.parametrize("code", CODE)
def test_each_status_code(code: grpc.StatusCode, channel: grpc.Channel) -> None:
    if code is CODE.OK:
        assert stream(channel, "OK?messages=1") == [b"ok"]
        return
    error: Any = failure(channel, f"{code.name}?details=50%25+h%C3%A9&metadata=x-note:1&metadata=x-note:2")

    assert (error.code(), error.details()) == (code, "50% hé")
    assert [pair for pair in error.trailing_metadata() if pair[0] == "x-note"] == [("x-note", "1"), ("x-note", "2")]
    assert CODES[code.value[0]] == code.name


WIRE: list[tuple[str, grpc.StatusCode, str]] = [
    ("reset-stream", CODE.INTERNAL, "RST_STREAM.*2"),
    ("refuse-stream", CODE.UNAVAILABLE, "RST_STREAM.*7"),
    ("goaway", CODE.UNAVAILABLE, "GOAWAY"),
    ("close", CODE.UNAVAILABLE, "."),
    ("reset", CODE.UNAVAILABLE, "."),
    ("no-status", CODE.UNKNOWN, "."),
    ("http-503", CODE.UNAVAILABLE, "503"),
    ("http-404", CODE.UNIMPLEMENTED, "404"),
    ("http-200", CODE.UNKNOWN, "."),
    ("early-ABORTED", CODE.ABORTED, "^ABORTED$"),
    ("nonsense", CODE.UNIMPLEMENTED, "unknown fault 'nonsense'; known are ok, "),
    ("ok?delay=1", CODE.INVALID_ARGUMENT, "unknown parameter 'delay'; known are failures, "),
]


@pytest.mark.parametrize(("fault", "code", "details"), WIRE)
def test_what_goes_wrong_on_the_wire(fault: str, code: grpc.StatusCode, details: str, channel: grpc.Channel) -> None:
    error: Any = failure(channel, fault)

    assert error.code() is code
    assert re.search(details, error.details())


@pytest.mark.parametrize("fault", ["stall", "head-stall"])
def test_a_silence_lasts_until_the_client_leaves(fault: str, channel: grpc.Channel, server: FaultyGrpcServer) -> None:
    error: Any = failure(channel, fault, timeout=SILENCE)

    assert error.code() is CODE.DEADLINE_EXCEEDED
    (rpc,) = server.rpcs
    assert rpc.timeout is not None
    assert 0 < rpc.timeout < 2 * SILENCE
    wait_until(lambda: "FaultyGrpcServer RPC" not in {thread.name for thread in threading.enumerate()})


def test_a_message_that_is_cut_does_not_arrive(channel: grpc.Channel) -> None:
    assert stream(channel, "short-message") in ([], [CODE.INTERNAL])  # grpcio takes it for the end of the messages


@pytest.mark.parametrize("fault", ["UNAVAILABLE", "reset-stream", "close", "reset", "stall"])
def test_a_stream_fails_after_so_many_messages(fault: str, channel: grpc.Channel) -> None:
    timeout = SILENCE if fault == "stall" else PATIENCE
    found = stream(channel, f"{fault}?messages=2&size=3&interval=0.01", timeout=timeout)

    codes = {"reset-stream": CODE.INTERNAL, "stall": CODE.DEADLINE_EXCEEDED}
    assert found[-1] is codes.get(fault, CODE.UNAVAILABLE)
    # What has arrived is lost to grpcio where the connection breaks right behind it.
    assert found[:-1] == [b"xxx"] * 2 or fault in ("reset-stream", "close", "reset")


def test_a_fault_lasts_for_the_first_rpcs_of_a_key(channel: grpc.Channel, server: FaultyGrpcServer) -> None:
    for key in "ab":
        for _ in range(2):
            assert failure(channel, f"ABORTED?failures=2&key={key}").code() is CODE.ABORTED
        assert ask(channel, f"ABORTED?failures=2&key={key}") == b"ok"
    assert server.count("/test.Faults/ABORTED") == server.count() == 6
    server.clear()

    assert (server.count(), server.rpcs) == (0, [])
    assert failure(channel, "ABORTED?failures=2&key=a").code() is CODE.ABORTED


def test_methods_of_your_own(channel: grpc.Channel, server: FaultyGrpcServer) -> None:
    server.set_fault("/quotes.Quotes/*", "NOT_FOUND")
    server.set_fault("/quotes.Quotes/Get", "UNAVAILABLE?failures=1", response=b"42")
    get, other = method(channel, "/quotes.Quotes/Get"), method(channel, "/quotes.Quotes/List")

    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        get(b"ACME")
    assert get(b"ACME") == b"42"
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        other(b"")
    server.set_fault("/quotes.Quotes/*", "ok")  # set last, it counts for both
    assert (get(b""), other(b"")) == (b"", b"")


BAD = [
    ("quotes.Quotes/Get", "ok", "method must be like '/package.Service/Method', not 'quotes.Quotes/Get'"),
    ("/a/b", "down", "unknown fault 'down'; known are ok, "),
    ("/a/b", "ok?messages=x", "messages must be an integer from 0 to 1000000, not 'x'"),
    ("/a/b", "slow?delay=-1", "delay must be a number from 0 to 3600, not '-1'"),
    ("/a/b", "ok?metadata=X:1", "metadata must be name:value, with a name in lower case"),
    ("/a/b", "echo?size=1", "unknown parameter 'size'; known are failures, key, metadata"),
]


@pytest.mark.parametrize(("name", "fault", "message"), BAD)
def test_a_bad_fault_is_refused(name: str, fault: str, message: str, server: FaultyGrpcServer) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        server.set_fault(name, fault)


def test_what_was_received(channel: grpc.Channel, server: FaultyGrpcServer) -> None:
    cast(Any, channel.stream_unary("/test.Faults/ok"))(
        iter([b"a", b"bc"]), metadata=(("x-id", "1"), ("x-id", "2"), ("x-bin", b"\0"))
    )

    (rpc,) = server.rpcs
    assert (rpc.method, rpc.messages, rpc.complete, rpc.timeout) == ("/test.Faults/ok", (b"a", b"bc"), True, None)
    assert (rpc.metadata["x-id"].replace(" ", ""), rpc.metadata["x-bin"]) == ("1,2", "AA")
    assert "AA" not in repr(rpc)
    assert (server.connections, server.open_connections) == (1, 1)


def test_hints_are_those_that_a_guarded_channel_obeys(server: FaultyGrpcServer) -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.none()))
    with resilience.grpc.insecure_channel(server.target, pipeline) as channel:
        assert ask(channel, "RESOURCE_EXHAUSTED?failures=2&pushback=10") == b"ok"
        assert failure(channel, "UNAVAILABLE?pushback=-1").code() is CODE.UNAVAILABLE
        error: Any = failure(channel, "RESOURCE_EXHAUSTED?retry-delay=100.5")

    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert retry_delay(details) == 100.5
    assert [server.count(f"/test.Faults/{name}") for name in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")] == [4, 1]


def test_ports_on_which_no_rpc_arrives(server: FaultyGrpcServer) -> None:
    for target in (server.refused_target, server.accept_reset_target, server.accept_close_target):
        with grpc.insecure_channel(target) as channel:
            assert failure(channel, "ok").code() is CODE.UNAVAILABLE
    with grpc.insecure_channel(server.silent_target) as channel:
        assert failure(channel, "ok", timeout=SILENCE).code() is CODE.DEADLINE_EXCEEDED
    assert server.count() == 0


def test_counters_are_exact_among_threads(channel: grpc.Channel, server: FaultyGrpcServer) -> None:
    def work(_: int) -> int:
        return sum(ask(channel, "ok") == b"ok" for _ in range(25))

    assert sum(in_threads(4, work)) == server.count("/test.Faults/ok") == 100
    assert server.connections == 1


def test_the_end_of_the_block_ends_everything() -> None:
    with FaultyGrpcServer() as server:
        channel = grpc.insecure_channel(server.target)
        calls = [unary_stream(channel, fault) for fault in ("stall", "stall?messages=1")]
        assert next(calls[1]) == b"ok"
        wait_until(lambda: server.count() == 2)
    for call in calls:
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            next(call)
    channel.close()

    assert not any(thread.name.startswith("FaultyGrpcServer") for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="a FaultyGrpcServer can be entered only once"):
        server.__enter__()


def test_it_needs_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.testing._faulty_grpc_server.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs the package h2: pip install h2"):
        FaultyGrpcServer()


def test_the_page_lists_every_fault_and_its_parameters() -> None:
    section = PAGE.read_text("utf-8").partition("## gRPC\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    listed = {name.strip("` "): set(re.findall(r"`([a-z-]+)=", parameters)) for name, _, parameters in rows}

    samples = {"<CODE>": "ABORTED", "early-<CODE>": "early-ABORTED", "http-<status>": "http-503"}
    assert listed.keys() == {*FAULTS, *samples}
    for name, parameters in listed.items():
        assert parameters == set(find(samples.get(name, name), b"")[0].parameters), name
    for name in FOR_ALL:
        assert f"- `{name}=" in section
    assert Asked().interval == 0
