"""The clients of google-cloud-firestore on guarded channels: what is retried, and what is raised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise

import grpc
import pytest

from resilience import (
    HTTP_FAILURES,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    deadline_after,
)
from resilience.events import Rejected
from resilience.testing import Recorder
from tests.grpc.fake_firestore import LEFT_TO_THE_SDK, Client, Firestore, aio_client, errors, plain_client, retry_info
from tests.grpc.helpers import SOON, UNAVAILABLE
from tests.grpc.servers import Abort
from tests.support.timing import at_most

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

Open = Callable[..., AbstractContextManager[Client]]
each_api = pytest.mark.parametrize("client", [plain_client, aio_client], ids=["sync", "aio"])
each_read = pytest.mark.parametrize("read", [Client.get, Client.query], ids=["unary", "stream"])
Code = grpc.StatusCode


@pytest.fixture
def firestore() -> Iterator[Firestore]:
    server = Firestore()
    yield server
    server.stop()


def methods(firestore: Firestore) -> list[str]:
    """Return the names of the methods that were called."""
    return [seen.method for seen in firestore.seen]


def waits(firestore: Firestore) -> list[float]:
    """Return the seconds between the RPCs that have arrived."""
    times = [seen.at for seen in firestore.seen]
    return [after - before for before, after in pairwise(times)]


def call(guarded: Client, read: Callable[..., object], **settings: object) -> object:
    """Call a method of a client, which may be one of a subclass."""
    return getattr(guarded, read.__name__)(**settings)


# What is retried


@each_api
def test_a_read_is_retried_once_by_the_pipeline(firestore: Firestore, client: Open) -> None:
    with client(firestore.target, Pipeline(Retry(3, wait=SOON))) as guarded:
        firestore.script(UNAVAILABLE, "b")
        assert guarded.get() == "b"
        firestore.script(UNAVAILABLE, ("b", "c"))
        assert guarded.query() == ["b", "c"]

    assert methods(firestore) == ["GetDocument"] * 2 + ["RunQuery"] * 2
    assert firestore.seen[0].request == firestore.seen[1].request
    assert firestore.seen[2].request == firestore.seen[3].request


@each_api
def test_the_requests_of_a_stream_are_sent_again(firestore: Firestore, client: Open) -> None:
    with client(firestore.target, Pipeline(Retry(3, wait=SOON)), idempotent="*/Write") as guarded:
        firestore.script(UNAVAILABLE, ("b", "c"))
        assert guarded.write("x", "y", "z") == ["b", "c"]

    assert [[request.stream_id for request in seen.request] for seen in firestore.seen] == [["x", "y", "z"]] * 2


@each_api
@pytest.mark.parametrize(
    ("failure", "calls"),
    [
        (UNAVAILABLE, 1),
        (Abort(Code.UNAVAILABLE, pushback="0"), 2),
        (Abort(Code.RESOURCE_EXHAUSTED, pushback="0"), 2),
        (Abort(Code.UNAVAILABLE, pushback="-1"), 1),
    ],
    ids=["without a pushback", "with one", "with one for an overload", "with one that forbids it"],
)
def test_a_write_is_only_retried_if_the_server_permits_it(
    firestore: Firestore, client: Open, failure: Abort, calls: int
) -> None:
    with client(firestore.target, Pipeline(Retry(3, wait=SOON))) as guarded:
        firestore.script(failure, "b")
        if calls == 2:
            assert guarded.create() == "b"
        else:
            with pytest.raises(errors().ServiceUnavailable, match="on purpose"):
                guarded.create()

    assert methods(firestore) == ["CreateDocument"] * calls


@each_api
@each_read
@pytest.mark.parametrize(
    ("failure", "longest"),
    [(Abort(Code.RESOURCE_EXHAUSTED, pushback="300"), 0.3), (None, 0.36)],
    ids=["pushback", "RetryInfo"],
)
def test_a_read_is_retried_after_the_wait_that_the_server_asks_for(
    firestore: Firestore, client: Open, read: Callable[..., object], failure: Abort | None, longest: float
) -> None:
    with client(firestore.target, Pipeline(Retry(3, wait=SOON))) as guarded:
        firestore.script(failure or retry_info(0.3, Code.RESOURCE_EXHAUSTED), "b")
        assert call(guarded, read) in ("b", ["b"])

    [wait] = waits(firestore)
    assert 0.3 <= wait <= at_most(longest)


@each_api
@each_read
def test_the_details_of_the_last_failure_are_those_of_the_error(
    firestore: Firestore, client: Open, read: Callable[..., object]
) -> None:
    with client(firestore.target, Pipeline(Retry(2, wait=SOON))) as guarded:
        firestore.script(UNAVAILABLE, retry_info(0.5, Code.RESOURCE_EXHAUSTED, "too many"))
        with pytest.raises(errors().ResourceExhausted, match="too many") as caught:
            call(guarded, read)

    [info] = caught.value.details
    assert info.retry_delay.ToMilliseconds() == 500
    assert len(firestore.seen) == 2


# Retries of the SDK


@each_api
@each_read
def test_attempts_multiply_if_the_sdk_retries_as_well(
    firestore: Firestore, client: Open, read: Callable[..., object]
) -> None:
    """The Retry of the SDK has no greatest number of attempts; it goes on until its timeout."""
    failures = [UNAVAILABLE] * 7
    with client(firestore.target, Pipeline(Retry(3, wait=SOON, budget=None))) as guarded:
        firestore.script(*failures, "b")
        with pytest.raises(errors().ServiceUnavailable):
            call(guarded, read, retry=None)
        assert len(firestore.seen) == 3

        firestore.script(*failures, "b")
        assert call(guarded, read, retry=LEFT_TO_THE_SDK) in ("b", ["b"])
        assert len(firestore.seen) == 3 + 8


@each_api
def test_a_retry_around_the_call_of_the_sdk_does_not_multiply(firestore: Firestore, client: Open) -> None:
    around = Pipeline(Retry(3, wait=SOON), failures=HTTP_FAILURES)
    with client(firestore.target, Pipeline(Retry(3, wait=SOON))) as guarded:
        firestore.script(*[UNAVAILABLE] * 9)
        with pytest.raises(errors().ServiceUnavailable):
            guarded.through(around)

    assert len(firestore.seen) == 3


@each_api
def test_a_retry_around_the_call_of_the_sdk_retries_where_no_inner_one_has(firestore: Firestore, client: Open) -> None:
    around = Pipeline(Retry(3, wait=SOON), failures=HTTP_FAILURES)
    with client(firestore.target, Pipeline(Bulkhead(5))) as guarded:
        firestore.script(UNAVAILABLE, UNAVAILABLE, "b")
        assert guarded.through(around) == "b"

    assert len(firestore.seen) == 3


@each_api
def test_the_sdk_goes_on_to_ask_an_open_breaker_but_no_call_reaches_the_server(
    firestore: Firestore, client: Open
) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(Retry(3, wait=SOON), breaker)
    rejected: list[object] = []

    def close_at_the_third(event: object) -> None:
        rejected.append(event)
        if len(rejected) == 3:
            breaker.close()

    with client(firestore.target, pipeline) as guarded, pipeline.subscribe(close_at_the_third, events=[Rejected]):
        breaker.isolate()
        assert guarded.get(retry=LEFT_TO_THE_SDK) == "a"

    assert len(rejected) == 3
    assert len(firestore.seen) == 1


# What is raised


@each_api
@each_read
def test_an_open_breaker_is_a_service_unavailable(
    firestore: Firestore, client: Open, read: Callable[..., object]
) -> None:
    pipeline = Pipeline(Retry(3, wait=SOON), CircuitBreaker(consecutive_failures=1, open_for=20.0))
    with client(firestore.target, pipeline) as guarded:
        firestore.script(UNAVAILABLE)
        with pytest.raises(errors().ServiceUnavailable, match="on purpose"):
            call(guarded, read)
        with pytest.raises(errors().ServiceUnavailable, match="open") as caught:
            call(guarded, read)

    ours = caught.value.__cause__
    assert isinstance(ours, CircuitOpenError)
    assert caught.value.response is ours
    assert ours.unprocessed
    assert ours.retry_after is not None
    assert 0.0 < ours.retry_after <= 24.0
    assert len(firestore.seen) == 1


@each_api
@each_read
def test_a_full_bulkhead_is_a_resource_exhausted(
    firestore: Firestore, client: Open, read: Callable[..., object]
) -> None:
    bulkhead = Bulkhead(1)
    with (
        client(firestore.target, Pipeline(Retry(3, wait=SOON), bulkhead)) as guarded,
        bulkhead,
        pytest.raises(errors().ResourceExhausted) as caught,
    ):
        call(guarded, read)

    assert isinstance(caught.value.__cause__, BulkheadFullError)
    assert firestore.seen == []


@each_api
def test_an_answer_is_neither_retried_nor_counted(firestore: Firestore, client: Open) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    with client(firestore.target, Pipeline(Retry(3, wait=SOON), breaker)) as guarded:
        firestore.script(Abort(Code.NOT_FOUND))
        with pytest.raises(errors().NotFound):
            guarded.get()

    assert len(firestore.seen) == 1
    assert breaker.snapshot()["failures"] == 0
    assert breaker.snapshot()["calls"] == 1


# Deadlines


def within(seconds: float, do: Callable[[], object]) -> None:
    """Assert that a function raises the error of a deadline after that time."""
    started = time.monotonic()
    with pytest.raises(errors().DeadlineExceeded) as caught:
        do()
    taken = time.monotonic() - started
    assert seconds * 0.9 <= taken <= at_most(seconds)
    assert isinstance(caught.value.__cause__, DeadlineExceededError)


@each_api
@each_read
def test_the_timeout_of_the_sdk_is_the_deadline_of_all_attempts(
    firestore: Firestore, client: Open, read: Callable[..., object]
) -> None:
    with client(firestore.target, Pipeline(Retry(5, wait=SOON))) as guarded:
        firestore.script((0.2, UNAVAILABLE), 10.0)
        within(0.5, lambda: call(guarded, read, timeout=0.5))

    first, second = (seen.left for seen in firestore.seen)
    assert 0.3 < first <= 0.51
    assert 0.0 < second < first - 0.15


@each_api
@each_read
@pytest.mark.parametrize("whose", ["ambient", "pipeline"])
def test_other_deadlines_bound_it_too(
    firestore: Firestore, client: Open, read: Callable[..., object], whose: str
) -> None:
    """An RPC with a timeout longer than that ends at the earlier one: 60 s is the default of the SDK."""
    policies = [Timeout(0.4)] if whose == "pipeline" else []
    with client(firestore.target, Pipeline(*policies, Retry(2, wait=SOON))) as guarded:
        firestore.script(10.0)
        with deadline_after(0.4 if whose == "ambient" else None):
            within(0.4, lambda: call(guarded, read, timeout=LEFT_TO_THE_SDK))

    [seen] = firestore.seen
    assert seen.left <= 0.41


@each_api
@each_read
def test_an_attempt_that_hangs_is_retried(firestore: Firestore, client: Open, read: Callable[..., object]) -> None:
    with client(firestore.target, Pipeline(Timeout(10.0), Retry(2, wait=SOON), Timeout(0.3))) as guarded:
        firestore.script(10.0, "b")
        assert call(guarded, read) in ("b", ["b"])

    [wait] = waits(firestore)
    assert 0.25 <= wait <= at_most(0.3)


# Streams


@each_api
def test_a_stream_may_last_longer_than_the_timeout_of_an_attempt(firestore: Firestore, client: Open) -> None:
    names: list[str] = []
    with client(firestore.target, Pipeline(Timeout(20.0), Retry(3, wait=SOON), Timeout(0.5))) as guarded:
        firestore.script(("a", 0.3, "b", 0.3, "c", 0.3, "d"))
        started = time.monotonic()
        assert guarded.query(names.append) == ["a", "b", "c", "d"] == names
        taken = time.monotonic() - started

    assert taken >= 0.85
    assert len(firestore.seen) == 1


@each_api
@pytest.mark.parametrize("retry", [None, LEFT_TO_THE_SDK], ids=["pipeline", "pipeline and SDK"])
def test_a_stream_that_fails_after_its_first_message_is_not_retried(
    firestore: Firestore, client: Open, retry: object
) -> None:
    names: list[str] = []
    with client(firestore.target, Pipeline(Retry(3, wait=SOON))) as guarded:
        firestore.script(("a", "b", 0.2, UNAVAILABLE))
        with pytest.raises(errors().ServiceUnavailable, match="on purpose"):
            guarded.query(names.append, retry=retry)

    assert names == ["a", "b"]
    assert len(firestore.seen) == 1


@each_api
def test_the_failure_of_a_stream_counts_also_in_its_middle(firestore: Firestore, client: Open) -> None:
    breaker = CircuitBreaker()
    with client(firestore.target, Pipeline(Timeout(20.0), Retry(3, wait=SOON), breaker)) as guarded:
        firestore.script(("a", 0.1, UNAVAILABLE), ("a", "b"))
        with pytest.raises(errors().ServiceUnavailable):
            guarded.query()
        assert breaker.snapshot()["failures"] == 1
        assert guarded.query() == ["a", "b"]

    assert (breaker.snapshot()["failures"], breaker.snapshot()["calls"]) == (1, 2)


@each_api
def test_a_silence_is_cut(firestore: Firestore, client: Open) -> None:
    names: list[str] = []
    with client(firestore.target, Pipeline(Retry(3, wait=SOON), Timeout(None, idle=0.4))) as guarded:
        firestore.script(("a", 0.1, "b", 10.0))
        within(0.5, lambda: guarded.query(names.append))

    assert names == ["a", "b"]
    assert len(firestore.seen) == 1


@each_api
def test_a_stream_holds_its_permit_until_it_ends(firestore: Firestore, client: Open) -> None:
    bulkhead = Bulkhead(1)
    held: list[int] = []
    pipeline = Pipeline(Timeout(20.0), Retry(3, wait=SOON), bulkhead)
    with client(firestore.target, pipeline) as guarded, Recorder(pipeline) as recorder:
        firestore.script(("a", 0.1, "b"))
        assert guarded.query(lambda name: held.append(bulkhead.in_flight)) == ["a", "b"]
        assert bulkhead.in_flight == 0
        assert guarded.get() == "a"

    assert held == [1, 1]
    assert recorder.of(Rejected) == []
