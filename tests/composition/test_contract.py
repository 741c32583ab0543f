"""Regressions: sentences of the contract that once did not hold."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest

from resilience import (
    Allowlist,
    Call,
    DeadlineExceededError,
    Ending,
    Failure,
    FailureKind,
    Gate,
    Pipeline,
    Retry,
    RetryBudget,
    Substitute,
    backoff,
    pipelines,
    subscribe,
)
from resilience._util.log_once import forget
from resilience.events import CallEnded
from resilience.testing import Recorder, VirtualClock

NOW = backoff.none()


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


class Counted:
    """A dependency that fails, and counts."""

    def __init__(self, error: Callable[[], Exception] = lambda: ConnectionError("down")) -> None:
        self.calls = 0
        self.error = error

    def __call__(self) -> str:
        self.calls += 1
        raise self.error()


class Proxy:
    """Answers to every name, as proxies of remote objects do, and notes which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return lambda *_: None


def test_an_object_that_answers_to_every_name_is_no_awaitable() -> None:
    proxy = Proxy()

    assert Pipeline(Retry()).call(lambda: proxy) is proxy
    assert anyio.run(functools.partial(Pipeline(Retry()).acall, lambda: proxy)) is proxy
    assert "close" not in proxy.asked


class TooLateForTheSecond(Gate[None]):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def admit(self, call: Call) -> None:
        self.asked += 1
        if self.asked > 1:
            raise DeadlineExceededError("the deadline passed in the queue", unprocessed=True)


def test_a_deadline_before_the_second_attempt_does_not_hide_the_failure_of_the_first() -> None:
    with pytest.raises(ConnectionError) as caught:
        Pipeline(Retry(wait=NOW), TooLateForTheSecond()).call(Counted())

    assert caught.value.__notes__ == ["resilience: attempt 2 not made: deadline passed"]


class Falsy(ConnectionError):
    def __len__(self) -> int:
        return 0


class Answers(ConnectionError):
    """An exception that answers to every name."""

    def __getattr__(self, name: str) -> int:
        return 42


class Raises(ConnectionError):
    """An exception that fails when it is asked for anything."""

    def __getattr__(self, name: str) -> int:
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", [Falsy, Answers, Raises])
@pytest.mark.parametrize("wrapped", [False, True])
def test_odd_exceptions_do_not_multiply_retries(kind: type[Exception], wrapped: bool) -> None:
    dependency = Counted(kind)
    layers: list[Pipeline[Any]] = [Pipeline(Retry(3, wait=NOW)) for _ in range(3)]

    def call(depth: int) -> str:
        if depth == 3:
            return dependency()
        try:
            return layers[depth].call(call, depth + 1)
        except ConnectionError as error:
            if wrapped:
                raise ConnectionError("wrapped") from error
            raise

    with pytest.raises(ConnectionError):
        call(0)

    assert dependency.calls == 3


class Stale(Substitute[str]):
    def replace(self, call: Call, ending: Ending) -> str:
        return "stale"


def test_misuse_is_nobodys_failure() -> None:
    made: list[int] = []

    async def coroutine() -> None: ...

    def forgets_to_await() -> Awaitable[None]:
        made.append(1)
        return coroutine()

    pipeline = Pipeline(Stale(), Retry(3, wait=NOW), failures=Exception)
    with pytest.raises(TypeError, match="acall"):
        pipeline.call(forgets_to_await)

    assert made == [1]


def numbers() -> Generator[int]:
    yield 1


async def later_numbers() -> AsyncGenerator[int]:
    yield 1


def test_generator_functions_are_refused_by_every_way_to_call() -> None:
    pipeline = Pipeline(Retry())

    with pytest.raises(TypeError, match="Decorate the function that fetches"):
        pipeline.call(numbers)
    for function in (numbers, later_numbers):
        with pytest.raises(TypeError, match="Decorate the function that fetches"):
            anyio.run(functools.partial(pipeline.acall, function))
    with pytest.raises(TypeError, match="Decorate the function that fetches"):
        pipeline(numbers)


def test_a_generator_that_is_a_value_is_a_value() -> None:
    assert list(Pipeline(Retry()).call(lambda: (n for n in (1, 2)))) == [1, 2]


class Secret:
    def __repr__(self) -> str:
        return "Secret(password='hunter2')"

    async def coroutine(self) -> None: ...

    def __call__(self) -> Any:
        return self.coroutine()


class SecretGenerator(Secret):
    def __call__(self) -> Generator[int]:
        yield 1


async def takes(_: str) -> None: ...


