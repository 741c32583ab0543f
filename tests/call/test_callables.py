"""Functions that are refused because nothing could be guarded, and what is taken for an awaitable."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff
from tests.support.policies import Stale

NOW = backoff.none()


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


def test_generator_functions_are_refused_by_call_and_acall() -> None:
    pipeline = Pipeline(Retry())

    with pytest.raises(TypeError, match="Decorate the generator function itself"):
        pipeline.call(numbers)
    for function in (numbers, later_numbers):
        with pytest.raises(TypeError, match="Decorate the generator function itself"):
            anyio.run(functools.partial(pipeline.acall, function))


@contextlib.contextmanager
def session() -> Generator[str]:
    raise ConnectionError("down")
    yield "session"


@contextlib.asynccontextmanager
async def later_session() -> AsyncGenerator[str]:
    raise ConnectionError("down")
    yield "session"


RETURNED = [
    (lambda: numbers(), "returned a generator"),
    (lambda: (number for number in (1, 2)), "returned a generator"),
    (lambda: later_numbers(), "returned a generator"),
    (session, "returned a context manager.*gate.calling"),
    (later_session, "returned a context manager.*gate.calling"),
]


@pytest.mark.filterwarnings("ignore:there are two pipelines named")
@pytest.mark.parametrize(("function", "words"), RETURNED)
@pytest.mark.parametrize("timeout", [(), (Timeout(5),)])
def test_what_has_not_run_when_it_is_returned_is_refused_and_no_success(
    function: Callable[[], Any], words: str, timeout: tuple[Timeout, ...]
) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(Retry(3, wait=backoff.none()), breaker, *timeout)
    decorated: Any = pipeline(function)

    for call in (decorated, lambda: pipeline.call(function), lambda: anyio.run(pipeline.acall, function)):
        with pytest.raises(TypeError, match=words):
            call()

    assert breaker.snapshot()["calls"] == 0


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
        lambda: pipeline.call(SecretGenerator()),
    ]

    for call in wrong:
        with pytest.raises(TypeError) as caught:
            call()
        assert "hunter2" not in str(caught.value)
