"""What counts as a failure, which methods are idempotent, what our errors look like: no server is needed for that."""

import asyncio
import copy
import pickle
import re
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    NETWORK_ERRORS,
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    Failure,
    FailureKind,
    Pipeline,
    RateLimitedError,
    RejectedError,
    RejectReason,
    Retry,
)
from resilience._outcome.ending import Ending, EndingKind
from resilience._util import log_once
from resilience.grpc import RPC_FAILURES, rpc_failures
from resilience.grpc._channels import all_options
from resilience.grpc._connectivity import Connectivity, addresses, aio_connectivity_of, connectivity_of
from resilience.grpc._errors import AioResilienceRpcError, ResilienceRpcError, make_rpc_error
from resilience.grpc._failures import NEVER_SENT
from resilience.grpc._guard import ENDLESS, Guard, matcher

Code = grpc.StatusCode


def failed(code: Code, details: str = "", pushback: str | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata() if pushback is None else grpc.aio.Metadata(("grpc-retry-pushback-ms", pushback))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (Code.UNAVAILABLE, Failure()),
        (Code.ABORTED, Failure(counted=False)),
        (Code.INTERNAL, Failure(retryable=False)),
        (Code.UNKNOWN, Failure(retryable=False)),
        (Code.DATA_LOSS, Failure(retryable=False)),
        (Code.DEADLINE_EXCEEDED, Failure(FailureKind.TIMEOUT, retryable=False)),
        (Code.RESOURCE_EXHAUSTED, Failure(FailureKind.OVERLOAD, retryable=False, counted=False)),
    ],
)
def test_each_failure_has_its_kind(code: Code, failure: Failure) -> None:
    assert RPC_FAILURES.classify(failed(code)) == failure
    assert Ending(None, failed(code), RPC_FAILURES).kind is EndingKind.FAILED


@pytest.mark.parametrize(
    "code",
    [
        *[Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.PERMISSION_DENIED],
        *[Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.UNIMPLEMENTED, Code.UNAUTHENTICATED],
    ],
)
def test_all_other_codes_are_answers(code: Code) -> None:
    assert RPC_FAILURES.classify(failed(code, pushback="10")) is None
    assert Ending(None, failed(code), RPC_FAILURES).kind is EndingKind.OK
    assert (NETWORK_ERRORS | RPC_FAILURES).is_answer(failed(code))


@pytest.mark.parametrize("details", ["Channel closed!", "on purpose"])
def test_a_cancelled_call_is_neither_good_nor_bad(details: str) -> None:
    error = failed(Code.CANCELLED, details, pushback="10")

    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ERROR
    assert not RPC_FAILURES.is_answer(error)


def test_a_cancelled_call_can_be_listed_but_not_one_whose_channel_was_closed() -> None:
    mine = rpc_failures([Code.CANCELLED])

    assert mine.classify(failed(Code.CANCELLED, "on purpose")) == Failure()
    assert mine.classify(failed(Code.CANCELLED, "Channel closed!")) is None


@pytest.mark.parametrize(
    "details",
    [
        "Received RST_STREAM with error code 2",
        "stream terminated by RST_STREAM with error code: INTERNAL_ERROR",
        "Received unexpected EOS on DATA frame from server",
    ],
)
def test_a_stream_reset_may_be_retried(details: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.INTERNAL, details)) == Failure()


@pytest.mark.parametrize(
    "details", ["Exception serializing request!", "Exception deserializing response!", "Invalid metadata"]
)
def test_what_is_the_callers_own_mistake_is_nobodys_failure(details: str) -> None:
    error = failed(Code.INTERNAL, details)

    assert RPC_FAILURES.classify(error) is None
    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ERROR


@pytest.mark.parametrize(
    "details", ["Getting metadata from plugin failed with error: no route to the issuer", "Illegal metadata"]
)
def test_missing_credentials_may_be_retried_and_are_not_counted(details: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.UNAVAILABLE, details)) == Failure(counted=False)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNKNOWN, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED])
@pytest.mark.parametrize(("given", "seconds"), [("0", 0.0), ("25", 0.025), ("2147483647", 2147483.647)])
def test_a_pushback_permits_a_retry_of_any_failure(code: Code, given: str, seconds: float) -> None:
    failure = RPC_FAILURES.classify(failed(code, pushback=given))

    assert failure is not None
    assert failure.retryable
    assert failure.unprocessed
    assert failure.retry_after == seconds


