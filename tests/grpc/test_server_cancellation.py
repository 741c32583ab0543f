"""Handlers of calls that their clients cancel: they learn of it as without the interceptor."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from resilience import remaining
from tests.grpc.inbound import PATIENCE, each_stream, service_of, serving
from tests.grpc.servers import hold

pytestmark = pytest.mark.slow
BIG = b"x" * 1_000_000
"""More than is sent ahead: the handler waits until its message is taken."""


class Handlers:
    """Streams without an end, which write down what ends them."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.left: list[Any] = []
        self.over = threading.Event()
        self.waiting = threading.Event()
        """Set where a handler waits for its end."""

    def _end(self, error: BaseException) -> None:
        self.left.append(remaining())
        self.ended.append(type(error).__name__)
        self.over.set()

    def sync(self, request: Any, context: Any) -> Any:
        self.waiting.set()
        try:
            while True:
                yield BIG
        except BaseException as error:
            self._end(error)
            raise

    def sync_in_a_step(self, request: Any, context: Any) -> Any:
        yield b"x"
        self.waiting.set()
        hold(context, PATIENCE)
        self._end(EOFError())

    async def aio(self, request: Any, context: Any) -> Any:
        self.waiting.set()
        try:
            while True:
                yield BIG
        except BaseException as error:
            self._end(error)
            raise

    async def aio_in_a_step(self, request: Any, context: Any) -> Any:
        yield b"x"
        await self.hang()

    async def writing(self, request: Any, context: Any) -> None:
        self.waiting.set()
        try:
            while True:
                await context.write(BIG)
        except BaseException as error:
            self._end(error)
            raise

    async def writing_in_a_step(self, request: Any, context: Any) -> None:
        await context.write(b"x")
        await self.hang()

    async def hang(self) -> None:
        """Wait until the task is cancelled."""
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            self._end(error)
            raise


@each_stream
@pytest.mark.parametrize(
    ("flavour", "handler", "errors"),
    [
        ("sync", "sync", "GeneratorExit"),
        ("sync", "sync_in_a_step", "EOFError"),
        ("aio", "aio", "GeneratorExit"),
        ("aio", "aio_in_a_step", "CancelledError"),
        ("aio", "writing", "CancelledError ExecuteBatchError"),
        ("aio", "writing_in_a_step", "CancelledError"),
    ],
)
@pytest.mark.parametrize("intercepted", [True, False], ids=["intercepted", "plain"])
def test_a_stream_ends_as_without_the_interceptor(
    arity: str, flavour: str, handler: str, errors: str, intercepted: bool
) -> None:
    handlers = Handlers()
    service = service_of({arity: getattr(handlers, handler)})
    with serving(flavour, services=[service], interceptors=None if intercepted else []) as served:
        call = served.start(arity, timeout=60.0)
        assert next(call)
        assert handlers.waiting.wait(PATIENCE)
        call.cancel()
        assert handlers.over.wait(PATIENCE)

    (error,) = handlers.ended
    assert error in errors.split()  # of grpc's own errors, either may come first
    assert handlers.left == [pytest.approx(60.0, abs=PATIENCE)] if intercepted else [None]


@pytest.mark.parametrize("arity", ["unary_unary", "stream_unary"])
@pytest.mark.parametrize("intercepted", [True, False], ids=["intercepted", "plain"])
def test_a_coroutine_is_cancelled(arity: str, intercepted: bool) -> None:
    handlers = Handlers()

    async def hang(request: Any, context: Any) -> None:
        await handlers.hang()

    with serving("aio", services=[service_of({arity: hang})], interceptors=None if intercepted else []) as served:
        call = served.start(arity)
        assert handlers.waiting.wait(PATIENCE)
        call.cancel()
        assert handlers.over.wait(PATIENCE)

    assert handlers.ended == ["CancelledError"]
