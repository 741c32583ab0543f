"""The attempts of both APIs: the metadata of each, the call of a response, and which attempt is the first."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from resilience import Retry
from resilience.grpc._call import RpcCall
from resilience.grpc._errors import AioResilienceRpcError, ChannelClosed, ResilienceRpcError
from resilience.grpc._guard import Guard
from resilience.grpc._outcomes import LocalResponse
from resilience.grpc._requests import UnaryRequest
from resilience.grpc._unary import UnaryAttempts
from resilience.grpc.aio._attempts import AioAttempts
from resilience.grpc.aio._outcomes import AioLocalResponse

CLOSED = ValueError("Cannot invoke RPC on closed channel!")


def details(metadata: Any) -> Any:
    return SimpleNamespace(
        method="/shop.Shop/Get",
        timeout=None,
        metadata=metadata,
        credentials=None,
        wait_for_ready=None,
        compression=None,
    )


def call_of(guard: Guard) -> RpcCall:
    return guard.call(RpcCall, guard.options("/shop.Shop/Get"), None, lambda call: None, UnaryRequest(b"x"))


class Plain:
    """Attempts of the synchronous API, which wait for the end of each when they are called."""

    def __init__(self, continuation: Callable[[Any, Any], Any], metadata: Any = None) -> None:
        self._guard = Guard(Retry(), None, ResilienceRpcError)
        self._attempts = UnaryAttempts(self._guard, continuation, details(metadata), UnaryRequest(b"x"))
        self.call_of = self._attempts.call_of

    def __call__(self) -> Any:
        return self._attempts.attempt(call_of(self._guard))


class Awaited:
    """Attempts of `grpc.aio`, which wait for the end of each when they are called."""

    def __init__(self, continuation: Callable[[Any, Any], Any], metadata: Any = None) -> None:
        async def start(given: Any, request: Any) -> Any:
            return continuation(given, request)

        self._guard = Guard(Retry(), None, AioResilienceRpcError)
        self._attempts = AioAttempts(self._guard, start, details(metadata), UnaryRequest(b"x"))
        self.call_of = self._attempts.call_of

    def __call__(self) -> Any:
        return asyncio.run(self._attempts.response(call_of(self._guard)))


both = pytest.mark.parametrize(("make", "call"), [(Plain, LocalResponse), (Awaited, AioLocalResponse)])


@both
def test_the_call_of_a_response_is_that_of_the_last_attempt_that_received_it(make: Any, call: Any) -> None:
    made: list[Any] = []

    def start(given: Any, request: Any) -> Any:
        made.append(call(None if len(made) < 2 else b"other"))
        return made[-1]

    attempts = make(start)
    assert [attempts(), attempts(), attempts()] == [None, None, b"other"]

    assert attempts.call_of(None) is made[1]


@both
def test_a_response_that_no_attempt_received_has_a_call_of_its_own(make: Any, call: Any) -> None:
    equal = bytearray(b"yes"), bytearray(b"yes")
    attempts = make(lambda given, request: call(equal[0]))
    attempts()

    assert type(attempts.call_of(equal[1])) is call
    assert attempts.call_of(equal[0]) is not attempts.call_of(equal[1])


@both
@pytest.mark.parametrize("metadata", [None, [], [("x-a", "1")]])
def test_each_attempt_has_all_of_the_metadata_also_of_an_iterator(make: Any, call: Any, metadata: Any) -> None:
    found: list[Any] = []

    def start(given: Any, request: Any) -> Any:
        found.append(given.metadata)
        return call(request)

    attempts = make(start, None if metadata is None else iter(metadata))
    attempts()
    attempts()

    assert [list(one or ()) for one in found] == [metadata or []] * 2


@pytest.mark.parametrize("metadata", [[], [("x-a", "1")]])
def test_a_list_of_metadata_is_a_list_of_its_own_in_each_attempt(metadata: list[Any]) -> None:
    def start(given: Any, request: Any) -> Any:
        assert given.metadata == metadata
        given.metadata.append(("x-b", "2"))
        return LocalResponse(request)

    attempts = Plain(start, metadata)

    assert attempts() == attempts() == b"x"


@both
def test_a_channel_that_is_closed_is_a_rejection_from_the_second_attempt_on(make: Any, call: Any) -> None:
    def start(given: Any, request: Any) -> Any:
        raise CLOSED

    attempts = make(start)

    with pytest.raises(ValueError, match="closed channel"):
        attempts()
    with pytest.raises(ChannelClosed):
        attempts()
