"""Tests of the ASGI middleware that cancels the app if its client disconnects."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
import trio.testing

from resilience import Bulkhead, Pipeline, Retry, backoff, remaining
from resilience.asgi import ResilienceMiddleware
from tests.support.asgi import COUNT, TIME, App, Exchange, answer, answering
from tests.support.functions import Failing, hang
from tests.support.loops import Run, each_loop, uncancelled


async def disconnecting(exchange: Exchange, app: App, after: float = 0.1, **settings: Any) -> float:
    """Pass a request through the middleware whose client disconnects; return how long that took."""
    started = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def disconnect() -> None:
            await anyio.sleep(after)
            exchange.gone.set()

        tasks.start_soon(disconnect)
        await exchange.through(app, cancel_on_disconnect=True, **settings)
    return anyio.current_time() - started


async def whole_body(receive: Any) -> list[bytes]:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        parts.append(message["body"])
        more = message["more_body"]
    return parts


@each_loop
class TestDisconnect:
    def test_the_app_is_cancelled_and_gives_back_what_it_holds(self, run: Run) -> None:
        bulkhead = Bulkhead(1)
        guarded = Pipeline[Any](Retry(3), bulkhead)

        async def main() -> None:
            exchange = Exchange()
            assert await disconnecting(exchange, answering(lambda: guarded.acall(hang))) == pytest.approx(0.1)
            assert (exchange.sent, bulkhead.in_flight) == ([], 0)
            assert uncancelled()
            await anyio.lowlevel.checkpoint()

        run(main)

    def test_not_unless_it_is_asked_for(self, run: Run) -> None:
        async def main() -> None:
            exchange = Exchange()
            exchange.gone.set()
            await exchange.through(answering(lambda: anyio.sleep(1.0)))
            assert exchange.status == 200

        run(main)

    def test_a_streaming_response_is_cut(self, run: Run) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await anyio.sleep(0.04)

        async def main() -> None:
            exchange = Exchange()
            await disconnecting(exchange, app)
            assert exchange.body == b"xxx"

        run(main)

    def test_after_the_response_is_complete_nothing_is_cancelled(self, run: Run) -> None:
        done: list[bool] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await answer(send)
            await anyio.sleep(0.5)
            done.append(True)

        async def main() -> None:
            await Exchange().through(app, cancel_on_disconnect=True)
            await disconnecting(Exchange(), app)
            assert done == [True, True]

        run(main)

    def test_the_app_ends_before_the_client(self, run: Run) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def main() -> None:
            exchange = await Exchange().through(app, cancel_on_disconnect=True)
            assert not exchange.gone.is_set()
            assert uncancelled()

        run(main)

    def test_it_comes_with_deadlines_and_attempts(self, run: Run) -> None:
        async def main() -> None:
            left: list[Any] = []
            down = Failing()

            async def handler() -> None:
                left.append(remaining())
                with pytest.raises(ConnectionError):
                    Pipeline[Any](Retry(3, wait=backoff.none())).call(down)
                await Pipeline[Any]().acall(hang)

            exchange = Exchange((TIME, "250"), (COUNT, "2"))
            await exchange.through(answering(handler), trust=True, cancel_on_disconnect=True)
            assert (exchange.status, down.calls, left) == (504, 1, [pytest.approx(0.25)])

        run(main)

    def test_an_error_in_the_clean_up_is_raised(self, run: Run) -> None:
        async def handler() -> None:
            try:
                await hang()
            finally:
                raise KeyError("clean-up")

        async def main() -> None:
            exchange = Exchange()
            exchange.gone.set()
            with pytest.raises(KeyError, match="clean-up"):
                await exchange.through(answering(handler), cancel_on_disconnect=True)
            assert uncancelled()

        run(main)

    def test_a_function_in_a_thread_is_waited_for(self, run: Run) -> None:
        done: list[bool] = []

        async def main() -> None:
            exchange = Exchange()

            def work() -> None:
                anyio.from_thread.run_sync(exchange.gone.set)
                done.append(True)

            await exchange.through(answering(lambda: anyio.to_thread.run_sync(work)), cancel_on_disconnect=True)
            assert (done, exchange.sent) == ([True], [])

        run(main)


@each_loop
class TestReceive:
    @pytest.mark.parametrize("pause", [0.0, 0.01])
    def test_the_body_reaches_the_app_in_order(self, run: Run, pause: float) -> None:
        sent = tuple(b"%d" % number for number in range(20))
        read: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await anyio.sleep(pause)
            read.extend(await whole_body(receive))
            await answer(send)

        async def main() -> None:
            exchange = await Exchange(body=sent).through(app, cancel_on_disconnect=True)
            assert (exchange.status, tuple(read)) == (200, sent)

        run(main)

    def test_an_app_that_does_not_read_holds_the_upload_back(self, run: Run) -> None:
        async def main() -> None:
            exchange = Exchange(body=(b"x",) * 20)
            await exchange.through(answering(lambda: anyio.sleep(1.0)), cancel_on_disconnect=True)
            assert exchange.taken == 3  # two are kept, and one waits

        run(main)

    def test_an_app_that_waits_for_the_disconnect_gets_it_each_time(self, run: Run) -> None:
        read: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(2):
                read.append((await receive())["type"])
            with anyio.CancelScope(shield=True):  # its clean-up
                for _ in range(2):
                    read.append((await receive())["type"])

        async def main() -> None:
            assert await disconnecting(Exchange(), app) == pytest.approx(0.1)
            assert read == ["http.request", *["http.disconnect"] * 3]

        run(main)

    def test_the_rest_of_the_body_comes_before_the_disconnect(self, run: Run) -> None:
        read: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.2)
                read.extend(await whole_body(receive))
                read.append((await receive())["type"])

        async def main() -> None:
            await disconnecting(Exchange(body=(b"a", b"b")), app)
            assert read == [b"a", b"b", "http.disconnect"]

        run(main)

    def test_after_the_response_is_complete_the_app_gets_a_disconnect(self, run: Run) -> None:
        read: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            read.append(await receive())
            await answer(send)
            read.append(await receive())

        async def main() -> None:
            await Exchange().through(app, cancel_on_disconnect=True)
            assert [message["type"] for message in read] == ["http.request", "http.disconnect"]

        run(main)

    def test_a_task_that_outlives_the_request_gets_a_disconnect(self, run: Run) -> None:
        kept: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            kept.append(receive)

        async def main() -> None:
            await Exchange().through(app, cancel_on_disconnect=True)
            assert await kept[0]() == {"type": "http.disconnect"}

        run(main)

    def test_a_server_that_fails_to_receive(self, run: Run) -> None:
        failing = Failing(error=lambda: OSError("broken"))
        caught: list[Exception] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(2):
                with pytest.raises(OSError, match="broken") as error:
                    await receive()
                caught.append(error.value)
            await answer(send)

        async def broken() -> Any:
            failing()

        async def main() -> None:
            exchange = Exchange()
            middleware = ResilienceMiddleware(app, cancel_on_disconnect=True)
            await middleware(exchange.scope, broken, exchange.send)
            assert exchange.status == 200
            assert (failing.calls, len(caught)) == (1, 2)

        run(main)


@pytest.mark.parametrize("cancel", [False, True])
def test_cancellation_from_outside_on_asyncio_stays_one(cancel: bool) -> None:
    async def main() -> None:
        middleware = ResilienceMiddleware(answering(hang), cancel_on_disconnect=cancel)
        exchange = Exchange()
        task = asyncio.create_task(middleware(exchange.scope, exchange.receive, exchange.send))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert exchange.sent == []

    asyncio.run(main())


@pytest.mark.parametrize("cancel", [False, True])
def test_cancellation_from_outside_on_trio_stays_one(cancel: bool) -> None:
    async def main() -> None:
        middleware = ResilienceMiddleware(answering(hang), cancel_on_disconnect=cancel)
        exchange = Exchange()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(middleware, exchange.scope, exchange.receive, exchange.send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert exchange.sent == []

    trio.run(main)
