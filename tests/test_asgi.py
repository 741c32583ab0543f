"""Tests of the ASGI middleware, with the server's side of each request made by hand."""

from __future__ import annotations

import math
from typing import Any

import anyio
import anyio.to_thread
import pytest

from resilience import (
    Allowlist,
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RateLimitedError,
    RejectedError,
    Retry,
    RetryBudget,
    backoff,
    current_deadline,
    deadline_after,
    remaining,
)
from resilience.asgi import ResilienceMiddleware
from resilience.events import RetryGivenUp
from resilience.testing import Recorder
from tests.support.asgi import COUNT, TIME, Exchange, answer, answering, raising
from tests.support.functions import Failing, hang
from tests.support.loops import Run, each_loop


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            ({"trust": "yes"}, TypeError, "trust must be True or False"),
            ({"cancel_on_disconnect": 1}, TypeError, "cancel_on_disconnect must be True or False"),
            ({"min_remaining": None}, TypeError, "min_remaining must be a number >= 0"),
            ({"min_remaining": -0.1}, ValueError, "min_remaining must be a number >= 0"),
            ({"min_remaining": math.nan}, ValueError, "min_remaining must be a number >= 0"),
            ({"min_remaining": math.inf}, ValueError, "min_remaining must be a number >= 0"),
        ],
    )
    def test_they_are_checked_when_it_is_made(self, settings: Any, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            ResilienceMiddleware(raising(ValueError()), **settings)

    def test_what_cannot_be_called_is_no_app(self) -> None:
        app: Any = "shop:app"
        with pytest.raises(TypeError, match="app must be an ASGI application, not 'shop:app'"):
            ResilienceMiddleware(app)

    def test_the_app_can_be_reached(self) -> None:
        app = raising(ValueError())
        assert ResilienceMiddleware(app).app is app

    @each_loop
    @pytest.mark.parametrize("kind", ["websocket", "lifespan"])
    def test_other_scopes_pass_through_unchanged(self, run: Run, kind: str) -> None:
        seen: list[Any] = []

        async def app(*given: Any) -> None:
            seen.append((given, current_deadline()))
            if len(seen) == 2:
                raise CircuitOpenError("open")

        async def main() -> None:
            given: Any = ({"type": kind, "headers": [(TIME.encode(), b"0")]}, object(), object())
            middleware = ResilienceMiddleware(app, trust=True, cancel_on_disconnect=True)
            await middleware(*given)
            with pytest.raises(CircuitOpenError):
                await middleware(*given)
            assert seen == [(given, None)] * 2

        run(main)


@each_loop
class TestDeadline:
    def test_it_is_ambient_in_the_handler(self, run: Run) -> None:
        left: list[Any] = []

        async def handler() -> None:
            left.append(remaining())
            await anyio.sleep(0.1)
            left.extend([remaining(), await anyio.to_thread.run_sync(remaining)])

        async def main() -> None:
            assert (await Exchange((TIME, "250")).through(answering(handler), trust=True)).status == 200
            assert left == pytest.approx([0.25, 0.15, 0.15])
            assert remaining() is None

        run(main)

    @pytest.mark.parametrize("settings", [{}, {"trust": False}, {"trust": False, "min_remaining": 1.0}])
    def test_without_trust_the_header_is_not_believed(self, run: Run, settings: Any) -> None:
        async def main() -> None:
            left: list[Any] = []
            exchange = await Exchange((TIME, "0")).through(answering(lambda: left.append(remaining())), **settings)
            assert (exchange.status, left) == (200, [None])

        run(main)

    @pytest.mark.parametrize("value", ["-1", "-0", "nan", "inf", "1.5", "1e3", " 5", "", "5, 5", "86400001", "9" * 400])
    def test_absurd_values_are_ignored(self, run: Run, value: str) -> None:
        async def main() -> None:
            left: list[Any] = []
            exchange = Exchange((TIME, value))
            await exchange.through(answering(lambda: left.append(remaining())), trust=True, min_remaining=1.0)
            assert (exchange.status, left) == (200, [None])

        run(main)

    def test_a_header_that_was_sent_twice_is_ignored(self, run: Run) -> None:
        async def main() -> None:
            left: list[Any] = []
            exchange = Exchange((TIME, "5"), ("accept", "*/*"), (TIME, "5"), (TIME, "5"))
            await exchange.through(answering(lambda: left.append(remaining())), trust=True)
            assert left == [None]

        run(main)

    @pytest.mark.parametrize(
        ("value", "least", "handled"),
        [
            ("0", 0.0, False),
            ("1", 0.0, True),
            ("199", 0.2, False),
            ("200", 0.2, True),
            ("0", 0.2, False),
        ],
    )
    def test_with_too_little_left_the_app_is_not_called(
        self, run: Run, value: str, least: float, handled: bool
    ) -> None:
        async def main() -> None:
            called: list[None] = []
            exchange = Exchange((TIME, value))
            await exchange.through(answering(lambda: called.append(None)), trust=True, min_remaining=least)
            assert (exchange.status, bool(called)) == ((200, True) if handled else (504, False))
            if not handled:
                assert exchange.headers["content-type"] == "text/plain; charset=utf-8"
                assert exchange.headers["content-length"] == str(len(exchange.body))
                assert exchange.body == b"too little time is left for this request\n"
                assert exchange.taken == 0

        run(main)

    def test_a_guarded_call_is_cut_at_it_and_the_client_gets_504(self, run: Run) -> None:
        async def main() -> None:
            started = anyio.current_time()
            exchange = await Exchange((TIME, "300")).through(answering(lambda: Pipeline[Any]().acall(hang)), trust=True)
            assert anyio.current_time() - started == pytest.approx(0.3)
            assert exchange.status == 504
            assert exchange.body == b"the deadline of this request has passed\n"

        run(main)

    def test_an_earlier_deadline_stays_in_force(self, run: Run) -> None:
        async def main() -> None:
            left: list[Any] = []
            with deadline_after(0.1):
                await Exchange((TIME, "9000")).through(answering(lambda: left.append(remaining())), trust=True)
            assert left == pytest.approx([0.1])

        run(main)

    def test_it_is_void_once_the_response_is_complete(self, run: Run) -> None:
        left: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"fi", "more_body": True})
            left.append(remaining())
            await send({"type": "http.response.body", "body": b"ne"})
            left.append(remaining())  # a background task
            await Pipeline[Any]().acall(anyio.sleep, 1.0)

        async def main() -> None:
            exchange = await Exchange((TIME, "500")).through(app, trust=True)
            assert (exchange.body, left) == (b"fine", [pytest.approx(0.5), None])

        run(main)

    @pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
    def test_extensions_complete_a_response_too(self, run: Run, kind: str) -> None:
        left: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": kind})
            left.append(remaining())

        async def main() -> None:
            await Exchange((TIME, "500")).through(app, trust=True)
            assert left == [None]

        run(main)

    def test_it_is_void_once_the_app_has_raised(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(KeyError):
                await Exchange((TIME, "500")).through(raising(KeyError("x")), trust=True)
            assert remaining() is None
            left: list[Any] = []
            await Exchange((TIME, "100")).through(answering(lambda: left.append(remaining())), trust=True)
            assert left == pytest.approx([0.1])

        run(main)


@each_loop
class TestAttempts:
    @pytest.mark.parametrize(
        ("value", "calls"),
        [("1", 3), ("2", 1), ("9999", 1), ("0", 3), ("-2", 3), ("two", 3), ("10000", 3), ("", 3), ("2, 2", 3)],
    )
    def test_a_handler_of_a_retried_request_makes_one_attempt(self, run: Run, value: str, calls: int) -> None:
        async def main() -> None:
            down = Failing()
            guarded = Pipeline[Any](Retry(3, wait=backoff.none()))
            with pytest.raises(ConnectionError):
                await Exchange((COUNT, value)).through(answering(lambda: guarded.call(down)), trust=True)
            assert down.calls == calls

        run(main)

    def test_not_without_trust_and_not_if_it_was_sent_twice(self, run: Run) -> None:
        async def main() -> None:
            down = Failing()
            app = answering(lambda: Pipeline[Any](Retry(3, wait=backoff.none())).call(down))
            with pytest.raises(ConnectionError):
                await Exchange((COUNT, "2")).through(app)
            with pytest.raises(ConnectionError):
                await Exchange((COUNT, "2"), (COUNT, "2")).through(app, trust=True)
            assert down.calls == 6

        run(main)

    def test_the_event_and_the_note_say_why(self, run: Run) -> None:
        async def down() -> None:
            raise ConnectionError("down")

        async def main() -> None:
            guarded = Pipeline[Any](Retry(3))
            with Recorder(guarded) as recorder, pytest.raises(ConnectionError) as caught:
                await Exchange((COUNT, "2")).through(answering(lambda: guarded.acall(down)), trust=True)
            assert [(one.reason, one.attempts) for one in recorder.of(RetryGivenUp)] == [("nested", 1)]
            (note,) = caught.value.__notes__
            assert note.startswith("resilience: retry gave up after 1 attempt in ")
            why = "the request being handled is a retry itself; retries at several levels do not multiply"
            assert note.endswith(f" s: {why}")

        run(main)

    def test_levels_of_retries_make_one_call_and_no_budget_pays(self, run: Run) -> None:
        async def main() -> None:
            down = Failing()
            budget = RetryBudget()
            inner = Pipeline[Any](Retry(3, wait=backoff.none(), budget=budget))
            outer = Pipeline[Any](Retry(3, wait=backoff.none(), budget=budget))
            with pytest.raises(ConnectionError) as caught:
                await Exchange((COUNT, "3")).through(answering(lambda: outer.call(inner.call, down)), trust=True)
            assert down.calls == 1
            assert budget.tokens == 10.0
            assert len(caught.value.__notes__) == 1

        run(main)

    def test_in_threads_blocks_and_for_bad_results(self, run: Run) -> None:
        bad: list[None] = []

        async def handler() -> None:
            down = Failing()
            retry = Retry(3, wait=backoff.none())
            with pytest.raises(ConnectionError):
                await anyio.to_thread.run_sync(Pipeline[Any](retry).call, down)
            with pytest.raises(ConnectionError):
                async for attempt in retry:
                    async with attempt:
                        down()
            assert down.calls == 2
            rejecting = Pipeline[Any](retry, failures=Allowlist.of_results(lambda result: result is None))
            assert rejecting.call(bad.append, None) is None

        async def main() -> None:
            assert (await Exchange((COUNT, "2")).through(answering(handler), trust=True)).status == 200
            assert len(bad) == 1

        run(main)

    def test_unless_it_is_nested_or_the_failure_goes_away(self, run: Run) -> None:
        async def main() -> None:
            down = Failing(2)
            guarded = Pipeline[Any](Retry(3, wait=backoff.none(), nested=True))
            await Exchange((COUNT, "2")).through(answering(lambda: guarded.call(down)), trust=True)
            await Exchange((COUNT, "2")).through(answering(lambda: Pipeline[Any](Retry(3)).call(down)), trust=True)
            assert down.calls == 4

        run(main)

    def test_in_shadow_mode_no_retry_is_reported(self, run: Run) -> None:
        async def main() -> None:
            down = Failing()
            guarded = Pipeline[Any](Retry(3, wait=backoff.none(), mode="shadow"))
            with Recorder(guarded) as recorder, pytest.raises(ConnectionError):
                await Exchange((COUNT, "2")).through(answering(lambda: guarded.call(down)), trust=True)
            assert [type(one).__name__ for one in recorder.events if "Retry" in type(one).__name__] == []

        run(main)

    def test_after_the_response_it_retries_again(self, run: Run) -> None:
        async def main() -> None:
            down = Failing()
            guarded = Pipeline[Any](Retry(3, wait=backoff.none()))

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await answer(send)
                with pytest.raises(ConnectionError):
                    guarded.call(down)  # a background task

            await Exchange((COUNT, "2")).through(app, trust=True)
            assert down.calls == 3
            with pytest.raises(ConnectionError):
                guarded.call(down)
            assert down.calls == 6

        run(main)


SECRET = "the circuit of payments at 10.0.0.7 is open"


@each_loop
class TestErrors:
    @pytest.mark.parametrize(
        ("error", "retry_after"),
        [
            (CircuitOpenError(SECRET, retry_after=1.2, policy="payments"), "2"),
            (RateLimitedError(SECRET, retry_after=3.0), "3"),
            (RejectedError(SECRET, retry_after=0.0), "0"),
            (RejectedError(SECRET, retry_after=-1.0), "0"),
            (BulkheadFullError(SECRET), None),
            (RejectedError(SECRET, retry_after=math.inf), None),
            (RejectedError(SECRET, retry_after=math.nan), None),
            (ExceptionGroup(SECRET, [RejectedError(SECRET), RejectedError(SECRET, retry_after=4.5)]), "5"),
        ],
    )
    @pytest.mark.parametrize("cancel", [False, True])
    def test_a_rejection_is_503(self, run: Run, error: Exception, retry_after: str | None, cancel: bool) -> None:
        async def main() -> None:
            exchange = await Exchange().through(raising(error), cancel_on_disconnect=cancel)
            assert exchange.status == 503
            assert exchange.headers.get("retry-after") == retry_after
            assert exchange.headers["x-should-retry"] == "false"
            assert exchange.body == b"a dependency of this service is unavailable\n"
            assert int(exchange.headers["content-length"]) == len(exchange.body)

        run(main)

    @pytest.mark.parametrize(
        "error",
        [
            DeadlineExceededError(SECRET),
            ExceptionGroup(SECRET, [RejectedError(SECRET, retry_after=1.0), DeadlineExceededError(SECRET)]),
        ],
    )
    def test_a_deadline_is_504(self, run: Run, error: Exception) -> None:
        async def main() -> None:
            exchange = await Exchange().through(raising(error))
            assert exchange.status == 504
            assert exchange.headers.keys() == {"content-type", "content-length", "x-should-retry"}
            assert exchange.body == b"the deadline of this request has passed\n"

        run(main)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("wrong"),
            TimeoutError("mine"),
            ExceptionGroup("both", [RejectedError(SECRET), ValueError("wrong")]),
            SystemExit(3),
        ],
    )
    @pytest.mark.parametrize("cancel", [False, True])
    def test_everything_else_passes_through_unchanged(self, run: Run, error: BaseException, cancel: bool) -> None:
        async def main() -> None:
            exchange = Exchange()
            with pytest.raises(type(error)) as caught:
                await exchange.through(raising(error), cancel_on_disconnect=cancel)
            assert caught.value is error
            assert exchange.sent == []

        run(main)

    @pytest.mark.parametrize("error", [RejectedError(SECRET), DeadlineExceededError(SECRET)])
    @pytest.mark.parametrize("cancel", [False, True])
    def test_once_the_response_has_started_the_error_is_raised(self, run: Run, error: Exception, cancel: bool) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        async def main() -> None:
            exchange = Exchange()
            with pytest.raises(type(error)) as caught:
                await exchange.through(app, cancel_on_disconnect=cancel)
            assert caught.value is error
            assert len(exchange.sent) == 1

        run(main)

    def test_before_the_head_informational_messages_start_nothing(self, run: Run) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.early_hint", "links": []})
            raise RejectedError(SECRET)

        async def main() -> None:
            exchange = await Exchange().through(app)
            assert [message["type"].rpartition(".")[2] for message in exchange.sent] == ["early_hint", "start", "body"]

        run(main)
