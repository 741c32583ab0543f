import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Call,
    CircuitOpenError,
    Ending,
    Failure,
    FailureKind,
    Gate,
    Mode,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    RetryBudget,
    Ticket,
    backoff,
)
from resilience.events import GiveUpReason, RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock, seeded, virtual_time

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Down:
    """Raises the error of its turn, and counts; with no error for the turn, it returns "fine"."""

    def __init__(self, *errors: BaseException | None, default: type[BaseException] | None = None) -> None:
        self.errors = list(errors)
        self.default = default
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        error = self.errors[self.calls - 1] if self.calls <= len(self.errors) else None
        if error is None and self.calls > len(self.errors) and self.default is not None:
            error = self.default("down")
        if error is not None:
            raise error
        return "fine"


class Expiring(Gate[None]):
    """Gives each call a deadline."""

    def __init__(self, clock: VirtualClock, seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.within = seconds

    def admit(self, call: Call) -> None:
        call.deadline = self.clock.monotonic() + self.within

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        pass


class OpensAfter(Gate[None]):
    """Lets some attempts in, and then none."""

    def __init__(self, admitted: int) -> None:
        super().__init__()
        self.left = admitted

    def admit(self, call: Call) -> None:
        self.left -= 1
        if self.left < 0:
            raise CircuitOpenError("open", reason=RejectReason.OPEN)

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        pass


def listing(failure: Failure) -> Allowlist:
    return Allowlist(when=lambda error: failure if isinstance(error, ConnectionError) else None)


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


@pytest.fixture(name="clock")
def _clock() -> Iterator[VirtualClock]:
    with virtual_time() as clock, seeded(1):
        yield clock


def gives_up(
    pipeline: Pipeline[Any],
    down: Down,
    reason: GiveUpReason,
    words: str,
    *,
    attempts: int,
    idempotent: bool | None = None,
) -> None:
    with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
        pipeline.bind(idempotent=idempotent).call(down)
    (event,) = recorder.of(RetryGivenUp)
    assert (event.reason, event.attempts, down.calls) == (reason, attempts, attempts)
    assert (event.pipeline, event.policy, event.operation) == ("quotes", "retry", "Down")
    (note,) = notes(caught.value)
    assert note.startswith(f"resilience: retry of quotes gave up after {attempts} attempt")
    assert words in note.rpartition(" s: ")[2]


@pytest.mark.usefixtures("clock")
class TestGivingUp:
    def test_attempts(self) -> None:
        down = Down(default=ConnectionError)
        gives_up(Pipeline(Retry(), name="quotes"), down, GiveUpReason.ATTEMPTS, "no attempts are left", attempts=3)

    def test_deadline(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Expiring(clock, 5), Retry(wait=backoff.fixed(2), attempts=9), name="quotes")
        words = "the next wait would end past the deadline"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.DEADLINE, words, attempts=3)
        assert clock.sleeps == [2, 2]

    def test_a_wait_that_ends_at_the_deadline_is_not_slept(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Expiring(clock, 2), Retry(wait=backoff.fixed(2)), name="quotes")
        words = "the next wait would end past the deadline"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.DEADLINE, words, attempts=1)
        assert clock.sleeps == []

    def test_budget(self) -> None:
        pipeline = Pipeline(Retry(), name="quotes", budget=RetryBudget(initial=1))
        down = Down(default=ConnectionError)
        gives_up(pipeline, down, GiveUpReason.BUDGET, "the retry budget is empty", attempts=2)

    def test_not_idempotent(self) -> None:
        words = "the call is not idempotent, and may have been processed"
        pipeline = Pipeline(Retry(), name="quotes")
        down = Down(default=ConnectionError)
        gives_up(pipeline, down, GiveUpReason.NOT_IDEMPOTENT, words, attempts=1, idempotent=False)

    def test_not_retryable(self) -> None:
        pipeline = Pipeline(Retry(), name="quotes", failures=listing(Failure(retryable=False)))
        down = Down(default=ConnectionError)
        words = "such a failure is not retried, unless the server asks for it"
        gives_up(pipeline, down, GiveUpReason.NOT_RETRYABLE, words, attempts=1)

    def test_body_not_replayable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Call, "replayable", False)
        words = "the request body cannot be sent again"
        pipeline = Pipeline(Retry(), name="quotes")
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.BODY_NOT_REPLAYABLE, words, attempts=1)

    def test_retry_after(self) -> None:
        words = "the server asks for a longer wait than max_retry_after"
        pipeline = Pipeline(Retry(), name="quotes", failures=listing(Failure(retry_after=60.5)))
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.RETRY_AFTER, words, attempts=1)

    def test_one_attempt_never_meant_to_retry_so_another_level_may(self) -> None:
        pipeline = Pipeline(Retry(2, wait=backoff.none()), Pipeline(Retry(1)))
        down = Down(default=ConnectionError)
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts"]
        assert down.calls == 2
        assert "gave up after 2 attempts" in notes(caught.value)[0]

    def test_one_attempt_is_told_like_others(self) -> None:
        pipeline = Pipeline(Retry(1))
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(Down(default=ConnectionError))
        assert [event.attempts for event in recorder.of(RetryGivenUp)] == [1]
        assert "gave up after 1 attempt in" in notes(caught.value)[0]

    def test_an_unlisted_error_comes_out_as_it_is(self) -> None:
        pipeline = Pipeline(Retry())
        down = Down(default=KeyError)
        with Recorder(pipeline, events=[RetryGivenUp, RetryScheduled]) as recorder, pytest.raises(KeyError) as caught:
            pipeline.call(down)
        assert (down.calls, recorder.events, notes(caught.value)) == (1, [], [])

    def test_a_pipeline_without_a_name(self) -> None:
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry()).call(Down(default=ConnectionError))
        assert notes(caught.value)[0].startswith("resilience: retry gave up after 3 attempts in ")


