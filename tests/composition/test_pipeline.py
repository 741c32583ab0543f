import asyncio
import functools
import gc
import inspect
import json
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Call,
    DeadlineExceededError,
    DeferredSettlement,
    Ending,
    Gate,
    Pipeline,
    Race,
    RejectedError,
    RejectReason,
    ResilienceWarning,
    Retry,
    Substitute,
    Ticket,
    backoff,
    pipelines,
    set_mode,
    subscribe,
)
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.in_flight import Drain
from resilience.events import AttemptEnded, CallEnded, Event, FallbackUsed, Rejected, RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, virtual_time
from tests.support.turnstile import Turnstile

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

PATIENCE = 60.0


class Flaky:
    """Fails on every odd call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls % 2:
            raise ConnectionError


def retrying(**more: Any) -> Pipeline[Any]:
    return Pipeline(Retry(wait=backoff.none()), **more)


class Closed(Gate[None]):
    kind = "closed"

    def admit(self, call: Call) -> None:
        raise RejectedError("closed", reason=RejectReason.ISOLATED, retry_after=3.0)


class Noting(Gate[str]):
    """Notes how calls end, and may raise then."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.endings: list[str] = []

    def admit(self, call: Call) -> str:
        return "token"

    def settle(self, token: str | Ticket, ending: Ending) -> None:
        assert token == "token"
        self.endings.append(ending.kind)
        if self.error is not None:
            raise self.error


class Instead(Substitute[Any]):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def replace(self, call: Call, ending: Ending) -> Any:
        return self.value() if callable(self.value) else self.value


def down() -> str:
    raise ConnectionError("down")


class TestDecorating:
    def test_functions(self) -> None:
        flaky = Flaky()

        @retrying()
        def double(number: int, *, more: int = 0) -> int:
            """Double it."""
            flaky()
            return 2 * number + more

        assert double(4, more=1) == 9
        assert flaky.calls == 2
        assert double.__doc__ == "Double it."
        assert str(inspect.signature(double)) == "(number: int, *, more: int = 0) -> int"
        assert inspect.unwrap(double) is not double
        assert not inspect.iscoroutinefunction(double)

    def test_coroutine_functions(self) -> None:
        flaky = Flaky()

        @retrying()
        async def double(number: int) -> int:
            flaky()
            await asyncio.sleep(0)
            return 2 * number

        assert inspect.iscoroutinefunction(double)
        assert str(inspect.signature(double)) == "(number: int) -> int"
        assert asyncio.run(double(4)) == 8
        assert flaky.calls == 2

    def test_methods(self) -> None:
        pipeline = retrying()

        class Client:
            def __init__(self) -> None:
                self.flaky = Flaky()

            @pipeline
            def get(self, number: int) -> int:
                self.flaky()
                return number

            @pipeline
            async def aget(self, number: int) -> int:
                self.flaky()
                return number

            @pipeline
            @classmethod
            def outside_class(cls, flaky: Flaky) -> str:
                flaky()
                return cls.__name__

            @classmethod
            @pipeline
            def inside_class(cls, flaky: Flaky) -> str:
                flaky()
                return cls.__name__

            @pipeline
            @staticmethod
            def outside_static(flaky: Flaky) -> str:
                flaky()
                return "static"

            @staticmethod
            @pipeline
            def inside_static(flaky: Flaky) -> str:
                flaky()
                return "static"

        client = Client()
        assert client.get(1) == 1
        assert asyncio.run(client.aget(2)) == 2
        assert client.flaky.calls == 4
        assert pipeline.name == "Client.get"
        for owner in (Client, client):
            for name, value in (("class", "Client"), ("static", "static")):
                for side in ("inside", "outside"):
                    flaky = Flaky()
                    assert getattr(owner, f"{side}_{name}")(flaky) == value
                    assert flaky.calls == 2

    def test_objects_with_an_async_call(self) -> None:
        flaky = Flaky()

        class Fetch:
            async def __call__(self) -> int:
                flaky()
                return 5

        guarded = retrying()(Fetch())
        assert inspect.iscoroutinefunction(guarded)
        assert asyncio.run(guarded()) == 5
        assert flaky.calls == 2

    def test_partials(self) -> None:
        async def add(one: int, two: int) -> int:
            return one + two

        pipeline = retrying()
        divide: Callable[..., Any] = functools.partial(divmod, 7)
        divided: Callable[..., Any] = pipeline(divide)
        assert divided(2) == (3, 1)
        guarded = pipeline(functools.partial(functools.partial(add, 1), 2))
        assert inspect.iscoroutinefunction(guarded)
        assert asyncio.run(guarded()) == 3
        assert pipeline.name == "divmod"

    def test_a_policy_alone(self) -> None:
        flaky = Flaky()
        retry = Retry(wait=backoff.none())
        retry(flaky)()
        retry.call(flaky)
        asyncio.run(retry.acall(flaky))
        retry.bind(operation="x").call(flaky)
        assert flaky.calls == 8

    def test_generators_are_refused(self) -> None:
        def pages() -> Iterator[int]:
            yield 1

        async def apages() -> AsyncIterator[int]:
            yield 1

        class Pages:
            def __call__(self) -> Iterator[int]:
                yield 1

        refused: list[Callable[..., Any]] = [pages, apages, Pages(), functools.partial(pages)]
        for one in refused:
            with pytest.raises(TypeError, match="generator function"):
                retrying()(one)

    @pytest.mark.parametrize("thing", [Flaky, 5, None, functools.partial(Flaky)])
    def test_classes_and_other_things_are_refused(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="decorates functions"):
            retrying()(thing)


