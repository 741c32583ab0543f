"""The interceptor of servers of grpc.aio: what asyncio adds, and synchronous handlers."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitOpenError, DeadlineExceededError, Pipeline, Timeout, remaining
from tests.grpc.inbound import PATIENCE, PUSHBACK, Code, Result, interceptor_of, service_of, serving
from tests.support.functions import fine, hang
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


def test_a_guarded_call_is_cut_at_the_deadline_of_the_call() -> None:
    cut: list[Any] = []
    done = threading.Event()

    async def handle(request: Any, context: Any) -> None:
        started = time.monotonic()
        try:
            await Pipeline[Any]().acall(hang)
        except (DeadlineExceededError, asyncio.CancelledError):  # grpc cancels at the deadline, too
            cut.append(time.monotonic() - started)
            raise
        finally:
            done.set()

    with serving("aio", services=[service_of({"unary_unary": handle})]) as served:
        assert served.call("unary_unary", timeout=0.5).code is Code.DEADLINE_EXCEEDED
        assert done.wait(PATIENCE)

    assert 0.0 < cut[0] <= at_most(0.5)


def test_a_timeout_of_the_handler_is_a_deadline() -> None:
    async def handle(request: Any, context: Any) -> None:
        await Pipeline[Any](Timeout(0.05)).acall(hang)

    with serving("aio", services=[service_of({"unary_unary": handle})]) as served:
        result = served.call("unary_unary", timeout=60.0)

    assert result == Result([], Code.DEADLINE_EXCEEDED, "the deadline of this call has passed", [(PUSHBACK, "-1")])


def test_a_background_task_has_no_deadline_once_the_call_has_ended() -> None:
    seen: list[Any] = []
    ended = threading.Event()
    done = threading.Event()
    tasks: list[Any] = []

    async def background() -> None:
        seen.append(remaining())
        await asyncio.to_thread(ended.wait, PATIENCE)
        seen.append(remaining())
        await Pipeline[Any]().acall(fine)
        done.set()

    async def handle(request: Any, context: Any) -> bytes:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        return b"x"

    with serving("aio", services=[service_of({"unary_unary": handle})]) as served:
        assert served.call("unary_unary", timeout=60.0).code is Code.OK
        ended.set()
        assert done.wait(PATIENCE)

    assert seen == [pytest.approx(60.0, abs=PATIENCE), None]


class Stepping(grpc.aio.ServerInterceptor):
    """Asks for each response of a stream in a task of its own, as a timeout around each message does."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def step(request: Any, context: Any) -> AsyncIterator[bytes]:
            responses = handler.unary_stream(request, context)
            while True:
                self.seen.append(remaining())
                try:
                    response = await asyncio.create_task(anext(responses))
                except StopAsyncIteration:
                    return
                yield response

        return grpc.unary_stream_rpc_method_handler(step)


def test_each_step_of_a_generator_may_run_in_another_task() -> None:
    seen: list[Any] = []

    async def handle(request: Any, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            seen.append(remaining())
            yield b"x"
            await asyncio.sleep(0)

    outer = Stepping()
    services = [service_of({"unary_stream": handle})]
    with serving("aio", services=services, interceptors=[outer, interceptor_of("aio")]) as served:
        assert served.call("unary_stream", timeout=60.0).messages == [b"x"] * 3

    assert seen == [pytest.approx(60.0, abs=PATIENCE)] * 3
    assert outer.seen == [None] * 4


class Servicer:
    """Methods, as generated code has them."""

    async def get(self, request: Any, context: Any) -> bytes:
        return str(remaining() is not None).encode()

    async def list(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        yield str(remaining() is not None).encode()


@pytest.mark.parametrize("wrap", [lambda method: method, functools.partial], ids=["method", "partial"])
def test_methods_and_partial_functions_stay_what_they_are(wrap: Any) -> None:
    servicer = Servicer()
    service = service_of({"unary_unary": wrap(servicer.get), "unary_stream": wrap(servicer.list)})
    with serving("aio", services=[service]) as served:
        assert served.call("unary_unary", timeout=60.0).messages == [b"True"]
        assert served.call("unary_stream", timeout=60.0).messages == [b"True"]


class TestSyncHandlers:
    @pytest.mark.parametrize("error", [CircuitOpenError, DeadlineExceededError])
    def test_one_that_outlives_its_call_may_still_fail(self, error: Any, caplog: Any) -> None:
        released = threading.Event()
        done = threading.Event()

        def handle(request: Any, context: Any) -> bytes:
            released.wait(PATIENCE)
            try:
                raise error("late")
            finally:
                done.set()

        services = [service_of({"unary_unary": handle})]
        with serving("aio-sync", services=services) as served:
            assert served.call("unary_unary", timeout=0.5).code is Code.DEADLINE_EXCEEDED
            released.set()
            assert done.wait(PATIENCE)
            assert served.call("unary_unary").code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)

        assert caplog.records == []

    def test_one_that_returns_an_iterator(self) -> None:
        def handle(request: Any, context: Any) -> Any:
            left = remaining()
            return [str(left is not None).encode(), b"x"]

        with serving("aio-sync", services=[service_of({"unary_stream": handle})]) as served:
            assert served.call("unary_stream", timeout=60.0).messages == [b"True", b"x"]

    def test_one_that_fails_before_it_returns_an_iterator(self) -> None:
        def handle(request: Any, context: Any) -> Any:
            raise CircuitOpenError("open")

        with serving("aio-sync", services=[service_of({"unary_stream": handle})]) as served:
            result = served.call("unary_stream", timeout=60.0)

        assert (result.code, result.trailing) == (Code.UNAVAILABLE, [(PUSHBACK, "-1")])

    def test_the_context_can_still_do_everything(self) -> None:
        seen: list[Any] = []

        def handle(request: Any, context: Any) -> bytes:
            assert (context.code(), context.trailing_metadata()) == (None, ())
            context.set_code(Code.NOT_FOUND)
            context.set_details("no such quote")
            context.set_trailing_metadata((("a", "1"),))
            seen.append((context.code(), context.trailing_metadata()))
            context.send_initial_metadata((("first", "1"),))
            context.add_callback(lambda: seen.append("called back"))
            assert context.peer()
            return b"x"

        with serving("aio-sync", services=[service_of({"unary_unary": handle})]) as served:
            result = served.call("unary_unary")

        assert result == Result([], Code.NOT_FOUND, "no such quote", [("a", "1")])
        assert seen == [(Code.NOT_FOUND, (("a", "1"),)), "called back"]


def test_the_deadline_of_a_guarded_channel_arrives() -> None:
    async def handle(request: Any, context: Any) -> bytes:
        return b"no" if remaining() is None else b"yes"

    with (
        serving("aio", services=[service_of({"unary_unary": handle})]) as served,
        resilience.grpc.insecure_channel(served.target, Pipeline[Any](Timeout(60.0))) as channel,
    ):
        stub: Any = channel.unary_unary("/x.X/unary_unary")
        assert stub(b"x") == b"yes"