@pytest.mark.usefixtures("clock")
class TestIdempotence:
    def test_what_was_not_processed_is_retried(self) -> None:
        down = Down(ConnectionRefusedError("no"))
        assert Pipeline(Retry()).bind(idempotent=False).call(down) == "fine"
        assert down.calls == 2

    @pytest.mark.parametrize("idempotent", [True, None])
    def test_others_are_retried(self, idempotent: bool | None) -> None:
        down = Down(ConnectionError("no"))
        assert Pipeline(Retry()).bind(idempotent=idempotent).call(down) == "fine"

    def test_another_level_is_not_held_off(self) -> None:
        inner = Pipeline(Retry()).bind(idempotent=False)
        down = Down(ConnectionError("no"))
        assert Pipeline(Retry()).call(lambda: inner.call(down)) == "fine"


class TestWaits:
    @pytest.mark.parametrize(
        ("hint", "longest", "slept"),
        [
            (5.0, 60.0, [5.0]),
            (1.0, 60.0, [2.0]),
            (60.0, 60.0, [60.0]),
            (5.0, 0.0, [2.0]),
            (1e9, 0.0, [2.0]),
            (0.0, 60.0, [2.0]),
            (float("nan"), 60.0, [2.0]),
            (float("inf"), 60.0, [2.0]),
            (-1.0, 60.0, [2.0]),
            (None, 60.0, [2.0]),
        ],
    )
    def test_hints(self, clock: VirtualClock, hint: float | None, longest: float, slept: list[float]) -> None:
        retry = Retry(wait=backoff.fixed(2), max_retry_after=longest)
        pipeline = Pipeline(retry, failures=listing(Failure(retry_after=hint)))
        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            assert pipeline.call(Down(ConnectionError("no"))) == "fine"
        assert clock.sleeps == pytest.approx(slept)
        (event,) = recorder.of(RetryScheduled)
        assert (event.attempt, event.wait, event.mode) == (1, slept[0], Mode.ENFORCE)

    def test_by_kind(self, clock: VirtualClock) -> None:
        waits = {
            FailureKind.TRANSIENT: backoff.fixed(1),
            FailureKind.TIMEOUT: backoff.fixed(2),
            FailureKind.OVERLOAD: backoff.fixed(4),
        }
        failures = Allowlist(ConnectionError, TimeoutError) | listing(Failure(FailureKind.OVERLOAD))
        busy = Allowlist(when=lambda error: Failure(FailureKind.OVERLOAD) if isinstance(error, OSError) else None)
        pipeline = Pipeline(Retry(4, wait=waits), failures=failures | busy)
        assert pipeline.call(Down(TimeoutError(), OSError(), ConnectionError())) == "fine"
        assert clock.sleeps == pytest.approx([2, 4, 1])

    def test_no_wait_never_sleeps(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(wait=backoff.none()))
        assert pipeline.call(Down(ConnectionError(), ConnectionError())) == "fine"

        async def main() -> None:
            assert await pipeline.acall(Down(ConnectionError(), ConnectionError())) == "fine"

        asyncio.run(main())
        assert clock.sleeps == []
        assert clock.elapsed == 0

    @pytest.mark.usefixtures("clock")
    @pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1.0])
    def test_a_broken_backoff_lets_the_failure_out(self, wait: float) -> None:
        class Broken(backoff.Backoff):
            def seconds(self, retry: int, previous: float | None) -> float:
                return wait

        down = Down(default=ConnectionError)
        with pytest.raises(ConnectionError):
            Pipeline(Retry(wait=Broken())).call(down)
        assert down.calls == 1

    def test_a_backoff_gets_the_number_and_the_last_wait(self, clock: VirtualClock) -> None:
        seen: list[tuple[int, float | None]] = []

        class Noting(backoff.Backoff):
            def seconds(self, retry: int, previous: float | None) -> float:
                seen.append((retry, previous))
                return float(retry)

        assert Pipeline(Retry(wait=Noting())).call(Down(ConnectionError(), ConnectionError())) == "fine"
        assert seen == [(1, None), (2, 1.0)]
        assert clock.sleeps == pytest.approx([1, 2])


