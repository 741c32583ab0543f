"""Virtual time among threads: waits end in the order of time, and no time passes while a thread works."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar
from weakref import WeakSet

from resilience import new_lock
from resilience._util import validation
from resilience._util.clock import FOREVER, SystemClock, clock
from resilience._util.locks import members
from resilience._util.log_once import logger

P = ParamSpec("P")
R = TypeVar("R")
GRACE: Final = 0.02
"""Real seconds for which nothing must change before a wait passes over a thread that may hang, or is not known."""
POLL: Final = 0.002
"""Real seconds between two looks at whether it is the turn of a wait."""
_real_time = SystemClock().monotonic


class Job:
    """Work that others wait for: a function on a thread of its own, or an event loop.

    Args:
        done: a lock that is released at the end; None without one.

    Attributes:
        thread: the identifier of the thread on which it runs; None before it starts, and from its end until its result
            has been delivered.
        since: the real time at which it started, ended, or last waited in virtual time.
        over: whether nothing waits for it any more.
    """

    __slots__ = ("__weakref__", "done", "over", "since", "thread")

    def __init__(self, done: threading.Lock | None = None) -> None:
        self.done = done
        self.thread: int | None = None
        self.since = _real_time()
        self.over = False

    def begin(self) -> None:
        """Begin on this thread."""
        self.since = _real_time()
        self.thread = threading.get_ident()

    def deliver(self) -> None:
        """Note that the work is done. The job is over when its result has reached what waits for it."""
        self.since = _real_time()
        self.thread = None

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return a function that does this job by calling `function`. What waits for its result ends the job."""

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            self.begin()
            try:
                return function(*args, **kwargs)
            finally:
                self.deliver()

        return run


class JumpingClock:
    """A time that does not pass by itself: a wait advances it when it is its turn.

    That is when no other wait ends earlier, and no job runs on another thread. A job that has been running for
    `patience` real seconds without a wait in virtual time may hang, or wait for something that only time brings: it is
    passed over when no wait has begun or ended, and no job ended, for GRACE, at the latest after `patience`.

    Attributes:
        patience: the real seconds for which no time passes while a thread works.
        trio_alarms: the times of the alarms in runs of trio.
        fired_count: the number of those that have fired.
    """

    def __init__(self) -> None:
        self._start = float(round(clock.monotonic()))
        self._elapsed = 0.0
        self._lock = new_lock()
        self._jobs: WeakSet[Job] = WeakSet()
        self._waits: dict[int, tuple[float, float]] = {}
        self._changed = 0.0
        self._warned = False
        self.patience = 2.0
        self.trio_alarms: list[float] = []
        self.fired_count = 0

    @property
    def elapsed(self) -> float:
        """The virtual seconds since the clock was made."""
        return self._elapsed

    def monotonic(self) -> float:
        """Return the current virtual time, in seconds."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """Advance the time.

        Args:
            seconds: the seconds to advance, >= 0.

        Raises:
            TypeError, ValueError: `seconds` is not a finite number >= 0.
        """
        with self._lock:
            self._elapsed += validation.number("seconds", seconds)

    def jump(self, at: float) -> None:
        """Advance the time to `at`, in seconds as `monotonic` returns them; a time in the past has no effect."""
        with self._lock:
            self._elapsed = max(self._elapsed, at - self._start)

    def add(self, job: Job) -> Job:
        """Consider a job from now on, and return it."""
        self._jobs.add(job)
        return job

    def finish(self, job: Job) -> None:
        """End a job."""
        self._changed = _real_time()
        job.over = True

    def jobs_of(self, done: threading.Lock) -> list[Job]:
        """Return the jobs that release this lock at their end."""
        return [job for job in members(self._jobs) if job.done is done]

    def running(self) -> list[Job]:
        """Return the jobs that neither run on this thread nor wait in virtual time."""
        me = threading.get_ident()
        others = [job for job in members(self._jobs) if not job.over and job.thread != me]
        return [job for job in others if job.thread not in self._waits]

    def is_held_up(self, jobs: list[Job]) -> bool:
        """Return whether no time may pass because of these jobs, which are running."""
        now = _real_time()
        return any(now - job.since < self.patience for job in jobs)

    @contextmanager
    def waiting(self, seconds: float) -> Generator[float]:
        """Have this thread wait in the `with` block.

        Args:
            seconds: how long it waits at most, in virtual seconds; FOREVER if only an event ends the wait.

        Yields:
            The end of the wait, for `take_turn`.
        """
        try:
            yield self.enter(seconds)
        finally:
            self.leave()

    def enter(self, seconds: float) -> float:
        """Begin a wait of this thread, or go on with it, and return its end, as `waiting` does."""
        me = threading.get_ident()
        with self._lock:
            end = self._elapsed + seconds
            if me not in self._waits:
                self._changed = _real_time()
                self._waits[me] = end, self._changed
            else:
                self._waits[me] = end, self._waits[me][1]
        return end

    def leave(self) -> None:
        """End the wait of this thread, if there is one."""
        me = threading.get_ident()
        if me in self._waits:
            with self._lock:
                for job in members(self._jobs):
                    if job.thread == me:
                        job.begin()
                self._changed = _real_time()
                del self._waits[me]

    def take_turn(self, end: float, grace: float = 0.0) -> bool:
        """Return whether the wait of this thread has ended; advance the time to its end if it is its turn.

        Args:
            end: what `waiting` has returned.
            grace: the real seconds for which nothing must have changed, for threads that are not known.
        """
        with self._lock:
            if self._elapsed >= end:
                return True
            jobs = self.running()
            if end == FOREVER or end > min(self._waits.values())[0] or self.is_held_up(jobs):
                return False
            now, began = _real_time(), self._waits[threading.get_ident()][1]
            if now - self._changed < (GRACE if jobs else grace) and now - began < self.patience + GRACE:
                return False
            self._elapsed = end
        self.warn_of(jobs)
        return True

    def warn_of(self, jobs: list[Job]) -> None:
        """Log once that time passes although these jobs are running."""
        if not self._warned and any(job.thread is not None for job in jobs):
            self._warned = True
            logger.warning(
                "virtual time passes although a thread has been working for %g real seconds; set `patience` of the "
                "VirtualClock for work that takes longer, or let a function that hangs call its `advance`",
                self.patience,
            )