class TestCalling:
    def test_call_and_acall(self) -> None:
        pipeline = retrying()
        assert pipeline.call(divmod, 7, 2) == (3, 1)
        assert pipeline.call(int, "11", base=2) == 3

        async def add(one: int, *, two: int) -> int:
            return one + two

        assert asyncio.run(pipeline.acall(add, 1, two=2)) == 3
        assert asyncio.run(pipeline.acall(divmod, 7, 2)) == (3, 1)

    def test_an_awaitable_from_a_plain_call_is_refused_and_closed(self) -> None:
        made: list[Any] = []

        async def work() -> int:
            return 1

        def make() -> Any:
            made.append(work())
            return made[-1]

        pipeline = retrying()
        calls: list[Callable[[], Any]] = [lambda: pipeline.call(make), pipeline(make)]
        for call in calls:
            with pytest.raises(TypeError, match="acall"):
                call()
            assert inspect.getcoroutinestate(made[-1]) == inspect.CORO_CLOSED
        assert len(made) == 2
        assert asyncio.run(pipeline.acall(make)) == 1

    def test_bind(self) -> None:
        pipeline = retrying(name="bound")
        first = pipeline.bind(operation="get", target="a.example")
        second = first.bind(target="b.example")
        with Recorder(pipeline, events=[CallEnded]) as recorder:
            first.call(int)
            second.call(int)
            second(int.bit_length)(5)
            pipeline.call(divmod, 1, 1)
        seen = [(event.operation, event.target) for event in recorder.of(CallEnded)]
        assert seen == [("get", "a.example"), ("get", "b.example"), ("get", "b.example"), ("divmod", None)]

    @pytest.mark.parametrize("wrong", [{"operation": 5}, {"target": 5}, {"idempotent": "no"}])
    def test_wrong_bind(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=next(iter(wrong))):
            retrying().bind(**wrong)

    def test_a_pipeline_in_a_pipeline(self) -> None:
        inner = retrying(name="inner one")
        outer = Pipeline(inner, name="outer one")
        flaky = Flaky()
        with Recorder(inner) as inside, Recorder(outer) as outside:
            outer.call(flaky)
        assert flaky.calls == 2
        assert {event.pipeline for event in inside.events} == {"inner one"}
        assert {event.pipeline for event in outside.events} == {"outer one"}
        assert len(inside.of(RetryScheduled)) == 1
        assert outside.of(RetryScheduled) == []
        assert outer["retry"] is inner["retry"]
        inner.mode = "off"
        with pytest.raises(ConnectionError):
            outer.call(down)