@pytest.mark.usefixtures("clock")
class TestBudgets:
    def test_the_pipelines_is_shared_by_its_policies_and_pipelines(self) -> None:
        budget = RetryBudget(initial=3)
        for _ in range(2):
            with suppress(ConnectionError):
                Pipeline(Retry(), budget=budget).call(Down(default=ConnectionError))
        assert budget.tokens == 0

    def test_none_has_no_limit(self) -> None:
        down = Down(default=ConnectionError)
        with suppress(ConnectionError):
            Pipeline(Retry(50), budget=None).call(down)
        assert down.calls == 50

    def test_own(self) -> None:
        own, shared = RetryBudget(initial=1), RetryBudget()
        down = Down(default=ConnectionError)
        with suppress(ConnectionError):
            Pipeline(Retry(budget=own), budget=shared).call(down)
        assert (down.calls, own.tokens, shared.tokens) == (2, 0, 10)

    def test_own_none(self) -> None:
        down = Down(default=ConnectionError)
        pipeline = Pipeline(Retry(50, budget=None))
        with suppress(ConnectionError):
            pipeline.call(down)
        assert down.calls == 50
        assert pipeline.budget is not None
        assert pipeline.budget.tokens == 10

    def test_successes_and_answers_pay_in(self) -> None:
        budget = RetryBudget(ratio=0.5, initial=0)
        pipeline = Pipeline(Retry(), budget=budget, failures=Allowlist(ConnectionError, answers=(KeyError,)))
        assert pipeline.call(Down()) == "fine"
        with suppress(KeyError):
            pipeline.call(Down(KeyError()))
        with suppress(ValueError):
            pipeline.call(Down(ValueError()))
        assert budget.tokens == 1

    def test_grpc(self) -> None:
        budget = RetryBudget.grpc(max_tokens=4)
        pipeline = Pipeline(Retry(), name="quotes", budget=budget)
        words = "the retry budget is empty"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.BUDGET, words, attempts=2)
        assert budget.tokens == 2

    def test_grpc_pays_for_the_last_failure_too_but_not_for_uncounted_ones(self) -> None:
        budget = RetryBudget.grpc()
        with suppress(ConnectionError):
            Pipeline(Retry(), budget=budget).call(Down(default=ConnectionError))
        assert budget.tokens == 7
        pipeline = Pipeline(Retry(), budget=budget, failures=listing(Failure(counted=False)))
        with suppress(ConnectionError):
            pipeline.call(Down(default=ConnectionError))
        assert budget.tokens == 7


