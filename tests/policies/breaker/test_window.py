"""The windows in which a circuit breaker counts, compared with plain lists."""

import itertools
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._policies.breaker.window import BUCKETS, NONE, CallWindow, Counts, TimeWindow
from tests.support.threads import in_threads

exactly = settings(derandomize=True, database=None, deadline=None, max_examples=150)
START = 1000.0
SPAN = 10.0
THREADS = 8


def succeed(window: TimeWindow, now: float) -> None:
    """Count a success as the breaker does: without the lock, but for the first one in a bucket."""
    if now >= window.bucket_end:
        window.rotate(now)
    next(window.count)


# Counts


def test_rates() -> None:
    assert NONE == (0, 0, 0)
    assert (NONE.rate, NONE.slow_rate) == (0.0, 0.0)
    assert (Counts(4, 3, 1).rate, Counts(4, 3, 1).slow_rate) == (0.75, 0.25)
    assert Counts(20, 14, 0).rate >= 0.7


# The time window


def test_a_call_is_forgotten_after_the_span() -> None:
    window = TimeWindow(SPAN, START)
    window.add(START, failed=True, slow=False)
    assert window.counts(START + 9.75) == (1, 1, 0)
    assert window.counts(START + 10) == NONE


def test_every_kind_of_call() -> None:
    window = TimeWindow(SPAN, START)
    succeed(window, START)
    window.add(START, failed=True, slow=False)
    window.add(START, failed=True, slow=True)
    window.add(START, failed=False, slow=True)
    window.add(START, failed=False, slow=False)
    assert window.counts(START) == (5, 2, 2)
    assert window.totals() == (5, 2, 2)


def test_the_edges_of_buckets() -> None:
    window = TimeWindow(SPAN, START)
    succeed(window, START + 0.75)
    assert window.bucket_end == START + 1
    succeed(window, START + 1)
    assert window.bucket_end == START + 2
    assert window.counts(START + 9.75).calls == 2
    assert window.counts(START + 10).calls == 1
    assert window.counts(START + 10.75).calls == 1
    assert window.counts(START + 11).calls == 0


@pytest.mark.parametrize("span", [0.001, 0.1, 1.0, 3.0, 7.7, 3600.0])
@pytest.mark.parametrize("start", [0.0, 0.1, 12345.678])
def test_each_bucket_begins_at_its_edge(span: float, start: float) -> None:
    window = TimeWindow(span, start)
    for _ in range(100):
        edge = window.bucket_end
        window.rotate(edge)
        if window.bucket_end == edge:  # by a rounding, the edge itself may still belong to the bucket before it
            window.rotate(edge * (1 + 1e-12))
        assert window.bucket_end == pytest.approx(edge + span / BUCKETS, rel=1e-9)


def test_after_a_long_rest_it_is_empty_and_goes_on() -> None:
    for rest in (10.0, 11.25, 1e3, 1e9, 1e15, 1e300):
        window = TimeWindow(SPAN, START)
        window.add(START, failed=True, slow=True)
        succeed(window, START + rest)
        assert window.counts(START + rest) == (1, 0, 0)
        assert window.counts(START + rest) == (1, 0, 0)


def test_after_a_rest_its_buckets_begin_anew() -> None:
    window = TimeWindow(SPAN, START)
    succeed(window, START + 10.5)
    assert window.bucket_end == START + 11.5
    window = TimeWindow(SPAN, START)
    succeed(window, START + 100.75)
    assert window.bucket_end == START + 101.75
    assert window.counts(START + 110.5).calls == 1
    assert window.counts(START + 110.75).calls == 0


def test_standing_time() -> None:
    window = TimeWindow(SPAN, START)
    for _ in range(1000):
        succeed(window, START)
        window.add(START, failed=True, slow=False)
    assert window.counts(START) == (2000, 1000, 0)


