"""Marks on what a Retry has given up on: retries at several levels do not multiply, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from resilience import Allowlist, Pipeline, Retry, backoff, carry
from resilience._call.ambient import NOTHING, Ambient, ambient
from resilience._call.retry_marks import Mark
from resilience._util.clock import FOREVER
from tests.support.functions import Failing
from tests.support.loops import Run, each_loop

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
        books.append(ambient.get())

    async def main() -> None:
        gone = asyncio.Event()

        async def start() -> Any:
            return asyncio.create_task(background(gone))

        task = await pipeline.acall(start)
        gone.set()
        await task

    asyncio.run(main())

    assert books[0] is not NOTHING
    assert (list(books[0].around()), books[0].given_up) == ([], None)


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


def _give_up() -> None:
    Pipeline(Retry(2, wait=NOW)).call(_fail)


def failure_of_a_worker(earlier: int) -> bytes:
    """Return the failure of another process, as a pool pickles it: a Retry there has given up, for the last time."""
    for _ in range(earlier):
        with pytest.raises(ConnectionError):
            _give_up()
    with pytest.raises(ConnectionError) as caught:
        _give_up()
    return pickle.dumps(caught.value)


@pytest.mark.parametrize("earlier", [0, 5])
@pytest.mark.parametrize("earlier_here", [0, 5])
def test_a_mark_that_comes_from_another_process_is_honoured(earlier: int, earlier_here: int) -> None:
    from_a_worker = failure_of_a_worker(earlier)
    for _ in range(earlier_here):
        with pytest.raises(ConnectionError):
            _give_up()
    made: list[int] = []

    def result() -> None:
        made.append(1)
        raise pickle.loads(from_a_worker)

    with pytest.raises(ConnectionError):
        Pipeline(Retry(3, wait=NOW)).call(result)

    assert len(made) == 1


class Connection:
    """A connection that many callers share. It is broken: all get the same exception object."""

    def __init__(self) -> None:
        self.error = ConnectionError("broken")

    def ask(self) -> None:
        raise self.error


@pytest.mark.parametrize("layers", [1, 2])
def test_callers_that_share_one_exception_object_keep_their_retries(layers: int) -> None:
    connection = Connection()
    attempts: list[int] = []
    entered = threading.Barrier(3, timeout=60)

    def call(depth: int, made: list[int]) -> None:
        if depth == 0:
            made.append(1)
            entered.wait()
            connection.ask()
        Pipeline(Retry(3, wait=NOW)).call(call, depth - 1, made)

    def caller(_: int) -> int:
        made: list[int] = []
        with pytest.raises(ConnectionError):
            call(layers, made)
        return len(made)

    with ThreadPoolExecutor(3) as pool:
        attempts += pool.map(caller, range(3))

    assert attempts == [3, 3, 3]


@each_loop
def test_so_do_tasks(run: Run) -> None:
    connection = Connection()
    attempts: list[int] = []

    async def caller() -> None:
        made: list[int] = []

        async def ask() -> None:
            made.append(1)
            await anyio.sleep(0.01)
            connection.ask()

        with pytest.raises(ConnectionError):
            await Pipeline(Retry(3, wait=NOW)).acall(ask)
        attempts.append(len(made))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(caller)

    run(main)

    assert attempts == [3, 3, 3]


def test_callers_one_after_another_keep_their_retries_too() -> None:
    connection = Connection()
    made: list[int] = []

    def ask() -> None:
        made.append(1)
        connection.ask()

    for _ in range(3):
        with pytest.raises(ConnectionError):
            Pipeline(Retry(3, wait=NOW)).call(ask)

    assert len(made) == 9


def test_a_thread_of_a_pool_is_inside_of_the_attempt_that_carry_was_called_in() -> None:
    made: list[int] = []

    def ask() -> None:
        made.append(1)
        raise ConnectionError

    def inner() -> None:
        Pipeline(Retry(3, wait=NOW)).call(ask)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(inner).exception()  # the thread has a context of its own by now
        made.clear()
        with pytest.raises(ConnectionError):
            Pipeline(Retry(3, wait=NOW)).call(lambda: pool.submit(carry(inner)).result())
        assert len(made) == 3

        made.clear()
        assert pool.submit(inner).exception() is not None
        assert len(made) == 3


def test_what_a_background_task_of_an_earlier_attempt_has_given_up_on_is_retried() -> None:
    shared = ConnectionError("shared")
    made: list[int] = []

    def fails() -> None:
        raise shared

    def give_up() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(Retry(2, wait=NOW)).call(fails)

    def attempt() -> None:
        made.append(1)
        if len(made) == 1:
            context.run(give_up)
            raise ConnectionError("another one")
        raise shared

    context = contextvars.copy_context()

    def outer() -> None:
        nonlocal context
        context = contextvars.copy_context()
        attempt()

    with pytest.raises(ConnectionError, match="shared"):
        Pipeline(Retry(3, wait=NOW)).call(outer)

    assert len(made) == 3


def attempt() -> Ambient:
    return Ambient.make(FOREVER, None)


class TestMark:
    def test_it_names_the_attempts_that_it_was_set_inside_of(self) -> None:
        own, outer, other = attempt(), attempt(), attempt()
        mark = Mark()

        mark.add(own, [outer])

        assert mark.names(own)
        assert mark.names(outer)
        assert not mark.names(other)

    def test_it_forgets_attempts_that_are_over(self) -> None:
        over, running, latest = attempt(), attempt(), attempt()
        mark = Mark()
        mark.add(over, [running])
        over.live = False

        mark.add(latest, ())

        assert mark._attempts == {running: None, latest: None}

    def test_a_copy_is_the_same_and_a_pickled_one_names_all(self) -> None:
        mark = Mark()

        assert copy.deepcopy(mark) is mark
        assert pickle.loads(pickle.dumps(mark)).names(attempt())