class AppError(Exception):
    pass


def layers(function: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    for _ in range(3):
        pipeline = Pipeline[Any](Retry(3, budget=None, **settings), failures=Allowlist(ConnectionError, AppError))
        function = pipeline(function)
    return function


@pytest.mark.usefixtures("clock")
class TestNesting:
    def test_three_layers_make_three_calls(self) -> None:
        down = Down(default=ConnectionError)
        with Recorder(events=[RetryGivenUp]) as recorder, pytest.raises(ConnectionError) as caught:
            layers(down)()
        assert down.calls == 3
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts", "nested", "nested"]
        (note,) = notes(caught.value)
        assert "gave up after 3 attempts" in note
        assert note.count("retries at several levels do not multiply") == 1

    def test_async(self) -> None:
        calls: list[None] = []

        async def down() -> None:
            calls.append(None)
            raise ConnectionError

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await layers(down)()

        asyncio.run(main())
        assert len(calls) == 3

    def test_sync_in_async(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        async def threaded() -> str:
            return await asyncio.to_thread(lambda: inner.call(down))

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await Pipeline(Retry()).acall(threaded)

        asyncio.run(main())
        assert down.calls == 3

    def test_pipelines_in_a_pipeline(self) -> None:
        down = Down(default=ConnectionError)
        with pytest.raises(ConnectionError):
            Pipeline(Retry(), Pipeline(Retry(), Pipeline(Retry()))).call(down)
        assert down.calls == 3

    @pytest.mark.parametrize("explicitly", [True, False])
    def test_wrapped_in_another_error(self, explicitly: bool) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError as error:
                if explicitly:
                    raise AppError from error
                raise AppError  # noqa: B904 - the context is what this is about

        with pytest.raises(AppError) as caught:
            layers(work)()
        assert down.calls == 3
        assert "a Retry further in had given up on the cause" in notes(caught.value)[0]

    def test_wrapped_from_none_is_another_matter(self) -> None:
        inner = Pipeline(Retry(budget=None))
        down = Down(default=ConnectionError)

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError:
                raise AppError from None

        with pytest.raises(AppError):
            Pipeline(Retry(), failures=AppError).call(work)
        assert down.calls == 9

    def test_in_a_group(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError as error:
                raise ExceptionGroup("several", [error]) from None

        with pytest.raises(ExceptionGroup):
            Pipeline(Retry()).call(work)
        assert down.calls == 3

    def test_bad_results(self) -> None:
        bad = Allowlist.of_results(lambda result: result == {"status": 503})
        made: list[dict[str, int]] = []

        def busy() -> dict[str, int]:
            made.append({"status": 503})
            return made[-1]

        function = busy
        with Recorder(events=[RetryGivenUp]) as recorder:
            for _ in range(3):
                function = Pipeline[Any](Retry(), failures=bad)(function)
            assert function() is made[-1]
        assert len(made) == 3
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts", "nested", "nested"]

    def test_bad_results_in_threads_of_async_code(self) -> None:
        bad = Allowlist.of_results(lambda result: result == [503])
        made: list[list[int]] = []

        def busy() -> list[int]:
            made.append([503])
            return made[-1]

        inner = Pipeline(Retry(), failures=bad)(busy)

        async def main() -> None:
            result = await Pipeline(Retry(), failures=bad).acall(asyncio.to_thread, inner)
            assert result is made[-1]

        asyncio.run(main())
        assert len(made) == 3

    def test_bad_results_async(self) -> None:
        bad = Allowlist.of_results(lambda result: result == [503])
        made: list[list[int]] = []

        async def busy() -> list[int]:
            made.append([503])
            return made[-1]

        async def main() -> None:
            function: Callable[[], Awaitable[list[int]]] = busy
            for _ in range(3):
                pipeline = Pipeline[Any](Retry(), failures=bad)
                function = pipeline.bind()(function)
            assert await function() is made[-1]

        asyncio.run(main())
        assert len(made) == 3

    def test_nested_multiplies(self) -> None:
        down = Down(default=ConnectionError)
        with pytest.raises(ConnectionError):
            layers(down, nested=True)()
        assert down.calls == 27

    def test_one_attempt_leaves_it_to_another_level(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry(1))
        with pytest.raises(ConnectionError):
            Pipeline(Retry()).call(lambda: inner.call(down))
        assert down.calls == 3

    def test_a_shared_exception_raised_anew_is_retried(self) -> None:
        shared = ConnectionError("always the same")
        pipeline = Pipeline(Retry(), budget=None)
        for _ in range(3):
            down = Down(*[shared] * 5)
            with pytest.raises(ConnectionError) as caught:
                pipeline.call(down)
            assert caught.value is shared
            assert down.calls == 3
            assert len(notes(shared)) == 1


@pytest.mark.usefixtures("clock")
class TestRejections:
    def test_a_rejection_of_the_first_attempt_is_not_retried(self) -> None:
        down = Down()
        pipeline = Pipeline(Retry(), OpensAfter(0))
        with Recorder(pipeline, events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(CircuitOpenError):
            pipeline.call(down)
        assert (down.calls, recorder.events) == (0, [])

    def test_the_last_real_failure_wins(self) -> None:
        first = ConnectionError("first")
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry(), OpensAfter(1)).call(Down(first))
        assert caught.value is first
        assert notes(first) == ["resilience: attempt 2 not made: circuit open"]

    def test_the_last_of_several(self) -> None:
        second = ConnectionError("second")
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry(5), OpensAfter(2)).call(Down(ConnectionError("first"), second))
        assert caught.value is second
        assert notes(second) == ["resilience: attempt 3 not made: circuit open"]

    def test_async(self) -> None:
        first = ConnectionError("first")

        async def main() -> None:
            with pytest.raises(ConnectionError) as caught:
                await Pipeline(Retry(), OpensAfter(1)).acall(Down(first))
            assert caught.value is first

        asyncio.run(main())
        assert notes(first) == ["resilience: attempt 2 not made: circuit open"]

    def test_rejected_is_no_failure_even_if_listed(self) -> None:
        down = Down(default=RejectedError)
        with pytest.raises(RejectedError):
            Pipeline(Retry(on=Exception)).call(down)
        assert down.calls == 1


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"attempts": 0}, ValueError),
            ({"attempts": -1}, ValueError),
            ({"attempts": 2.0}, TypeError),
            ({"attempts": True}, TypeError),
            ({"attempts": "3"}, TypeError),
            ({"wait": 1.0}, TypeError),
            ({"wait": {"never": backoff.none()}}, ValueError),
            ({"wait": {FailureKind.TIMEOUT: None}}, TypeError),
            ({"wait": dict.fromkeys(FailureKind, 1.0)}, TypeError),
            ({"on": KeyboardInterrupt}, TypeError),
            ({"on": 5}, TypeError),
            ({"budget": 0.2}, TypeError),
            ({"max_retry_after": -1}, ValueError),
            ({"max_retry_after": float("nan")}, ValueError),
            ({"max_retry_after": "60"}, TypeError),
            ({"nested": 1}, TypeError),
            ({"name": 5}, TypeError),
            ({"mode": "loud"}, ValueError),
        ],
    )
    def test_wrong(self, wrong: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(wrong))):
            Retry(**wrong)

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"attempts": 5, "max_retry_after": -1}, ValueError),
            ({"attempts": 5, "nested": "no"}, TypeError),
            ({"attempts": 5, "mode": "loud"}, ValueError),
            ({"attempts": 5, "mode": "off", "tries": 3}, TypeError),
            ({"mode": "off", "attempts": 0}, ValueError),
            ({"mode": "off", "wait": 5}, TypeError),
        ],
    )
    def test_a_failed_update_changes_nothing(self, wrong: dict[str, Any], error: type[Exception]) -> None:
        retry = Retry()
        before, settings = retry.describe(), retry.settings
        with pytest.raises(error):
            retry.update(**wrong)
        assert retry.describe() == before
        assert retry.settings is settings

    @pytest.mark.usefixtures("clock")
    def test_update(self) -> None:
        retry = Retry(wait=backoff.none())
        pipeline = Pipeline(retry, budget=None)
        for attempts in (1, 7):
            retry.update(attempts=attempts)
            down = Down(default=ConnectionError)
            with suppress(ConnectionError):
                pipeline.call(down)
            assert down.calls == attempts

    @pytest.mark.usefixtures("clock")
    def test_update_of_what_counts(self) -> None:
        retry = Retry()
        pipeline = Pipeline(retry)
        retry.update(on=KeyError)
        assert pipeline.call(Down(KeyError())) == "fine"
        assert retry.failures is not None

    def test_the_first_attempts_argument_is_positional(self) -> None:
        assert Retry(7).settings.attempts == 7
        assert Retry(None).settings.attempts == Retry().settings.attempts == 3