def test_a_moment_that_is_a_little_late_counts_in_the_bucket_of_now() -> None:
    window = TimeWindow(SPAN, START)
    window.rotate(START + 5)
    edge = window.bucket_end
    window.add(START + 4.99, failed=True, slow=False)
    window.add(START - 4.99, failed=True, slow=False)
    assert window.bucket_end == edge
    assert window.counts(START + 5).failures == 2


def test_another_clock_empties_it() -> None:
    window = TimeWindow(SPAN, START)
    window.rotate(START + 5)
    window.add(START + 5, failed=True, slow=False)
    assert window.counts(START - 500) == NONE
    window.add(START - 500, failed=True, slow=False)
    assert window.counts(START - 491) == (1, 1, 0)
    assert window.counts(START - 490) == NONE


@pytest.mark.parametrize("span", [SPAN, 0.5])
@pytest.mark.parametrize("moment", [START - 400, START - 11, START + 20])
def test_a_failure_outside_of_the_window_empties_it(span: float, moment: float) -> None:
    window = TimeWindow(span, START)
    window.add(START, failed=True, slow=False)
    assert window.add(moment, failed=True, slow=True) == (1, 1, 1)
    assert window.bucket_end == moment + span / 10


def test_a_failure_at_the_edge_begins_a_bucket() -> None:
    window = TimeWindow(SPAN, START)
    window.add(window.bucket_end, failed=True, slow=False)
    assert window.bucket_end == START + 2
    assert window.counts(START + 10).calls == 1


def test_looking_changes_nothing() -> None:
    window = TimeWindow(SPAN, START)
    succeed(window, START)
    for _ in range(10):
        assert window.counts(START) == window.totals() == (1, 0, 0)


def test_the_row_of_failures() -> None:
    window = TimeWindow(SPAN, START)
    rows: list[int] = []
    for word in "FFsFFFSFFwFF":
        match word:
            case "s":
                succeed(window, START)
            case "S" | "w":
                window.add(START, failed=False, slow=word == "w")
            case _:
                window.add(START, failed=True, slow=False)
        rows.append(window.consecutive)
    assert rows == [1, 2, 2, 1, 2, 3, 0, 1, 2, 0, 1, 2]


def test_a_row_is_not_broken_by_time() -> None:
    window = TimeWindow(SPAN, START)
    for number in range(5):
        window.add(START + number * 1000, failed=True, slow=False)
        window.counts(START + number * 1000 + 500)
    assert window.consecutive == 5


