"""Server interceptors on real servers: each kind of handler, with methods of all four kinds."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from resilience import (
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    backoff,
    deadline_after,
    remaining,
)
from resilience._call.ambient import NOTHING, ambient
from tests.grpc.inbound import (
    PATIENCE,
    PUSHBACK,
    Code,
    Result,
    Served,
    each_arity,
    each_flavour,
    each_stream,
    service_of,
    serving,
)
from tests.support.functions import Failing
from tests.support.timing import at_most

pytestmark = pytest.mark.slow
COUNT = "x-envoy-attempt-count"
PREVIOUS = "grpc-previous-rpc-attempts"
REJECTED = "a dependency of this service is unavailable"
PASSED = "the deadline of this call has passed"


def count_to(responses: int, step: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
    """A step of a stream that ends after so many responses."""
    return lambda number, context: None if number == responses else step(number, context)


@each_flavour
@each_arity
class TestDeadline:
    def test_it_is_ambient_in_each_step(self, flavour: str, arity: str) -> None:
        seen: list[Any] = []

        def step(number: int, context: Any) -> bytes:
            seen.append(remaining())
            return b"x"

        with serving(flavour, count_to(3, step)) as served:
            assert served.call(arity, timeout=4.0).code is Code.OK

        assert len(seen) == (3 if arity.endswith("_stream") else 1)
        assert seen == sorted(seen, reverse=True)
        assert all(0.0 < left <= at_most(4.0) for left in seen)

    def test_a_call_without_one_has_none(self, flavour: str, arity: str) -> None:
        seen: list[Any] = []

        def step(number: int, context: Any) -> bytes:
            seen.append(remaining())
            return b"x"

        with serving(flavour, count_to(2, step), min_remaining=60.0) as served:
            assert served.call(arity).code is Code.OK

        assert seen == [None] * len(seen) != []

    def test_guarded_calls_obey_it(self, flavour: str, arity: str) -> None:
        down = Failing()
        patient = Pipeline[Any](Retry(3, wait=backoff.fixed(PATIENCE)))

        def step(number: int, context: Any) -> bytes:
            with pytest.raises(ConnectionError) as caught:
                patient.call(down)
            return "".join(caught.value.__notes__).encode()

        with serving(flavour, count_to(1, step)) as served:
            result = served.call(arity, timeout=PATIENCE * 0.9)

        assert (result.code, down.calls) == (Code.OK, 1)
        assert b"deadline" in result.messages[0]

    def test_with_too_little_left_the_handler_is_not_called(self, flavour: str, arity: str) -> None:
        called: list[int] = []

        def step(number: int, context: Any) -> bytes:
            called.append(number)
            return b"x"

        with serving(flavour, count_to(1, step), min_remaining=30.0) as served:
            refused = served.call(arity, timeout=20.0)
            assert called == []
            assert served.call(arity, timeout=40.0).code is Code.OK

        assert refused.messages == []
        assert (refused.code, refused.details) == (Code.DEADLINE_EXCEEDED, "too little time is left for this call")
        assert refused.trailing == [(PUSHBACK, "-1")]

    def test_it_is_void_in_what_the_handler_leaves_behind(self, flavour: str, arity: str) -> None:
        left: list[contextvars.Context] = []
        seen: list[Any] = []
        ended = threading.Event()

        def behind() -> None:
            if not ended.wait(PATIENCE):
                raise AssertionError("the call has not ended")
            seen.append(left[0].run(remaining))

        thread = threading.Thread(target=behind)

        def step(number: int, context: Any) -> bytes:
            left.append(contextvars.copy_context())
            seen.append(left[0].run(remaining))
            thread.start()
            return b"x"

        with serving(flavour, count_to(1, step)) as served:
            assert served.call(arity, timeout=20.0).code is Code.OK
            ended.set()
            thread.join(PATIENCE)

        assert seen == [pytest.approx(20.0, abs=PATIENCE), None]

    def test_nothing_stays_in_the_threads_of_the_server(self, flavour: str, arity: str) -> None:
        inside: list[bool] = []

        def step(number: int, context: Any) -> bytes:
            inside.append(ambient.get() is not NOTHING)
            if number == 1:
                raise CircuitOpenError("open")
            return b"x"

        with serving(flavour, step, workers=1) as served:
            for _ in range(3):
                served.call(arity, timeout=20.0)
            assert served.pool.submit(ambient.get).result(PATIENCE) is NOTHING

        assert inside == [True] * len(inside) != []


@each_flavour
@each_arity
class TestAttempts:
    @pytest.mark.parametrize(
        ("trust", "metadata", "attempts"),
        [
            (True, [(COUNT, "2")], 1),
            (True, [(COUNT, "1")], 3),
            (True, [(COUNT, "2"), (COUNT, "2")], 3),
            (True, [(COUNT, "many")], 3),
            (False, [(COUNT, "2")], 3),
        ],
        ids=["a retry", "a first attempt", "twice", "absurd", "no trust"],
    )
    def test_a_retried_call_is_not_retried(
        self, flavour: str, arity: str, trust: bool, metadata: Any, attempts: int
    ) -> None:
        down = Failing()
        retrying = Pipeline[Any](Retry(3, wait=backoff.none()))

        def step(number: int, context: Any) -> bytes:
            with pytest.raises(ConnectionError):
                retrying.call(down)
            return b"x"

        with serving(flavour, count_to(1, step), trust=trust) as served:
            assert served.call(arity, metadata=metadata).code is Code.OK

        assert down.calls == attempts


def raising(error: Callable[[], Exception], after: int = 0) -> Callable[[int, Any], Any]:
    """A step that raises once there are so many responses."""

    def step(number: int, context: Any) -> bytes:
        if number == after:
            raise error()
        return b"x"

    return step


def group(*errors: Exception) -> Exception:
    return ExceptionGroup("s3cret", errors)


@each_flavour
@each_arity
class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code", "details"),
        [
            (lambda: CircuitOpenError("s3cret"), Code.UNAVAILABLE, REJECTED),
            (lambda: DeadlineExceededError("s3cret"), Code.DEADLINE_EXCEEDED, PASSED),
            (lambda: group(RejectedError(), group(CircuitOpenError())), Code.UNAVAILABLE, REJECTED),
            (lambda: group(RejectedError(), DeadlineExceededError()), Code.DEADLINE_EXCEEDED, PASSED),
        ],
        ids=["rejected", "deadline", "group of rejections", "group with a deadline"],
    )
    def test_those_of_the_library_have_a_status(
        self, flavour: str, arity: str, error: Any, code: Code, details: str
    ) -> None:
        with serving(flavour, raising(error)) as served:
            assert served.call(arity) == Result([], code, details, [(PUSHBACK, "-1")])

    @pytest.mark.parametrize(
        "error",
        [
            lambda: ValueError("the answer is 42"),
            lambda: TimeoutError("late"),
            lambda: group(RejectedError(), ValueError("other")),
        ],
        ids=["ValueError", "TimeoutError", "mixed group"],
    )
    def test_others_are_raised_on(self, flavour: str, arity: str, error: Any) -> None:
        with serving(flavour, raising(error), interceptors=[]) as served:
            plain = served.call(arity)
        with serving(flavour, raising(error)) as served:
            assert served.call(arity) == plain

        assert plain.code is Code.UNKNOWN

    def test_metadata_of_the_handler_is_kept(self, flavour: str, arity: str) -> None:
        def step(number: int, context: Any) -> Any:
            context.set_trailing_metadata((("a", "1"), ("a", "2"), ("b-bin", b"\x00")))
            raise CircuitOpenError("open")

        with serving(flavour, step) as served:
            result = served.call(arity)

        assert result.code is Code.UNAVAILABLE
        assert sorted(result.trailing) == [("a", "1"), ("a", "2"), ("b-bin", b"\x00"), (PUSHBACK, "-1")]

    def test_a_pushback_of_the_handler_is_kept(self, flavour: str, arity: str) -> None:
        def step(number: int, context: Any) -> Any:
            context.set_trailing_metadata(((PUSHBACK, "500"),))
            raise CircuitOpenError("open")

        with serving(flavour, step) as served:
            assert served.call(arity) == Result([], Code.UNAVAILABLE, REJECTED, [(PUSHBACK, "500")])

    def test_a_code_of_the_handler_is_kept(self, flavour: str, arity: str) -> None:
        def step(number: int, context: Any) -> Any:
            context.set_code(Code.NOT_FOUND)
            raise CircuitOpenError("open")

        with serving(flavour, step) as served:
            result = served.call(arity)

        assert (result.code, result.trailing) == (Code.NOT_FOUND, [])


@each_flavour
@each_stream
def test_a_stream_ends_with_the_status_after_some_messages(flavour: str, arity: str) -> None:
    with serving(flavour, raising(lambda: CircuitOpenError("s3cret"), after=2)) as served:
        assert served.call(arity) == Result([b"x", b"x"], Code.UNAVAILABLE, REJECTED, [(PUSHBACK, "-1")])


@each_flavour
@each_stream
def test_a_block_around_messages_of_a_stream_holds_in_all_of_them(flavour: str, arity: str) -> None:
    seen: list[Any] = []
    block = deadline_after(5.0)

    def step(number: int, context: Any) -> bytes:
        if number == 1:
            block.__enter__()
        if number == 3:
            block.__exit__(None, None, None)
        seen.append(remaining())
        return b"x"

    with serving(flavour, count_to(4, step)) as served:
        assert served.call(arity, timeout=60.0).code is Code.OK

    assert [left <= 5.0 for left in seen] == [False, True, True, False]


@each_flavour
@each_arity
def test_concurrent_calls_do_not_see_one_another(flavour: str, arity: str) -> None:
    seen: dict[str, list[Any]] = {}
    both = threading.Barrier(2)

    def step(number: int, context: Any) -> bytes:
        (name,) = [value for key, value in context.invocation_metadata() if key == "name"]
        if flavour in ("sync", "aio-sync"):
            both.wait(PATIENCE)
        seen.setdefault(name, []).append(remaining())
        return b"x"

    def make(served: Served, name: str, timeout: float | None) -> None:
        result = served.call(arity, timeout=timeout, metadata=[("name", name)])
        assert result.code is Code.OK

    with serving(flavour, count_to(5, step)) as served:
        threads = [
            threading.Thread(target=make, args=(served, name, timeout))
            for name, timeout in [("short", 20.0), ("none", None)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(seen["short"]) == len(seen["none"]) == (5 if arity.endswith("_stream") else 1)
    assert set(seen["none"]) == {None}
    assert all(0.0 < left <= at_most(20.0) for left in seen["short"])


@each_flavour
def test_an_unknown_method_stays_unimplemented(flavour: str) -> None:
    with serving(flavour, raising(ValueError), trust=True, min_remaining=1.0) as served:
        result = served.call("unary_unary", name="nothing", timeout=0.5)

    assert (result.code, result.details.lower()) == (Code.UNIMPLEMENTED, "method not found!")


@each_flavour
@each_arity
def test_an_error_that_the_handler_aborts_with_stays(flavour: str, arity: str) -> None:
    async def abort_later(context: Any) -> None:
        try:
            raise CircuitOpenError("open")
        except CircuitOpenError:
            await context.abort(Code.FAILED_PRECONDITION, "closed for today")

    def abort(context: Any) -> None:
        try:
            raise CircuitOpenError("open")
        except CircuitOpenError:
            context.abort(Code.FAILED_PRECONDITION, "closed for today")

    async def unary(request: Any, context: Any) -> bytes:
        await abort_later(context)
        return b"x"

    async def stream(request: Any, context: Any) -> Any:
        await abort_later(context)
        yield b"x"

    def plain_unary(request: Any, context: Any) -> bytes:
        abort(context)
        return b"x"

    def plain_stream(request: Any, context: Any) -> Any:
        abort(context)
        yield b"x"

    plain = flavour in ("sync", "aio-sync")
    behaviors = (plain_unary, plain_stream) if plain else (unary, unary if flavour == "aio-write" else stream)
    service = service_of({arity: behaviors[arity.endswith("_stream")]})
    with serving(flavour, services=[service]) as served:
        assert served.call(arity) == Result([], Code.FAILED_PRECONDITION, "closed for today")


@each_flavour
def test_messages_go_through_the_serializers_of_the_method(flavour: str) -> None:
    def answer(request: Any, context: Any) -> int:
        assert request == 20
        return 21

    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=int,
        response_serializer=lambda number: str(number).encode(),
    )
    service = grpc.method_handlers_generic_handler("x.X", {"echo": handler})
    with serving(flavour, services=[service]) as served:
        assert served.call("unary_unary", name="echo", request=b"20").messages == [b"21"]