class Probe:
    pass


@pytest.fixture
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("clock", "_no_gc")
class TestNoCycles:
    @pytest.mark.parametrize("failures", [1, 2, 99])
    @pytest.mark.parametrize("wait", [0.0, 1.0])
    def test_sync(self, failures: int, wait: float) -> None:
        seen: list[weakref.ref[Probe]] = []

        def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            if len(seen) <= failures:
                raise ConnectionError

        with suppress(ConnectionError):
            Pipeline(Retry(wait=backoff.fixed(wait))).call(work)
        assert len(seen) == min(failures + 1, 3)
        assert [one() for one in seen] == [None] * len(seen)

    @pytest.mark.parametrize("failures", [1, 2, 99])
    @pytest.mark.parametrize("wait", [0.0, 1.0])
    def test_async(self, failures: int, wait: float) -> None:
        seen: list[weakref.ref[Probe]] = []

        async def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            if len(seen) <= failures:
                raise ConnectionError

        async def main() -> list[Probe | None]:
            with suppress(ConnectionError):
                await Pipeline(Retry(wait=backoff.fixed(wait))).acall(work)
            return [one() for one in seen]

        assert asyncio.run(main()) == [None] * min(failures + 1, 3)

    def test_after_a_rejection(self) -> None:
        seen: list[weakref.ref[Probe]] = []

        def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            raise ConnectionError

        with suppress(ConnectionError):
            Pipeline(Retry(), OpensAfter(1)).call(work)
        assert [one() for one in seen] == [None]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit, asyncio.CancelledError])