@dataclass
class TimeModel:
    """Lists of all calls, and of when a bucket begins."""

    start: float = START
    latest: int = 0
    calls: list[tuple[int, bool, bool]] = field(default_factory=list)
    consecutive: int = 0

    def bucket(self, now: float) -> int:
        bucket = int((now - self.start) // (SPAN / BUCKETS))
        if bucket - self.latest >= BUCKETS:
            self.start, self.calls, bucket = now, [], 0
        self.latest = bucket
        return bucket

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        bucket = self.bucket(now)
        self.calls.append((bucket, failed, slow))
        self.consecutive = self.consecutive + 1 if failed else 0

    def counts(self, now: float) -> tuple[int, int, int]:
        oldest = self.bucket(now) - BUCKETS + 1
        held = [call for call in self.calls if call[0] >= oldest]
        return len(held), sum(call[1] for call in held), sum(call[2] for call in held)


steps = st.one_of(
    st.sampled_from(["success", "fine", "failed", "slow", "both", "look"]),
    st.sampled_from([0.25, 0.75, 1.0, 3.5, 9.75, 10.0, 12.25, 1000.0]),
)


@exactly
@given(st.lists(steps, max_size=80))
def test_a_time_window_agrees_with_a_list(script: list[str | float]) -> None:
    window, model, now = TimeWindow(SPAN, START), TimeModel(), START
    seen: list[tuple[float, bool]] = []
    for step in script:
        if isinstance(step, float):
            now += step
        elif step == "success":
            succeed(window, now)
            model.add(now, failed=False, slow=False)
            seen.append((now, False))
        elif step == "look":
            counts = window.counts(now)
            assert counts == model.counts(now)
            # Whatever the buckets: what is younger than nine tenths is there, and what is too old is not.
            assert (
                sum(at >= now - SPAN * 0.9 for at, _ in seen) <= counts.calls <= sum(at > now - SPAN for at, _ in seen)
            )
            assert counts.failures <= sum(at > now - SPAN for at, failed in seen if failed)
        else:
            failed, slow = step in ("failed", "both"), step in ("slow", "both")
            window.add(now, failed=failed, slow=slow)
            model.add(now, failed=failed, slow=slow)
            seen.append((now, failed))
            assert window.totals() == model.counts(now)
            assert window.consecutive == model.consecutive
    assert window.counts(now) == model.counts(now)


# The window of calls


def test_only_the_last_calls_count() -> None:
    window = CallWindow(3)
    for failed in (True, True, True, False):
        window.add(START, failed=failed, slow=failed)
    assert window.counts(START) == (3, 2, 2)
    assert window.consecutive == 0
    assert window.counts(START + 1e9) == (3, 2, 2)


def test_a_long_window_of_calls_forgets_too() -> None:
    window = CallWindow(1000)
    for number in range(1500):
        window.add(START, failed=number < 600, slow=number < 700)
    assert window.counts(START) == (1000, 100, 200)


@exactly
@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_a_window_of_calls_agrees_with_a_list(span: int, calls: list[tuple[bool, bool]]) -> None:
    window = CallWindow(span)
    for number, (failed, slow) in enumerate(calls, start=1):
        window.add(START, failed=failed, slow=slow)
        last = calls[:number][-span:]
        assert window.totals() == (len(last), sum(call[0] for call in last), sum(call[1] for call in last))
        assert window.consecutive == len(list(itertools.takewhile(lambda call: call[0], reversed(calls[:number]))))


# Copies


@pytest.mark.parametrize("window", [TimeWindow(SPAN, START), CallWindow(10)])
def test_a_copy_begins_with_the_same_counts_and_goes_on_by_itself(window: TimeWindow | CallWindow) -> None:
    for failed, slow in ((False, False), (False, True), (True, True)):
        window.add(START, failed=failed, slow=slow)
    copied = window.copy()
    assert copied.counts(START) == window.counts(START) == (3, 1, 2)

    window.add(START, failed=False, slow=False)
    assert copied.add(START, failed=True, slow=False) == (4, 2, 2)

    assert (copied.consecutive, window.consecutive) == (2, 0)
    assert copied.counts(START) == (4, 2, 2)
    assert window.counts(START) == (4, 1, 2)


# Threads


@pytest.mark.usefixtures("frequent_switches")
def test_successes_without_the_lock_are_exact() -> None:
    window = TimeWindow(1e6, START)
    lock = threading.Lock()

    def work(_: int) -> None:
        for number in range(400):
            now = START + number * 200.0  # everybody meets every edge of a bucket, and none is forgotten
            if now >= window.bucket_end:
                with lock:
                    window.rotate(now)
            next(window.count)
            if number % 10 == 0:
                with lock:
                    window.add(now, failed=True, slow=number % 20 == 0)
                    window.counts(now)

    in_threads(THREADS, work)
    assert window.counts(START + 400 * 200.0) == (THREADS * 440, THREADS * 40, THREADS * 20)


def test_after_a_silence_as_long_as_the_window_it_begins_anew() -> None:
    window = TimeWindow(SPAN, START)
    window.add(START, failed=True, slow=False)

    window.rotate(START + 10.25)

    assert window.bucket_end == START + 10.25 + SPAN / BUCKETS
    assert window.totals() == NONE


def test_slow_calls_are_forgotten_too() -> None:
    window = TimeWindow(SPAN, START)
    window.add(START, failed=False, slow=True)
    window.add(START, failed=True, slow=True)
    window.rotate(START + SPAN - 0.25)

    window.rotate(START + SPAN + 0.25)

    assert window.add(START + SPAN + 0.25, failed=False, slow=True) == (1, 0, 1)
    assert window.totals() == (1, 0, 1)
