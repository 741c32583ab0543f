"""Metrics that write down what they are given, for tests of the core."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from resilience._call.call import PipelineInfo
from resilience._drivers.meter_gate import MeterGate
from resilience._pipeline.observers import Meters, Metrics, install, uninstall
from resilience.events import Outcome


class Noted(MeterGate):
    """Writes down how calls or attempts end.

    Attributes:
        pending: the durations of good endings with a single attempt.
        others: the outcome, the duration and the number of attempts of all others.
        flushed: how many durations were pending at each flush.
    """

    def __init__(self, *, is_of_calls: bool) -> None:
        super().__init__(is_of_calls=is_of_calls)
        self.ok = self.pending.append
        self.others: list[tuple[Outcome, float, int]] = []
        self.flushed: list[int] = []
        self._lock = threading.Lock()

    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        self.others.append((outcome, seconds, attempts))

    def flush(self) -> None:
        with self._lock:
            number = len(self.pending)
            del self.pending[:number]
            self.flushed.append(number)


class Tally(Metrics):
    """Measures all pipelines together, or those with one of some names.

    Attributes:
        calls: what became of calls.
        attempts: what became of attempts.
        asked: the name of each pipeline whose meters were asked for.
    """

    def __init__(self, *names: str) -> None:
        self.calls = Noted(is_of_calls=True)
        self.attempts = Noted(is_of_calls=False)
        self.names = names
        self.asked: list[str] = []

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        self.asked.append(info.name)
        return None if self.names and info.name not in self.names else Meters(self.calls, self.attempts)

    @property
    def outcomes(self) -> list[str]:
        """The outcomes of all calls, the good ones with a single attempt first."""
        return ["ok"] * len(self.calls.pending) + [outcome.value for outcome, _, _ in self.calls.others]

    @property
    def outcomes_of_attempts(self) -> list[str]:
        """The outcomes of all attempts, the good ones first."""
        return ["ok"] * len(self.attempts.pending) + [outcome.value for outcome, _, _ in self.attempts.others]


@contextmanager
def measured(*names: str) -> Generator[Tally]:
    """Measure what is called in the block: all pipelines, or those with one of some names."""
    tally = Tally(*names)
    install(tally)
    try:
        yield tally
    finally:
        uninstall(tally)