class TestBaseExceptions:
    def test_sync(self, kind: type[BaseException]) -> None:
        down = Down(default=kind)
        with pytest.raises(kind) as caught:
            Pipeline(Retry(on=Exception)).call(down)
        assert (down.calls, notes(caught.value)) == (1, [])

    def test_async(self, kind: type[BaseException]) -> None:
        down = Down(default=kind)

        async def work() -> str:
            return down()

        coroutine = Pipeline(Retry(on=Exception)).acall(work)
        with pytest.raises(kind):
            coroutine.send(None)
        assert down.calls == 1


class TestShadow:
    def test_it_reports_and_does_not_retry(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(mode="shadow"))
        down = Down(default=ConnectionError)
        with Recorder(pipeline, events=[RetryScheduled]) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        (event,) = recorder.of(RetryScheduled)
        assert (down.calls, event.mode, event.attempt) == (1, Mode.SHADOW, 1)
        assert clock.sleeps == []
        assert notes(caught.value) == []

    def test_async(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(mode="shadow"))
        down = Down(default=ConnectionError)

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await pipeline.acall(down)
            assert await pipeline.acall(Down()) == "fine"

        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            asyncio.run(main())
        assert (down.calls, clock.sleeps) == (1, [])
        assert [event.mode for event in recorder.of(RetryScheduled)] == [Mode.SHADOW]

    def test_off(self) -> None:
        pipeline = Pipeline(Retry(mode="off"))
        down = Down(default=ConnectionError)
        with Recorder(pipeline, events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            pipeline.call(down)
        assert (down.calls, recorder.events) == (1, [])
