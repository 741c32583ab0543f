"""When a Retry gives up, and what it says: the event, and the note on the exception."""

import pytest

from resilience import Call, Failure, Pipeline, Retry, RetryBudget, backoff
from resilience.events import GiveUpReason, RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock
from tests.policies.retry.helpers import Down, gives_up, listing, notes
from tests.support.policies import Hurry

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestGivingUp:
    def test_attempts(self) -> None:
        down = Down(default=ConnectionError)
        gives_up(Pipeline(Retry(), name="quotes"), down, GiveUpReason.ATTEMPTS, "no attempts are left", attempts=3)

    def test_deadline(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Hurry(5), Retry(wait=backoff.fixed(2), attempts=9), name="quotes")
        words = "the next wait would end past the deadline"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.DEADLINE, words, attempts=3)
        assert clock.sleeps == [2, 2]

    def test_the_time_since_the_first_attempt_is_told(self, clock: VirtualClock) -> None:
        clock.advance(7)
        pipeline = Pipeline(Retry(wait=backoff.fixed(2)))
        with Recorder(pipeline, events=[RetryGivenUp]) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(Down(default=ConnectionError))
        assert [event.elapsed for event in recorder.of(RetryGivenUp)] == [pytest.approx(4)]
        assert "gave up after 3 attempts in 4 s: " in notes(caught.value)[0]

    def test_a_wait_that_ends_at_the_deadline_is_not_slept(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Hurry(2), Retry(wait=backoff.fixed(2)), name="quotes")
        words = "the next wait would end past the deadline"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.DEADLINE, words, attempts=1)
        assert clock.sleeps == []

    def test_budget(self) -> None:
        pipeline = Pipeline(Retry(), name="quotes", budget=RetryBudget(initial=1))
        down = Down(default=ConnectionError)
        gives_up(pipeline, down, GiveUpReason.BUDGET, "the retry budget is empty", attempts=2)

    def test_not_idempotent(self) -> None:
        words = "the call is not idempotent, and may have been processed"
        pipeline = Pipeline(Retry(), name="quotes")
        down = Down(default=ConnectionError)
        gives_up(pipeline, down, GiveUpReason.NOT_IDEMPOTENT, words, attempts=1, idempotent=False)

    def test_not_retryable(self) -> None:
        pipeline = Pipeline(Retry(), name="quotes", failures=listing(Failure(retryable=False)))
        down = Down(default=ConnectionError)
        words = "such a failure is not retried, unless the server asks for it"
        gives_up(pipeline, down, GiveUpReason.NOT_RETRYABLE, words, attempts=1)

    def test_body_not_replayable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Call, "replayable", False)
        words = "the request body cannot be sent again"
        pipeline = Pipeline(Retry(), name="quotes")
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.BODY_NOT_REPLAYABLE, words, attempts=1)

    def test_retry_after(self) -> None:
        words = "the server asks for a longer wait than max_retry_after"
        pipeline = Pipeline(Retry(), name="quotes", failures=listing(Failure(retry_after=60.5)))
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.RETRY_AFTER, words, attempts=1)

    def test_one_attempt_never_meant_to_retry_so_another_level_may(self) -> None:
        pipeline = Pipeline(Retry(2, wait=backoff.none()), Pipeline(Retry(1)))
        down = Down(default=ConnectionError)
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(down)
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts"]
        assert down.calls == 2
        assert "gave up after 2 attempts" in notes(caught.value)[0]

    def test_one_attempt_is_told_like_others(self) -> None:
        pipeline = Pipeline(Retry(1))
        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
            pipeline.call(Down(default=ConnectionError))
        assert [event.attempts for event in recorder.of(RetryGivenUp)] == [1]
        assert "gave up after 1 attempt in" in notes(caught.value)[0]

    def test_an_unlisted_error_comes_out_as_it_is(self) -> None:
        pipeline = Pipeline(Retry())
        down = Down(default=KeyError)
        with Recorder(pipeline, events=[RetryGivenUp, RetryScheduled]) as recorder, pytest.raises(KeyError) as caught:
            pipeline.call(down)
        assert (down.calls, recorder.events, notes(caught.value)) == (1, [], [])

    def test_a_pipeline_without_a_name(self) -> None:
        with pytest.raises(ConnectionError) as caught:
            Pipeline(Retry()).call(Down(default=ConnectionError))
        assert notes(caught.value)[0].startswith("resilience: retry gave up after 3 attempts in ")

    @pytest.mark.parametrize("unsent", [True, False, None])
    @pytest.mark.parametrize("unprocessed", [True, False])
    def test_what_the_client_knows_about_the_request_counts(
        self, unsent: bool | None, unprocessed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Call, "unsent", unsent)
        down = Down(default=ConnectionError)
        pipeline = Pipeline(Retry(), failures=listing(Failure(unprocessed=unprocessed)))

        with pytest.raises(ConnectionError):
            pipeline.bind(idempotent=False).call(down)

        assert down.calls == (3 if (unprocessed if unsent is None else unsent) else 1)

    def test_the_time_may_be_longer_than_the_clock_had_run_before(self, clock: VirtualClock) -> None:
        long = 3 * clock.monotonic()
        pipeline = Pipeline(Retry(2, wait=backoff.fixed(long)))
        with Recorder(pipeline, events=[RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            pipeline.call(Down(default=ConnectionError))
        assert [event.elapsed for event in recorder.of(RetryGivenUp)] == [pytest.approx(long)]

    @pytest.mark.parametrize(("max_retry_after", "calls"), [(60.0, 3), (0.5, 3), (0.0, 1)])
    def test_the_hint_of_what_was_not_processed_must_be_kept(self, max_retry_after: float, calls: int) -> None:
        """A Retry that ignores hints does not repeat a call that is not idempotent and has one."""
        down = Down(default=ConnectionError)
        failures = listing(Failure(unprocessed=True, retry_after=0.25))
        pipeline = Pipeline(Retry(max_retry_after=max_retry_after), failures=failures)

        with pytest.raises(ConnectionError):
            pipeline.bind(idempotent=False).call(down)

        assert down.calls == calls