@pytest.mark.parametrize("given", ["-1", "", "abc", "1e3", "1.5", "010", "+5", " 5", "2147483648", "99999999999", "٣"])
def test_any_other_pushback_forbids_it(given: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.UNAVAILABLE, pushback=given)) == Failure(retryable=False)


def test_of_several_pushbacks_the_longest_counts_and_garbage_forbids() -> None:
    def twice(*values: str) -> Failure | None:
        trailing = grpc.aio.Metadata(*(("grpc-retry-pushback-ms", value) for value in values))
        return RPC_FAILURES.classify(grpc.aio.AioRpcError(Code.UNAVAILABLE, grpc.aio.Metadata(), trailing, ""))

    assert twice("10", "30", "20") == Failure(retry_after=0.03, unprocessed=True)
    assert twice("10", "x") == Failure(retryable=False)


def test_a_request_that_was_never_sent_is_unprocessed() -> None:
    error = failed(Code.UNAVAILABLE)
    error.__dict__[NEVER_SENT] = True

    assert RPC_FAILURES.classify(error) == Failure(unprocessed=True)


def test_errors_without_a_status_are_not_listed() -> None:
    odd: Any = grpc.RpcError()
    odd.code = lambda: "UNAVAILABLE"

    assert RPC_FAILURES.classify(grpc.RpcError()) is None
    assert RPC_FAILURES.classify(odd) is None
    assert RPC_FAILURES.classify(ValueError()) is None


