"""Marks on what a Retry has given up on: retries at several levels do not multiply, and nothing is kept."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from resilience import Allowlist, Pipeline, Retry, backoff
from resilience._call.retry_marks import MARK, given_up_results
from tests.support.functions import Failing

NOW = backoff.none()


def test_what_a_task_that_outlives_the_call_gives_up_on_is_not_kept() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")
    pipeline = Pipeline(Retry(2, wait=NOW), failures=bad)
    inner = Pipeline(Retry(2, wait=NOW, budget=None), failures=bad)
    books: list[Any] = []

    async def returns_bad() -> str:
        return "bad"

    async def background(gone: asyncio.Event) -> None:
        await gone.wait()
        for _ in range(100):
            await inner.acall(returns_bad)
        books.append(given_up_results.get())

    async def main() -> None:
        gone = asyncio.Event()

        async def start() -> Any:
            return asyncio.create_task(background(gone))

        task = await pipeline.acall(start)
        gone.set()
        await task

    asyncio.run(main())

    assert books[0] is not None
    assert len(books[0].values) == 0


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
    dependency = Failing(error=kind)
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


def _fail() -> None:
    raise ConnectionError


def test_a_mark_that_comes_from_another_process_is_honoured() -> None:
    with pytest.raises(ConnectionError) as caught:
        Pipeline(Retry(2, wait=NOW)).call(_fail)
    caught.value.__dict__[MARK] += 1000  # as if the other process had drawn many numbers
    from_a_worker = pickle.dumps(caught.value)
    made: list[int] = []

    def result() -> None:
        made.append(1)
        raise pickle.loads(from_a_worker)

    with pytest.raises(ConnectionError):
        Pipeline(Retry(3, wait=NOW)).call(result)

    assert len(made) == 1