class TestNames:
    def test_numbering(self) -> None:
        policies = [Retry(), Retry(name="mine"), Retry(), Retry(name="retry_3"), Retry()]
        pipeline = Pipeline(*policies)
        names = ["retry", "mine", "retry_2", "retry_3", "retry_4"]
        assert [one["name"] for one in pipeline.describe()["policies"]] == names
        assert [pipeline[name] for name in names] == policies
        assert pipeline.policies == tuple(policies)

    def test_duplicates(self) -> None:
        with pytest.raises(ValueError, match="mine"):
            Pipeline(Retry(name="mine"), Retry(name="mine"))

    def test_unknown(self) -> None:
        with pytest.raises(KeyError, match="retry"):
            retrying()["breaker"]

    def test_after_the_first_function(self) -> None:
        pipeline = retrying()
        assert pipeline.name == ""
        pipeline(down)
        pipeline(divmod)
        assert pipeline.name == "down"
        assert pipelines()["down"] is pipeline

    def test_pipelines_is_weak(self) -> None:
        pipeline = retrying(name="short-lived")
        assert pipelines()["short-lived"] is pipeline
        assert "short-lived" in list(pipelines())
        assert len(pipelines()) == len(list(pipelines()))
        gone = weakref.ref(pipeline)
        del pipeline
        gc.collect()
        assert gone() is None
        assert "short-lived" not in pipelines()

    def test_the_newest_wins(self) -> None:
        first = retrying(name="twin")
        with pytest.warns(ResilienceWarning, match="twin") as caught:
            second = retrying(name="twin")
        assert len(caught) == 1
        assert pipelines()["twin"] is second
        third = retrying(name="twin")
        assert pipelines()["twin"] is third
        assert first.name == "twin"

    @pytest.mark.parametrize("wrong", [5, Retry, None, "retry"])
    def test_only_policies(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="policies"):
            Pipeline(wrong)

    def test_wrong_budget(self) -> None:
        with pytest.raises(TypeError, match="budget"):
            Pipeline(budget=0.2)  # type: ignore[arg-type]

    def test_a_shape_without_a_driver(self) -> None:
        with pytest.raises(TypeError, match="shape"):
            Pipeline(Race())

    def test_plain_data(self) -> None:
        pipeline = Pipeline(Retry(), Pipeline(Retry(budget=None), Noting()), failures=Allowlist(KeyError), name="plain")
        for data in (pipeline.describe(), pipeline.snapshot(), Pipeline(budget=None).snapshot()):
            assert json.loads(json.dumps(data)) == data
        assert pipeline.describe()["failures"] == "Allowlist(KeyError)"
        assert pipeline.snapshot()["in_flight"] == 0
        assert pipeline.call(lambda: pipeline.snapshot()["in_flight"]) == 1
        assert "plain" in repr(pipeline)


def test_an_integration_asks_by_the_allowlists_of_the_moment() -> None:
    inner: Pipeline[Any] = Pipeline(Retry(2), name="asked-within")
    outer: Pipeline[Any] = Pipeline(inner, name="asked")
    assert not outer.is_bad(3, NETWORK_ERRORS)
    assert outer.is_bad(4, Allowlist.of_results(lambda value: bool(value == 4)))

    inner["retry"].update(on=Allowlist.of_results(lambda value: bool(value == 3)))

    assert outer.is_bad(3, NETWORK_ERRORS)
    assert not outer.is_bad(4, NETWORK_ERRORS)