def test_messages_hold_no_arguments() -> None:
    pipeline = Pipeline(Retry())
    wrong: list[Callable[[], object]] = [
        lambda: pipeline.call(functools.partial(takes, "hunter2")),
        lambda: pipeline.call(Secret()),
        lambda: pipeline(SecretGenerator()),
    ]

    for call in wrong:
        with pytest.raises(TypeError) as caught:
            call()
        assert "hunter2" not in str(caught.value)


def test_the_log_of_a_broken_predicate_does_not_show_what_it_was_asked_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(error: Exception) -> bool:
        raise ZeroDivisionError("a bug in a hook")

    def secretive() -> None:
        raise ValueError("token=hunter2")

    with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(ValueError, match="hunter2"):
        Pipeline(Retry(), failures=Allowlist(when=broken)).call(secretive)

    assert "a bug in a hook" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_inner_pipeline_tells_of_its_own_attempts() -> None:
    inner = Pipeline(Retry(1))
    outer = Pipeline(Retry(2, wait=NOW), inner)

    with Recorder(inner) as within, Recorder(outer) as without, pytest.raises(ConnectionError):
        outer.call(Counted())

    assert [event.attempts for event in within.of(CallEnded)] == [1, 1]
    assert [event.attempts for event in without.of(CallEnded)] == [2]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"kind": "bogus"}, ValueError),
        ({"kind": None}, TypeError),
        ({"unprocessed": "yes"}, TypeError),
        ({"retryable": 1}, TypeError),
        ({"counted": None}, TypeError),
    ],
)
def test_a_failure_is_checked(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        Failure(**wrong)


def test_a_hint_of_true_is_garbage() -> None:
    assert Failure(FailureKind.OVERLOAD, True).retry_after is None


def test_one_success_pays_a_budget_once() -> None:
    budget = RetryBudget(0.2, initial=0)
    inner = Pipeline(Retry(), budget=budget)

    Pipeline(Retry(), Retry(), inner, budget=budget).call(lambda: "fine")

    assert budget.tokens == pytest.approx(0.2)


class CardDeclined(Exception):
    pass


def test_an_answer_by_the_own_list_of_a_retry_pays() -> None:
    budget = RetryBudget(0.2, initial=0)
    pipeline = Pipeline(Retry(on=Allowlist(ConnectionError, answers=(CardDeclined,))), budget=budget)

    with pytest.raises(CardDeclined):
        pipeline.call(Counted(CardDeclined))

    assert budget.tokens == pytest.approx(0.2)


def test_an_update_takes_what_the_constructor_takes() -> None:
    retry = Retry(5, wait=NOW)

    retry.update(attempts=None, wait=None)

    assert retry.settings == Retry().settings


class Picky(Retry):
    ready = False

    def _settings_changed(self) -> None:
        if self.ready:
            raise RuntimeError("not now")
        super()._settings_changed()


def test_a_failed_update_changes_nothing_also_when_a_hook_fails() -> None:
    retry = Picky(2)
    retry.ready = True
    before = retry.settings

    with pytest.raises(RuntimeError):
        retry.update(attempts=7, mode="off")

    assert (retry.settings, retry.mode) == (before, "enforce")


def test_a_mapping_may_leave_kinds_out(virtual_time: VirtualClock) -> None:
    pipeline = Pipeline(Retry(2, wait={FailureKind.TIMEOUT: backoff.fixed(7)}))

    with pytest.raises(TimeoutError):
        pipeline.call(Counted(TimeoutError))
    with pytest.raises(ConnectionError):
        pipeline.call(Counted())

    assert virtual_time.sleeps[0] == 7
    assert virtual_time.sleeps[1] <= 0.1


@pytest.mark.filterwarnings("ignore:there are two pipelines named 'outlived'")
def test_an_older_pipeline_of_the_same_name_outlives_the_newer() -> None:
    older = Pipeline(Retry(), name="outlived")
    newer = Pipeline(Retry(), name="outlived")
    assert pipelines()["outlived"] is newer

    del newer

    assert pipelines()["outlived"] is older


def test_one_object_in_two_places_has_two_names() -> None:
    retry = Retry()

    described = Pipeline(retry, retry).describe()["policies"]

    assert [one["name"] for one in described] == ["retry", "retry_2"]


class AsyncListener:
    async def __call__(self, event: Any) -> None: ...


def test_a_subscription_is_checked() -> None:
    wrong: list[dict[str, Any]] = [
        {"listener": AsyncListener()},
        {"listener": print, "when": 42},
        {"listener": print, "events": CallEnded},
    ]
    for arguments in wrong:
        with pytest.raises(TypeError, match="must be"):
            subscribe(**arguments)


def test_a_recorder_is_checked() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="pipeline must be"):
        Recorder(wrong)
