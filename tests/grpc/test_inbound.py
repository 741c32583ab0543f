"""What is decided about calls that a server handles, with contexts made by hand."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    deadline_after,
    remaining,
)
from resilience._call.ambient import NOTHING, ambient, inbound_attempt
from resilience._util.clock import FOREVER, clock
from resilience.grpc._inbound import (
    Begin,
    InboundCall,
    InboundRules,
    TooLateError,
    attempt_of,
    forbid_retries,
    remaining_time,
    status_of,
)
from resilience.testing import virtual_time
from tests.support.functions import AppError

Code = grpc.StatusCode
COUNT = "x-envoy-attempt-count"
PREVIOUS = "grpc-previous-rpc-attempts"
PUSHBACK = ("grpc-retry-pushback-ms", "-1")


class Context:
    """The context of a call, as far as it is asked."""

    def __init__(self, seconds: Any = None, code: Any = None, trailing: Any = None) -> None:
        self._seconds = seconds
        self._code = code
        self.trailing = trailing

    def time_remaining(self) -> Any:
        return self._seconds

    def code(self) -> Any:
        return self._code

    def trailing_metadata(self) -> Any:
        return self.trailing

    def set_trailing_metadata(self, trailing: Any) -> None:
        self.trailing = trailing


class Unimplemented(Context):
    """One of an interceptor that has not taken over everything."""

    def time_remaining(self) -> Any:
        raise NotImplementedError

    def code(self) -> Any:
        raise NotImplementedError

    def trailing_metadata(self) -> Any:
        raise NotImplementedError


class TestSettings:
    @pytest.mark.parametrize("make", [resilience.grpc.server_interceptor, resilience.grpc.aio_server_interceptor])
    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            ({"trust": "yes"}, TypeError, "trust must be True or False"),
            ({"min_remaining": None}, TypeError, "min_remaining must be a number >= 0"),
            ({"min_remaining": -0.1}, ValueError, "min_remaining must be a number >= 0"),
            ({"min_remaining": math.nan}, ValueError, "min_remaining must be a number >= 0"),
            ({"min_remaining": math.inf}, ValueError, "min_remaining must be a number >= 0"),
        ],
    )
    def test_they_are_checked_when_it_is_made(self, make: Any, settings: Any, error: Any, words: str) -> None:
        with pytest.raises(error, match=words):
            make(**settings)

    def test_it_is_what_servers_take(self) -> None:
        assert isinstance(resilience.grpc.server_interceptor(), grpc.ServerInterceptor)
        assert isinstance(resilience.grpc.aio_server_interceptor(), grpc.aio.ServerInterceptor)


class TestRemainingTime:
    @pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 2.5, 86_401.0, 999_999_999.0])
    def test_a_time_is_believed(self, seconds: float) -> None:
        assert remaining_time(Context(seconds)) == seconds

    @pytest.mark.parametrize(
        "seconds", [None, math.inf, math.nan, 1e9, 9.22e18, 10**400, -1e-9, -1, -math.inf, "5", object]
    )
    def test_what_means_none_or_nothing_is_none(self, seconds: Any) -> None:
        assert remaining_time(Context(seconds)) is None

    @pytest.mark.parametrize("context", [Unimplemented(), object()], ids=["unimplemented", "missing"])
    def test_a_context_that_cannot_be_asked_has_none(self, context: Any) -> None:
        assert remaining_time(context) is None


class TestAttempt:
    @pytest.mark.parametrize(
        ("metadata", "attempt"),
        [
            ([], 1),
            ([("user-agent", "x")], 1),
            ([(COUNT, "1")], 1),
            ([(COUNT, "2")], 2),
            ([(COUNT, b"2")], 2),
            ([(COUNT, "9999")], 9_999),
            ([(PREVIOUS, "0")], 1),
            ([(PREVIOUS, "1")], 2),
            ([(PREVIOUS, "9999")], 10_000),
            ([(COUNT, "1"), (PREVIOUS, "3")], 4),
            ([(COUNT, "5"), (PREVIOUS, "3")], 5),
        ],
    )
    def test_it_is_read(self, metadata: Any, attempt: int) -> None:
        assert attempt_of(metadata) == attempt

    @pytest.mark.parametrize("key", [COUNT, PREVIOUS])
    @pytest.mark.parametrize("value", ["", "-1", "+2", "2.0", "1e3", " 2", "2, 2", "٣", "10000", "9" * 400, b"\xff"])
    def test_absurd_values_are_ignored(self, key: str, value: Any) -> None:
        assert attempt_of([(key, value)]) == 1

    @pytest.mark.parametrize("key", [COUNT, PREVIOUS])
    def test_a_key_that_was_sent_twice_is_ignored(self, key: str) -> None:
        assert attempt_of([(key, "3"), ("user-agent", "x"), (key, "3")]) == 1
        assert attempt_of([(key, "3"), (key, "3"), (key, "3")]) == 1


class TestStatus:
    @pytest.mark.parametrize(
        ("error", "code", "details"),
        [
            (RejectedError("s3cret"), Code.UNAVAILABLE, "a dependency of this service is unavailable"),
            (CircuitOpenError("s3cret"), Code.UNAVAILABLE, "a dependency of this service is unavailable"),
            (BulkheadFullError("s3cret"), Code.UNAVAILABLE, "a dependency of this service is unavailable"),
            (RateLimitedError("s3cret"), Code.UNAVAILABLE, "a dependency of this service is unavailable"),
            (DeadlineExceededError("s3cret"), Code.DEADLINE_EXCEEDED, "the deadline of this call has passed"),
            (TooLateError(), Code.DEADLINE_EXCEEDED, "too little time is left for this call"),
            (
                ExceptionGroup("s3cret", [RejectedError(), ExceptionGroup("", [CircuitOpenError()])]),
                Code.UNAVAILABLE,
                "a dependency of this service is unavailable",
            ),
            (
                ExceptionGroup("s3cret", [RejectedError(), ExceptionGroup("", [DeadlineExceededError()])]),
                Code.DEADLINE_EXCEEDED,
                "the deadline of this call has passed",
            ),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    @pytest.mark.parametrize(
        "context",
        [Context(), Context(code=Code.OK), Unimplemented(), object()],
        ids=["none", "ok", "unimplemented", "missing"],
    )
    def test_errors_of_the_library_have_one(self, error: Exception, code: Code, details: str, context: Any) -> None:
        assert status_of(error, context) == (code, details)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError(),
            TimeoutError(),
            grpc.RpcError(),
            ExceptionGroup("", [RejectedError(), ValueError()]),
            ExceptionGroup("", [DeadlineExceededError(), TimeoutError()]),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_other_errors_have_none(self, error: Exception) -> None:
        assert status_of(error, Context()) is None

    def test_that_of_the_handler_holds(self) -> None:
        assert status_of(CircuitOpenError(), Context(code=Code.NOT_FOUND)) is None


class TestForbidRetries:
    @pytest.mark.parametrize(
        ("trailing", "after"),
        [
            (None, (PUSHBACK,)),
            ((), (PUSHBACK,)),
            ((("a", "1"), ("a", "2")), (("a", "1"), ("a", "2"), PUSHBACK)),
            ([["a-bin", b"1"]], (["a-bin", b"1"], PUSHBACK)),
            (grpc.aio.Metadata(("a", "1")), (("a", "1"), PUSHBACK)),
        ],
        ids=["None", "empty", "twice", "lists", "aio"],
    )
    def test_what_the_handler_has_set_is_kept(self, trailing: Any, after: Any) -> None:
        context = Context(trailing=trailing)
        forbid_retries(context)
        assert context.trailing == after

    def test_a_pushback_of_the_handler_is_kept(self) -> None:
        context = Context(trailing=((PUSHBACK[0], "500"),))
        forbid_retries(context)
        assert context.trailing == ((PUSHBACK[0], "500"),)

    def test_nothing_is_set_where_it_is_unknown_what_the_handler_has_set(self) -> None:
        context = Unimplemented(trailing=(("a", "1"),))
        forbid_retries(context)
        assert context.trailing == (("a", "1"),)


class TestSteps:
    def test_it_holds_inside_of_steps_only_and_until_the_end(self) -> None:
        before = ambient.get()
        with virtual_time() as time:
            call = InboundCall(clock.monotonic() + 5.0, 2)
            assert ambient.get() is before
            with call:
                inherited = contextvars.copy_context()
                assert (remaining(), inbound_attempt(ambient.get())) == (5.0, 2)
            assert ambient.get() is before
            time.advance(1.0)
            with call:
                assert remaining() == 4.0
                assert inherited.run(remaining) == 4.0

            call.end()
            assert ambient.get() is before
            with call:
                assert (remaining(), inbound_attempt(ambient.get())) == (None, 1)
            assert inherited.run(remaining) is None

    def test_steps_run_in_any_context(self) -> None:
        with virtual_time():
            call = InboundCall(clock.monotonic() + 5.0, 1)

            def step() -> Any:
                with call:
                    return remaining()

            contexts = [contextvars.Context() for _ in range(3)]
            assert [context.run(step) for context in contexts] == [5.0] * 3
            assert [context.run(ambient.get) for context in contexts] == [NOTHING] * 3

    def test_what_a_step_sets_holds_in_the_next(self) -> None:
        with virtual_time():
            call = InboundCall(clock.monotonic() + 5.0, 1)
            block = deadline_after(2.0)
            with call:
                block.__enter__()
            assert remaining() is None
            with call:
                assert remaining() == 2.0
            with call:
                block.__exit__(None, None, None)
                assert remaining() == 5.0

    def test_a_step_that_raises_ends(self) -> None:
        before = ambient.get()
        call = InboundCall(FOREVER, 2)
        with pytest.raises(AppError), call:
            raise AppError
        assert ambient.get() is before

    def test_two_calls_keep_apart(self) -> None:
        with virtual_time():
            first, second = (InboundCall(clock.monotonic() + seconds, 1) for seconds in (1.0, 2.0))
            seen: list[Any] = []
            for call in (first, second, first, second):
                with call:
                    seen.append(remaining())
            first.end()
            with second:
                seen.append(remaining())
            assert seen == [1.0, 2.0, 1.0, 2.0, 2.0]

    def test_an_earlier_deadline_around_it_stays_in_force(self) -> None:
        with virtual_time(), deadline_after(1.0):
            call = InboundCall(clock.monotonic() + 5.0, 1)
            with call:
                assert remaining() == 1.0
            call.end()
            assert remaining() == 1.0


class TestWrap:
    @staticmethod
    def begins(rules: InboundRules, metadata: Any = None) -> Callable[[Any], InboundCall]:
        """What begins the calls of a method."""
        found: list[Begin] = []

        def wrap(behavior: Any, is_stream: bool, begin: Begin) -> Any:
            assert not is_stream
            found.append(begin)
            return lambda request, context: behavior(request, context)

        assert rules.wrap(grpc.unary_unary_rpc_method_handler(print), metadata, wrap) is not None
        return found[0]

    @pytest.mark.parametrize(
        ("seconds", "least", "handled"),
        [
            (0.0, 0.0, False),
            (1e-6, 0.0, True),
            (0.199, 0.2, False),
            (0.2, 0.2, True),
            (0.0, 0.2, False),
            (None, 9.0, True),
            (9.22e18, 9.0, True),
        ],
    )
    def test_a_call_with_too_little_left_is_refused(self, seconds: Any, least: float, handled: bool) -> None:
        before = ambient.get()
        begin = self.begins(InboundRules(False, least))
        if handled:
            begin(Context(seconds)).end()
        else:
            with pytest.raises(TooLateError):
                begin(Context(seconds))
        assert ambient.get() is before

    @pytest.mark.parametrize(("trust", "attempt"), [(False, 1), (True, 3)])
    def test_attempts_are_believed_with_trust_only(self, trust: bool, attempt: int) -> None:
        call = self.begins(InboundRules(trust, 0.0), [(COUNT, "3")])(Context())
        with call:
            assert (remaining(), inbound_attempt(ambient.get())) == (None, attempt)
        call.end()

    def test_a_call_that_brings_nothing_along_changes_nothing(self) -> None:
        begin = self.begins(InboundRules(True, 1.0))
        assert begin(Context()) is begin(Context(9.22e18))
        with virtual_time(), deadline_after(1.0), begin(Context()):
            assert remaining() == 1.0
            begin(Context()).end()
            assert remaining() == 1.0

    @pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
    def test_the_rest_of_a_handler_stays(self, kind: str) -> None:
        def behavior(request: Any, context: Any) -> Any:
            """Answer."""
            return request, context

        behavior.experimental_thread_pool = "mine"  # type: ignore[attr-defined]
        given = getattr(grpc, f"{kind}_rpc_method_handler")(behavior, bytes.upper, bytes.lower)
        seen: list[Any] = []

        def wrap(inner: Any, is_stream: bool, begin: Begin) -> Any:
            seen.append((inner, is_stream))
            return lambda request, context: inner(context, request)

        made = InboundRules(False, 0.0).wrap(given, None, wrap)
        wrapped = getattr(made, kind)
        assert seen == [(behavior, kind.endswith("_stream"))]
        assert wrapped(1, 2) == (2, 1)
        assert (wrapped.__doc__, wrapped.experimental_thread_pool) == ("Answer.", "mine")
        assert made._replace(**{kind: behavior}) == given

    def test_what_cannot_be_wrapped_passes(self) -> None:
        def wrap(*_: Any) -> Any:
            raise AssertionError("there is nothing to wrap")

        def send_later(request: Any, context: Any, send: Any) -> None: ...

        send_later.experimental_non_blocking = True  # type: ignore[attr-defined]
        rules = InboundRules(True, 1.0)
        nothing: Any = grpc.unary_unary_rpc_method_handler(None)  # type: ignore[arg-type]
        later: Any = grpc.unary_stream_rpc_method_handler(send_later)
        for handler in (None, nothing, later):
            assert rules.wrap(handler, (), wrap) is handler