class TestDraining:
    def test_new_calls_are_refused_until_resume(self) -> None:
        pipeline = retrying(name="drained")
        guarded = pipeline.bind()
        assert pipeline.drain(0)
        assert pipeline.snapshot()["draining"] is True
        with Recorder(pipeline) as recorder:
            with pytest.raises(RejectedError, match="drained") as caught:
                guarded.call(int)
            with pytest.raises(RejectedError):
                asyncio.run(pipeline.acall(int))
        assert caught.value.reason is RejectReason.DRAINING
        assert [event.reason for event in recorder.of(Rejected)] == ["draining", "draining"]
        pipeline.resume()
        assert guarded.call(int) == 0
        assert asyncio.run(pipeline.acall(int)) == 0
        assert pipeline.snapshot()["in_flight"] == 0

    def test_it_ends_a_wait_in_another_thread(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(3600), max_retry_after=0))
        waiting = threading.Event()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                pipeline.call(down)
            except ConnectionError as error:
                raised.append(error)

        with pipeline.subscribe(lambda event: waiting.set(), events=[RetryScheduled]):
            thread = threading.Thread(target=work)
            thread.start()
            assert waiting.wait(PATIENCE)
            assert pipeline.drain(PATIENCE)
        thread.join(PATIENCE)
        assert len(raised) == 1
        assert pipeline.snapshot()["in_flight"] == 0

    def test_adrain(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(3600)))

        async def main() -> None:
            call = asyncio.create_task(pipeline.acall(down))
            await asyncio.sleep(0)
            assert await pipeline.adrain(10)
            with pytest.raises(ConnectionError) as caught:
                await call
            assert caught.value.__notes__ == ["resilience: attempt 2 not made: draining"]

        with virtual_time() as clock:
            asyncio.run(main())
            assert clock.elapsed < 10

    def test_it_does_not_wait_for_calls_that_it_refuses(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-under-load")
        refusing, told = threading.Event(), threading.Event()

        def listen(event: Rejected) -> None:
            refusing.set()
            assert told.wait(PATIENCE)

        def late() -> None:
            with pytest.raises(RejectedError):
                pipeline.call(int)

        with pipeline.subscribe(listen, events=[Rejected]):
            drain = Drain(pipeline.engine)
            thread = threading.Thread(target=late)
            thread.start()
            assert refusing.wait(PATIENCE)
            assert pipeline.snapshot()["in_flight"] == 1
            assert not drain.unfinished()
            told.set()
            thread.join(PATIENCE)

    def test_whoever_leaves_as_a_drain_begins_to_wait_tells_it(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-at-the-last-moment")
        told: list[str] = []

        class Live(set[Any]):
            def discard(self, call: Any) -> None:
                if not told:
                    told.append("the drain waits")
                    assert Drain(pipeline.engine).add_waker(lambda: told.append("somebody has left"))
                super().discard(call)

        pipeline.engine.calls = Live()
        assert pipeline(lambda: 0)() == 0

        assert told == ["the drain waits", "somebody has left"]

    def test_a_drain_that_finds_somebody_gone_tells_the_others(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="drained-by-two")
        told: list[str] = []
        call = Call(pipeline.call_options(NETWORK_ERRORS), int, (), {})
        pipeline.engine.calls.add(call)
        first, second = Drain(pipeline.engine), Drain(pipeline.engine)
        assert first.add_waker(lambda: told.append("the first"))

        pipeline.engine.calls.discard(call)  # and whoever has left has not looked for drains yet
        assert not second.unfinished()

        assert told == ["the first"]

    def test_a_drain_that_is_resumed_from_still_waits_for_those_who_were_in(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(name="resumed-while-drained")
        call = Call(pipeline.call_options(NETWORK_ERRORS), int, (), {})
        pipeline.engine.calls.add(call)
        drain = Drain(pipeline.engine)

        pipeline.resume()
        assert drain.unfinished()

        pipeline.engine.calls.discard(call)
        assert not drain.unfinished()

    def test_a_stream_that_is_dropped_during_a_drain_ends_it(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Turnstile(), name="drained-of-a-stream")
        held: list[Any] = [DeferredSettlement()]
        held.append(Call(pipeline.call_options(NETWORK_ERRORS), lambda: setattr(held[1], "deferred", held[0]), (), {}))
        pipeline._execute(held[1])
        drain = Drain(pipeline.engine)
        assert drain.unfinished()
        held.clear()
        gc.collect()

        assert not drain.unfinished()
        assert pipeline.drain(0)

    def test_in_vain(self) -> None:
        pipeline = Pipeline[Any]()
        with virtual_time() as clock:
            assert pipeline.call(lambda: pipeline.drain(5)) is False
            assert clock.elapsed == pytest.approx(5)

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_wrong_timeout(self, timeout: float) -> None:
        pipeline = retrying()
        with pytest.raises(ValueError, match="timeout"):
            pipeline.drain(timeout)
        assert pipeline.call(int) == 0

    def test_reset(self) -> None:
        pipeline = retrying()
        pipeline.call(Flaky())
        pipeline.drain(0)
        pipeline.reset()
        assert pipeline.budget is not None
        assert pipeline.budget.tokens == 10
        assert pipeline.call(int) == 0


class TestModes:
    @pytest.mark.parametrize("mode", ["off", "shadow"])
    def test_of_the_process(self, mode: str) -> None:
        pipeline = retrying()
        flaky = Flaky()
        try:
            set_mode(mode)
            with pytest.raises(ConnectionError):
                pipeline.call(flaky)
            with pytest.raises(ConnectionError):
                retrying().call(down)
        finally:
            set_mode("enforce")
        assert flaky.calls == 1
        pipeline.call(Flaky())

    @pytest.mark.parametrize("mode", ["off", "shadow"])
    def test_of_a_policy(self, mode: str) -> None:
        pipeline = Pipeline(Closed(), Instead("other"))
        pipeline["closed"].mode = mode
        with Recorder(pipeline, events=[Rejected]) as recorder:
            assert pipeline.call(int) == 0
            assert asyncio.run(pipeline.acall(int)) == 0
        assert [event.mode for event in recorder.of(Rejected)] == (["shadow"] * 2 if mode == "shadow" else [])
        pipeline["substitute"].update(mode=mode)
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        pipeline["closed"].mode = "enforce"
        with pytest.raises(RejectedError):
            pipeline.call(int)

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="mode"):
            set_mode("loud")
        with pytest.raises(ValueError, match="mode"):
            Retry().mode = "loud"


class TestListening:
    def test_subscribe_and_unsubscribe(self) -> None:
        pipeline, other = retrying(), retrying()
        here: list[Event] = []
        everywhere: list[Event] = []
        subscription = pipeline.subscribe(here.append, events=[CallEnded])
        with subscribe(everywhere.append, events=[CallEnded]):
            pipeline.call(int)
            other.call(int)
        assert (len(here), len(everywhere)) == (1, 2)
        subscription()
        subscription()
        pipeline.call(int)
        assert (len(here), len(everywhere)) == (1, 2)

    def test_when(self) -> None:
        heard: list[Event] = []
        pipeline = retrying()
        interested = False
        with pipeline.subscribe(heard.append, when=lambda: interested):
            pipeline.call(Flaky())
            assert heard == []
            interested = True
            pipeline.call(Flaky())
        assert [type(event) for event in heard] == [AttemptEnded, RetryScheduled, AttemptEnded, CallEnded]

    def test_errors_of_listeners(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline = retrying()
        heard: list[Event] = []

        def broken_listener(event: Event) -> None:
            raise ZeroDivisionError

        with pipeline.subscribe(broken_listener), pipeline.subscribe(heard.append):
            pipeline.call(Flaky())
        assert len(heard) == 4
        assert sum("broken_listener" in line.message for line in caplog.records if line.levelno == logging.ERROR) == 1

    def test_wrong(self) -> None:
        async def listener(event: Event) -> None:
            pass

        wrong: Any
        for wrong in (listener, 5):
            with pytest.raises(TypeError, match="listener"):
                retrying().subscribe(wrong)
        for wrong in (int, "CallEnded"):
            with pytest.raises(TypeError, match="event types"):
                retrying().subscribe(print, events=[wrong])


def raising(error: BaseException) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


class TestOutcomes:
    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (ValueError(), "error"),
            (ConnectionError(), "failed"),
            (DeadlineExceededError(), "timed_out"),
            (LookupError(), "ok"),
            (KeyboardInterrupt(), "abandoned"),
            (asyncio.CancelledError(), "abandoned"),
        ],
    )
    def test_raised(self, error: BaseException, outcome: str) -> None:
        pipeline = Pipeline[Any](failures=Allowlist(ConnectionError, answers=(LookupError,)))
        with Recorder(pipeline) as recorder:
            with pytest.raises(type(error)):
                pipeline.call(raising(error))
            with pytest.raises(type(error)):
                pipeline.acall(raising(error)).send(None)
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [(outcome, 1)] * 2
        assert [(one.outcome, one.attempt) for one in recorder.of(AttemptEnded)] == [(outcome, 1)] * 2

    def test_after_a_retry(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(2)))
        with virtual_time(), Recorder(pipeline) as recorder:
            pipeline.call(Flaky())
        assert [(one.outcome, one.attempt) for one in recorder.of(AttemptEnded)] == [("failed", 1), ("ok", 2)]
        (event,) = recorder.of(CallEnded)
        assert (event.outcome, event.attempts, event.elapsed) == ("ok", 2, pytest.approx(2))

    def test_rejected(self) -> None:
        pipeline = Pipeline(Closed(), name="shut")
        with Recorder(pipeline) as recorder:
            with pytest.raises(RejectedError):
                pipeline.call(int)
            with pytest.raises(RejectedError):
                asyncio.run(pipeline.acall(int))
        assert recorder.of(AttemptEnded) == []
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [("rejected", 0)] * 2
        event = recorder.of(Rejected)[0]
        assert (event.pipeline, event.policy, event.reason, event.retry_after) == ("shut", "closed", "isolated", 3.0)

    def test_bad_results(self) -> None:
        pipeline = Pipeline[Any](failures=Allowlist.of_results(lambda result: result == 503))
        with Recorder(pipeline) as recorder:
            assert pipeline.call(int, 503) == 503
            assert pipeline.call(int, 200) == 200
        assert [one.outcome for one in recorder.of(CallEnded)] == ["failed", "ok"]

    def test_a_failing_settle_hook_does_not_replace_the_outcome(self, caplog: pytest.LogCaptureFixture) -> None:
        class BreaksSettling(Noting):
            pass

        broken, fine = BreaksSettling(ZeroDivisionError()), Noting()
        pipeline = Pipeline(fine, broken)
        assert pipeline.call(int) == 0
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        assert asyncio.run(pipeline.acall(int)) == 0
        assert broken.endings == fine.endings == ["ok", "failed", "ok"]
        assert "settle of a policy" in caplog.text


