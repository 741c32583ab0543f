"""How a stream is stepped through and closed, without a server: by other interceptors, and by the garbage collector."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitOpenError, remaining
from resilience.testing import virtual_time


class Aborted(Exception):
    """Raised by a context."""


class Context:
    """The context of a call that has 5 s left."""

    def __init__(self) -> None:
        self.aborted: list[Any] = []

    def time_remaining(self) -> float:
        return 5.0

    def code(self) -> None: ...

    def trailing_metadata(self) -> None: ...

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.aborted.append(metadata)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted += [code, details]
        raise Aborted


class Details:
    """What a server knows of a call before it has found a handler."""

    method = "/x.X/stream"
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


def intercepted(behavior: Callable[..., Any]) -> Callable[..., Any]:
    """The behavior of a stream, as a synchronous server would call it."""
    handler: Any = grpc.unary_stream_rpc_method_handler(behavior)
    made: Any = resilience.grpc.server_interceptor().intercept_service(lambda _: handler, Details())
    stream: Callable[..., Any] = made.unary_stream
    return stream


async def aio_intercepted(behavior: Callable[..., Any]) -> Callable[..., Any]:
    """The behavior of a stream, as a server of grpc.aio would call it."""

    async def find(_: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(behavior)

    interceptor: Any = resilience.grpc.aio_server_interceptor()
    stream: Callable[..., Any] = (await interceptor.intercept_service(find, Details())).unary_stream
    return stream


class Stream:
    """Handlers that write down what is left in each step, and how they were closed."""

    def __init__(self) -> None:
        self.left: list[Any] = []
        self.inherited = contextvars.Context()

    def sync(self, request: Any, context: Any) -> Iterator[int]:
        self.inherited = contextvars.copy_context()
        try:
            for number in range(3):
                self.left.append(remaining())
                yield number
        finally:
            self.left.append(("closed", remaining()))

    async def aio(self, request: Any, context: Any) -> AsyncIterator[int]:
        self.inherited = contextvars.copy_context()
        try:
            for number in range(3):
                self.left.append(remaining())
                yield number
        finally:
            await asyncio.sleep(0)
            self.left.append(("closed", remaining()))


def test_each_step_may_run_in_another_context() -> None:
    stream = Stream()
    with virtual_time():
        responses = intercepted(stream.sync)(b"", Context())
        assert [contextvars.Context().run(next, responses) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(StopIteration):
            contextvars.Context().run(next, responses)

    assert stream.left == [5.0] * 3 + [("closed", 5.0)]
    assert stream.inherited.run(remaining) is None


def test_nothing_holds_between_steps() -> None:
    with virtual_time():
        between = [remaining() for _ in intercepted(Stream().sync)(b"", Context())]

    assert between == [None] * 3


@pytest.mark.parametrize("close", [lambda responses: responses.close(), lambda responses: None], ids=["closed", "lost"])
def test_a_generator_is_closed_with_the_stream(close: Callable[[Any], None]) -> None:
    stream = Stream()
    with virtual_time():
        responses = intercepted(stream.sync)(b"", Context())
        assert next(responses) == 0
        assert stream.inherited.run(remaining) == 5.0
        close(responses)
        del responses

    assert stream.left == [5.0, ("closed", 5.0)]
    assert stream.inherited.run(remaining) is None


def test_a_generator_that_fails_to_close_ends_the_call() -> None:
    inherited: list[contextvars.Context] = []

    def handle(request: Any, context: Any) -> Iterator[int]:
        inherited.append(contextvars.copy_context())
        try:
            yield 0
        finally:
            raise ValueError("cannot be closed")

    with virtual_time():
        responses = intercepted(handle)(b"", Context())
        assert next(responses) == 0
        with pytest.raises(ValueError, match="cannot be closed"):
            responses.close()
        assert inherited[0].run(remaining) is None


class Numbers:
    """An iterator as grpc takes it: without an `__iter__`."""

    def __init__(self) -> None:
        self.left: list[Any] = []

    def __next__(self) -> int:
        self.left.append(remaining())
        if len(self.left) > 2:
            raise StopIteration
        return len(self.left)

    def close(self) -> None:
        raise AssertionError("grpc does not close iterators")


def test_an_iterator_is_enough() -> None:
    numbers = Numbers()
    with virtual_time():
        assert list(intercepted(lambda request, context: numbers)(b"", Context())) == [1, 2]

    assert numbers.left == [5.0] * 3


def test_an_iterator_is_not_closed() -> None:
    responses = intercepted(lambda request, context: Numbers())(b"", Context())
    assert next(responses) == 1
    responses.close()


def test_interceptors_outside_see_why_a_call_was_aborted() -> None:
    def handle(request: Any, context: Any) -> Iterator[int]:
        yield 0
        raise CircuitOpenError("open")

    context = Context()
    responses = intercepted(handle)(b"", context)
    assert next(responses) == 0
    with pytest.raises(Aborted) as caught:
        next(responses)

    assert isinstance(caught.value.__context__, CircuitOpenError)
    pushback = (("grpc-retry-pushback-ms", "-1"),)
    details = "a dependency of this service is unavailable"
    assert context.aborted == [pushback, grpc.StatusCode.UNAVAILABLE, details]


def test_an_async_generator_is_closed_with_the_stream() -> None:
    stream = Stream()

    async def main() -> None:
        responses = (await aio_intercepted(stream.aio))(b"", Context())
        assert await anext(responses) == 0
        assert remaining() is None
        assert stream.inherited.run(remaining) == 5.0
        await asyncio.create_task(responses.aclose())

    with virtual_time():
        asyncio.run(main())

    assert stream.left == [5.0, ("closed", 5.0)]
    assert stream.inherited.run(remaining) is None


def test_an_async_generator_that_is_lost_is_closed_by_the_loop() -> None:
    stream = Stream()
    closed: list[Any] = []

    async def main() -> None:
        responses = (await aio_intercepted(stream.aio))(b"", Context())
        assert await anext(responses) == 0
        del responses
        for _ in range(10):
            await asyncio.sleep(0)
        closed.extend(stream.left)

    with virtual_time():
        asyncio.run(main())

    assert closed == [5.0, ("closed", 5.0)]
    assert stream.inherited.run(remaining) is None