def unlisted(error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of the error of an attempt that nobody lists."""
    log_once.forget()
    pipeline = Pipeline(Retry(), failures=ConnectionError)
    guard = Guard(pipeline, None, ResilienceRpcError)

    def attempt() -> None:
        guard.examine(error, apart=False)
        raise error

    with pytest.raises(type(error)):
        guard.run(guard.call("/shop.Shop/Get", None, attempt))
    return caplog.text


def test_the_advice_about_an_unlisted_code_is_not_to_list_a_class(caplog: pytest.LogCaptureFixture) -> None:
    said = unlisted(failed(Code.NOT_FOUND), caplog)

    assert "failures=resilience.grpc.RPC_FAILURES" in said
    assert "resilience.grpc.rpc_failures(codes=...)" in said
    assert "| AioRpcError" not in said


@pytest.mark.parametrize(
    "error",
    [
        failed(Code.INTERNAL, "Exception serializing request!"),
        failed(Code.INTERNAL, "Invalid metadata"),
        failed(Code.CANCELLED, "Channel closed!"),
        grpc.aio.UsageError("Channel is closed."),
        ValueError("Cannot invoke RPC on closed channel!"),
        ValueError("metadata was invalid: ..."),
    ],
)
def test_there_is_no_advice_about_the_callers_own_doing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert unlisted(error, caplog) == ""


def test_other_codes_can_be_listed() -> None:
    mine = rpc_failures([Code.UNAVAILABLE, Code.NOT_FOUND])

    assert mine.classify(failed(Code.NOT_FOUND)) == Failure()
    assert mine.classify(failed(Code.UNAVAILABLE)) == Failure()
    assert mine.classify(failed(Code.ABORTED)) is None
    assert mine.is_answer(failed(Code.ABORTED))


def test_only_codes_of_failures_can_be_listed() -> None:
    unchecked: Any = rpc_failures

    with pytest.raises(ValueError, match="OK"):
        rpc_failures([Code.OK])
    with pytest.raises(TypeError, match=r"grpc\.StatusCode"):
        unchecked(["UNAVAILABLE"])


@pytest.mark.parametrize(
    ("idempotent", "expected"),
    [
        (None, [None, None, None]),
        (True, [True, True, True]),
        (False, [False, False, False]),
        ("/shop.Shop/Get*", [True, True, False]),
        (["/shop.Shop/GetPrice", "*/Buy"], [True, False, True]),
        (lambda method: method.endswith("y"), [False, False, True]),
    ],
)
def test_methods_are_matched(idempotent: Any, expected: list[bool | None]) -> None:
    is_idempotent = matcher(idempotent)

    assert [is_idempotent(f"/shop.Shop/{name}") for name in ("GetPrice", "GetItem", "Buy")] == expected


def test_a_predicate_that_raises_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: 1 / 0)("/shop.Shop/Get") is False
    assert "idempotent predicate" in caplog.text


@pytest.mark.parametrize("answer", [1, "yes", object(), re.match("a", "a"), (x for x in "a")])
def test_a_predicate_that_returns_no_bool_means_no(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()

    assert matcher(lambda method: answer)("/shop.Shop/Get") is False
    assert "what the idempotent predicate returns must be True or False" in caplog.text


def test_a_predicate_that_does_not_know_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: None)("/shop.Shop/Get") is False
    assert caplog.text == ""


async def later(method: str) -> bool:
    return True


class Later:
    async def __call__(self, method: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("idempotent", "error"),
    [
        *[(7, TypeError), ([7], TypeError), (b"/shop.Shop/Get", TypeError)],
        *[({"/shop.Shop/Put": False}, TypeError), (later, TypeError), (Later(), TypeError)],
        *[("Get*", ValueError), ("/shop.Shop", ValueError), ("/shop.Shop/", ValueError), ("", ValueError)],
        *[(["/shop.Shop/Get", "/shop.Shop"], ValueError), ("[/]shop.Shop/Get", ValueError)],
    ],
)
def test_what_can_match_nothing_is_refused(idempotent: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="idempotent"):
        matcher(idempotent)


@pytest.mark.parametrize("pattern", ["*", "*/Get", "/*", "/shop.*", "/shop.Shop/Ge?", "/shop.Shop/[Gg]et", "*/G*"])
def test_patterns_with_wildcards_are_taken(pattern: str) -> None:
    assert matcher(pattern)("/shop.Shop/Get") is True


def test_idempotent_falls_back_to_what_the_pipeline_is_bound_with() -> None:
    def known(pipeline: Any, idempotent: Any) -> bool | None:
        call = Guard(pipeline, idempotent, ResilienceRpcError).call("/shop.Shop/Get", None, lambda: None)
        return call.idempotent

    assert known(Retry(), None) is False
    assert known(Retry().bind(idempotent=True), None) is True
    assert known(Retry().bind(idempotent=True), "/other/*") is False


def test_a_call_knows_its_method_and_target() -> None:
    guard = Guard(Retry(), None, ResilienceRpcError, "quotes:50051")
    call = guard.call("/shop.Shop/Get", None, lambda: None)

    assert (call.operation, call.target) == ("/shop.Shop/Get", "quotes:50051")
    assert (call.copy().operation, call.copy().target) == (call.operation, call.target)
    assert guard.call("/shop.Shop/Get", None, lambda: None).options is call.options


def test_what_bind_says_of_the_target_wins_over_that_of_the_channel() -> None:
    guard = Guard(Retry().bind(target="shop-prod"), None, ResilienceRpcError, "127.0.0.1:50051")

    assert guard.call("/shop.Shop/Get", None, lambda: None).target == "shop-prod"


def test_methods_that_somebody_makes_up_are_not_remembered() -> None:
    guard = Guard(Retry(), "/a/1*", ResilienceRpcError)
    calls = [guard.call(f"/a/{number}", None, lambda: None) for number in range(2000)]

    assert calls[-1].idempotent is True or calls[-1].idempotent is False
    assert guard.call("/a/1999", None, lambda: None).idempotent is True
    assert guard.call("/a/2999", None, lambda: None).idempotent is False


@pytest.mark.parametrize("timeout", [None, float("inf"), ENDLESS, 9.22e18])
def test_a_timeout_without_end_is_none(timeout: float | None) -> None:
    call = Guard(Retry(), None, ResilienceRpcError).call("/a/b", timeout, lambda: None)

    assert call.deadline == call.total_deadline == float("inf")


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (True, TypeError), (b"", TypeError), (float("nan"), ValueError)]
)
def test_a_timeout_is_a_number(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout must be a number of seconds"):
        Guard(Retry(), None, ResilienceRpcError).call("/a/b", timeout, lambda: None)


@pytest.mark.parametrize("pipeline", [lambda: None, [], (), {}, "", 0, False])
def test_only_a_pipeline_is_taken(pipeline: Any) -> None:
    credentials = grpc.local_channel_credentials()

    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.client_interceptors(pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.insecure_channel("127.0.0.1:1", pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.secure_channel("127.0.0.1:1", credentials, pipeline)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline or a policy"):
        resilience.grpc.aio.insecure_channel("127.0.0.1:1", pipeline)


def test_what_grpc_takes_none_for_is_taken_here_too() -> None:
    resilience.grpc.insecure_channel("127.0.0.1:1", Retry(), options=None, compression=None).close()

    async def main() -> None:
        channel = resilience.grpc.aio.insecure_channel("127.0.0.1:1", Retry(), options=None, interceptors=None)
        await channel.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50051", (" ipv4:127.0.0.1:50051: ",)),
        ("ipv4:127.0.0.1:50051", (" ipv4:127.0.0.1:50051: ",)),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", (" ipv4:10.0.0.1:1: ", " ipv4:10.0.0.2:2: ")),
        ("[::1]:50051", (" ipv6:%5B::1%5D:50051: ",)),
        ("ipv6:[::1]:50051", (" ipv6:%5B::1%5D:50051: ",)),
        ("localhost:50051", (" ipv4:127.0.0.1:50051: ", " ipv6:%5B::1%5D:50051: ")),
        ("dns:///localhost:50051", (" ipv4:127.0.0.1:50051: ", " ipv6:%5B::1%5D:50051: ")),
        ("quotes:50051", ()),
        ("dns:///quotes:50051", ()),
        ("quotes", ()),
        ("unix:/run/quotes.sock", ()),
        ("xds:///quotes", ()),
        ("", ()),
    ],
)
def test_the_addresses_of_a_target_that_are_certain(target: str, expected: tuple[str, ...]) -> None:
    assert addresses(target) == expected


UNREACHABLE = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"


State = grpc.ChannelConnectivity


@pytest.mark.parametrize(
    ("target", "alone", "error", "unprocessed"),
    [
        ("127.0.0.1:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), True),
        ("localhost:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), True),
        ("127.0.0.1:1", False, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # somebody further in may repeat calls
        ("127.0.0.1:2", True, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # passed on by a server
        ("quotes:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # nobody knows whose address that is
        ("127.0.0.1:1", True, failed(Code.UNAVAILABLE, "Socket closed"), False),
        ("127.0.0.1:1", True, failed(Code.INTERNAL, UNREACHABLE), False),
    ],
)
def test_only_what_is_certain_is_called_unprocessed(
    target: str, alone: bool, error: grpc.aio.AioRpcError, unprocessed: bool
) -> None:
    error = copy.copy(error)
    guard = Guard(Retry(), None, ResilienceRpcError, target, alone=alone)
    guard.connectivity.watch(lambda: State.TRANSIENT_FAILURE)
    guard.examine(error, apart=guard.connectivity.is_disconnected())
    failure = RPC_FAILURES.classify(error)

    assert failure is not None
    assert failure.unprocessed is unprocessed


@pytest.mark.parametrize("before", [*State, None])
@pytest.mark.parametrize("after", [*State, None])
def test_the_words_are_believed_only_of_a_channel_without_a_connection(before: object, after: object) -> None:
    states = iter([before, after])
    reach = Connectivity("127.0.0.1:1")
    reach.watch(lambda: next(states))
    believed = reach.never_sent(failed(Code.UNAVAILABLE, UNREACHABLE), apart=reach.is_disconnected())

    apart = before in (State.IDLE, State.CONNECTING, State.TRANSIENT_FAILURE)
    assert believed is (apart and after is State.TRANSIENT_FAILURE)


def test_where_the_state_of_a_channel_is_unknown_nothing_is_believed() -> None:
    def closed() -> object:
        raise ValueError("Cannot invoke RPC: Channel closed!")

    for unknown in (None, closed, connectivity_of(object())):
        reach = Connectivity("127.0.0.1:1")
        if unknown is not None:
            reach.watch(unknown)
        assert not reach.is_disconnected()
        assert not reach.never_sent(failed(Code.UNAVAILABLE, UNREACHABLE), apart=True)


def test_grpc_still_has_the_private_name_that_tells_the_state_of_a_channel() -> None:
    channel = grpc.insecure_channel("127.0.0.1:1")
    connectivity = connectivity_of(channel)

    assert connectivity() is State.IDLE
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        connectivity()


def test_asking_for_the_state_of_an_aio_channel_does_not_keep_it_alive() -> None:
    class Channel:
        def get_state(self) -> grpc.ChannelConnectivity:
            return State.READY

    channel: Any = Channel()
    connectivity = aio_connectivity_of(channel)
    assert connectivity() is State.READY
    del channel
    assert connectivity() is None


OURS: list[tuple[type[Any], Code]] = [
    (RejectedError, Code.UNAVAILABLE),
    (CircuitOpenError, Code.UNAVAILABLE),
    (BulkheadFullError, Code.RESOURCE_EXHAUSTED),
    (RateLimitedError, Code.RESOURCE_EXHAUSTED),
    (DeadlineExceededError, Code.DEADLINE_EXCEEDED),
]


@pytest.mark.parametrize(("kind", "code"), OURS)
@pytest.mark.parametrize("flavour", [ResilienceRpcError, AioResilienceRpcError])
def test_our_errors_are_those_of_grpc_too(kind: type[Any], code: Code, flavour: type[Any]) -> None:
    error: Any = kind("no luck", policy="p")
    same = error
    make_rpc_error(error, flavour)

    assert error is same
    assert issubclass(type(error), kind)
    assert issubclass(type(error), grpc.RpcError)
    assert issubclass(type(error), grpc.aio.AioRpcError) is (flavour is AioResilienceRpcError)
    assert (type(error).__name__, type(error).__module__) == (kind.__name__, kind.__module__)
    assert error.code() is code
    assert error.details() == str(error) == "no luck"
    assert list(error.initial_metadata()) == list(error.trailing_metadata()) == []
    assert error.debug_error_string() == ""
    assert repr(error) == f"{kind.__name__}('no luck')"


@pytest.mark.parametrize(("kind", "code"), OURS)
@pytest.mark.parametrize("flavour", [ResilienceRpcError, AioResilienceRpcError])
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_our_errors_copy_and_pickle(kind: type[Any], code: Code, flavour: type[Any], again: Any) -> None:
    error = kind("no luck", policy="p", pipeline="q")
    make_rpc_error(error, flavour)
    other = again(error)

    assert type(other) is type(error)
    assert (str(other), other.policy, other.pipeline, other.code()) == ("no luck", "p", "q", code)
    assert other.unprocessed is error.unprocessed


def test_our_errors_are_a_finished_call_and_future() -> None:
    error: Any = CircuitOpenError("no luck", reason=RejectReason.OPEN)
    make_rpc_error(error, ResilienceRpcError)
    told: list[Any] = []
    error.add_done_callback(told.append)

    assert issubclass(type(error), grpc.Call)
    assert issubclass(type(error), grpc.Future)
    assert error.exception() is error
    with pytest.raises(CircuitOpenError):
        error.result()
    assert error.traceback() is error.__traceback__
    assert told == [error]
    assert (error.done(), error.running(), error.cancelled(), error.is_active()) == (True, False, False, False)
    assert (error.cancel(), error.add_callback(lambda: None), error.time_remaining()) == (False, False, None)


def test_an_error_is_adopted_once() -> None:
    error = CircuitOpenError()
    make_rpc_error(error, ResilienceRpcError)
    kind = type(error)
    make_rpc_error(error, AioResilienceRpcError)

    assert type(error) is kind


def test_a_rejection_of_another_channel_is_no_failure() -> None:
    error: Any = CircuitOpenError()
    make_rpc_error(error, ResilienceRpcError)

    assert RPC_FAILURES.classify(error) is None
    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ABANDONED


def test_the_options_switch_the_built_in_retry_off() -> None:
    assert resilience.grpc.channel_options()[0] == ("grpc.enable_retries", 0)
    with pytest.raises(ValueError, match="enable_retries"):
        resilience.grpc.insecure_channel("127.0.0.1:1", Retry(), options=[("grpc.enable_retries", 1)])


def test_the_options_have_a_channel_connect_again_soon_unless_the_caller_has_it_otherwise() -> None:
    first, most = ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5000)
    mine = ("grpc.initial_reconnect_backoff_ms", 700)

    assert resilience.grpc.channel_options()[1:] == [first, most]
    assert all_options([mine])[1:] == [mine, first, most]  # of an option that is given twice, grpc takes the first