class TestSubstitutes:
    def test_a_value(self) -> None:
        pipeline = Pipeline(Instead("other"), Retry(wait=backoff.none()))
        with Recorder(pipeline) as recorder:
            assert pipeline.call(down) == "other"
            assert asyncio.run(pipeline.acall(down)) == "other"
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [("fallback", 3)] * 2
        assert len(recorder.of(FallbackUsed)) == len(recorder.of(RetryGivenUp)) == 2

    def test_rejections_are_covered_and_errors_are_not(self) -> None:
        assert Pipeline(Instead(5), Closed()).call(str) == 5
        with pytest.raises(ValueError, match="mine"):
            Pipeline(Instead(5)).call(raising(ValueError("mine")))
        with pytest.raises(KeyboardInterrupt):
            Pipeline(Instead(5)).call(raising(KeyboardInterrupt()))

    def test_an_awaitable(self) -> None:
        made: list[Any] = []

        async def other() -> str:
            return "awaited"

        def make() -> Any:
            made.append(other())
            return made[-1]

        pipeline = Pipeline(Instead(make))
        assert asyncio.run(pipeline.acall(down)) == "awaited"
        with pytest.raises(TypeError, match="async `replace`"):
            pipeline.call(down)
        assert inspect.getcoroutinestate(made[-1]) == inspect.CORO_CLOSED

    def test_what_it_raises_comes_out(self) -> None:
        pipeline = Pipeline(Instead(raising(KeyError("nothing"))))
        with pytest.raises(KeyError, match="nothing"):
            pipeline.call(down)
