"""Which exceptions are retried, which one comes out, and that none keeps frames alive."""

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from resilience import (
    Call,
    CircuitOpenError,
    Ending,
    Gate,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    Ticket,
    backoff,
)
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder
from tests.policies.retry.helpers import Down, notes
from tests.support.garbage import no_collection

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class OpensAfter(Gate[None]):
    """Lets some attempts in, and then none."""

    def __init__(self, admitted: int) -> None:
        super().__init__()
        self.left = admitted

    def admit(self, call: Call) -> None:
        self.left -= 1
        if self.left < 0:
            raise CircuitOpenError("open", reason=RejectReason.OPEN)

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        pass


@pytest.mark.usefixtures("clock")
class TestIdempotence:
    def test_what_was_not_processed_is_retried(self) -> None:
        down = Down(ConnectionRefusedError("no"))
        assert Pipeline(Retry()).bind(idempotent=False).call(down) == "fine"
        assert down.calls == 2

    @pytest.mark.parametrize("idempotent", [True, None])
    def test_others_are_retried(self, idempotent: bool | None) -> None:
        down = Down(ConnectionError("no"))
        assert Pipeline(Retry()).bind(idempotent=idempotent).call(down) == "fine"

    def test_another_level_is_not_held_off(self) -> None:
        inner = Pipeline(Retry()).bind(idempotent=False)
        down = Down(ConnectionError("no"))
        assert Pipeline(Retry()).call(lambda: inner.call(down)) == "fine"


@pytest.mark.usefixtures("clock")
class TestRejections:
    def test_a_rejection_of_the_first_attempt_is_not_retried(self) -> None:
        down = Down()
        pipeline = Pipeline(Retry(), OpensAfter(0))
        with Recorder(pipeline, events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(CircuitOpenError):
            pipeline.call(down)
        assert (down.calls, recorder.events) == (0, [])

    def test_the_last_real_failure_wins(self) -> None:
        first = ConnectionError("first")
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry(), OpensAfter(1)).call(Down(first))
        assert caught.value is first
        assert notes(first) == ["resilience: attempt 2 not made: circuit open"]

    def test_the_last_of_several(self) -> None:
        second = ConnectionError("second")
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry(5), OpensAfter(2)).call(Down(ConnectionError("first"), second))
        assert caught.value is second
        assert notes(second) == ["resilience: attempt 3 not made: circuit open"]

    def test_async(self) -> None:
        first = ConnectionError("first")

        async def main() -> None:
            with pytest.raises(ConnectionError) as caught:
                await Pipeline(Retry(), OpensAfter(1)).acall(Down(first))
            assert caught.value is first

        asyncio.run(main())
        assert notes(first) == ["resilience: attempt 2 not made: circuit open"]

    def test_rejected_is_no_failure_even_if_listed(self) -> None:
        down = Down(default=RejectedError)
        with pytest.raises(RejectedError):
            Pipeline(Retry(on=Exception)).call(down)
        assert down.calls == 1


@pytest.mark.usefixtures("clock")
class TestAsyncPredicates:
    @pytest.mark.parametrize(
        ("errors", "raised", "calls"),
        [
            ([ConnectionError(), ConnectionError()], None, 3),
            ([ConnectionError(), KeyError()], KeyError, 2),
            ([RejectedError("no")], RejectedError, 1),
        ],
    )
    def test_what_they_list_is_retried(
        self, errors: list[Exception], raised: type[Exception] | None, calls: int
    ) -> None:
        down = Down(*errors)

        async def listed(error: Exception) -> bool:
            return not isinstance(error, KeyError)

        async def main() -> None:
            with contextlib.nullcontext() if raised is None else pytest.raises(raised):
                await Pipeline(Retry(on=listed)).acall(down)

        asyncio.run(main())
        assert down.calls == calls


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit, asyncio.CancelledError])
class TestBaseExceptions:
    def test_sync(self, kind: type[BaseException]) -> None:
        down = Down(default=kind)
        with pytest.raises(kind) as caught:
            Pipeline(Retry(on=Exception)).call(down)
        assert (down.calls, notes(caught.value)) == (1, [])

    def test_async(self, kind: type[BaseException]) -> None:
        down = Down(default=kind)

        async def work() -> str:
            return down()

        coroutine = Pipeline(Retry(on=Exception)).acall(work)
        with pytest.raises(kind):
            coroutine.send(None)
        assert down.calls == 1


class Probe:
    pass


@pytest.fixture
def _no_gc() -> Iterator[None]:
    with no_collection():
        yield


@pytest.mark.usefixtures("clock", "_no_gc")
class TestNoCycles:
    @pytest.mark.parametrize("failures", [1, 2, 99])
    @pytest.mark.parametrize("wait", [0.0, 1.0])
    def test_sync(self, failures: int, wait: float) -> None:
        seen: list[weakref.ref[Probe]] = []

        def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            if len(seen) <= failures:
                raise ConnectionError

        with suppress(ConnectionError):
            Pipeline(Retry(wait=backoff.fixed(wait))).call(work)
        assert len(seen) == min(failures + 1, 3)
        assert [one() for one in seen] == [None] * len(seen)

    @pytest.mark.parametrize("failures", [1, 2, 99])
    @pytest.mark.parametrize("wait", [0.0, 1.0])
    def test_async(self, failures: int, wait: float) -> None:
        seen: list[weakref.ref[Probe]] = []

        async def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            if len(seen) <= failures:
                raise ConnectionError

        async def main() -> list[Probe | None]:
            with suppress(ConnectionError):
                await Pipeline(Retry(wait=backoff.fixed(wait))).acall(work)
            return [one() for one in seen]

        assert asyncio.run(main()) == [None] * min(failures + 1, 3)

    def test_after_a_rejection(self) -> None:
        seen: list[weakref.ref[Probe]] = []

        def work() -> None:
            probe = Probe()
            seen.append(weakref.ref(probe))
            raise ConnectionError

        with suppress(ConnectionError):
            Pipeline(Retry(), OpensAfter(1)).call(work)
        assert [one() for one in seen] == [None]
