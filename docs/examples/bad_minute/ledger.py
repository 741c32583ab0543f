"""What the clients noted about their calls, and whether the services agree with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from docs.examples.bad_minute.script import GUARDED, Phase
from resilience import FailureKind, Pipeline
from resilience.events import AttemptEnded, CallEnded, RetryScheduled


class Fate(Enum):
    """What the client knows about one attempt."""

    ANSWERED = "the service answered, be it with an error"
    REFUSED = "no connection was made, so that it cannot have arrived"
    CUT = "its time was up"
    BROKEN = "the connection broke"


class Outcome(Enum):
    """How a call ended for its caller."""

    OK = "ok"
    FAILED = "failed"
    REJECTED = "rejected by a policy, and nothing was sent"


@dataclass
class Attempt:
    """One request on the wire."""

    name: str
    began: float
    ended: float = float("inf")
    fate: Fate | None = None

    def settle(self, fate: Fate) -> None:
        """Note what became of it, unless that is known."""
        if self.fate is None:
            self.fate = fate
            self.ended = time.monotonic()


@dataclass
class Call:
    """One call as its caller sees it."""

    name: str
    client: str
    phase: Phase
    safe: bool
    due: float
    attempts: list[Attempt] = field(default_factory=list)
    outcome: Outcome | None = None
    seconds: float = 0.0

    def __deepcopy__(self, memo: object) -> Call:
        """Return this call: a guarded channel copies its requests, and this one notes its attempts."""
        return self

    def send(self) -> Attempt:
        """Note that another attempt goes out."""
        attempt = Attempt(f"{self.name}-{len(self.attempts) + 1}", time.monotonic())
        self.attempts.append(attempt)
        return attempt

    def settle(self, fate: Fate) -> None:
        """Note what became of the last attempt."""
        if self.attempts:
            self.attempts[-1].settle(fate)

    def end(self, outcome: Outcome) -> None:
        """Note how the call ended."""
        self.outcome = outcome
        self.seconds = time.monotonic() - self.due


CURRENT: ContextVar[Call] = ContextVar("the call that this task or thread is making")


@dataclass
class Death:
    """When a service was surely not listening (seconds of the monotonic clock), and when it perhaps was not."""

    asked: float = float("inf")
    confirmed: float = float("inf")
    revived: float = float("inf")


class Ledger:
    """All calls of both clients to one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.calls: list[Call] = []
        self.death = Death()
        self.events = Counter[str]()
        self._lock = threading.Lock()

    def new_call(self, client: str, phase: Phase, *, safe: bool, due: float) -> Call:
        """Begin a call, and make it the current one of this task or thread."""
        with self._lock:
            call = Call(f"{client}-{len(self.calls)}", client, phase, safe, due)
            self.calls.append(call)
        CURRENT.set(call)
        return call

    def listen(self, pipeline: Pipeline[Any]) -> None:
        """Hear what the library says of the guarded client, to compare it with what was seen on the wire."""
        pipeline.subscribe(self._hear, events=(AttemptEnded, CallEnded, RetryScheduled))

    def _hear(self, event: AttemptEnded | CallEnded | RetryScheduled) -> None:
        if isinstance(event, RetryScheduled):
            failure = event.failure
            cut = failure.kind is FailureKind.TIMEOUT
            CURRENT.get().settle(Fate.REFUSED if failure.unprocessed else Fate.CUT if cut else Fate.BROKEN)
            return
        with self._lock:
            self.events[type(event).__name__] += 1
            if isinstance(event, CallEnded):
                self.events["attempts of calls"] += event.attempts

    def of(self, client: str, phase: Phase | None) -> list[Call]:
        """Return the calls of one client, in one phase or in all."""
        return [call for call in self.calls if call.client == client and phase in (None, call.phase)]


@dataclass
class Seen:
    """What a service says that it saw."""

    arrived: dict[str, int]
    done: dict[str, int]

    def arrivals(self, calls: Iterable[Call]) -> int:
        """Return how many requests of these calls the service saw."""
        return sum(self.arrived.get(attempt.name, 0) for call in calls for attempt in call.attempts)

    def doubled(self, calls: Iterable[Call]) -> int:
        """Return how many orders were carried out more than once."""
        return sum(self.times_done(call) > 1 for call in calls if not call.safe)

    def times_done(self, call: Call) -> int:
        """Return how often the work of a call was done."""
        return sum(self.done.get(attempt.name, 0) for attempt in call.attempts)


def never_arrived(ledger: Ledger, seen: Seen, calls: Iterable[Call]) -> tuple[int, int]:
    """Return how many attempts were provably refused, and how many got lost on their way."""
    missing = [attempt for call in calls for attempt in call.attempts if attempt.name not in seen.arrived]
    refused = sum(surely_refused(attempt, ledger.death) for attempt in missing)
    return refused, len(missing) - refused


def surely_refused(attempt: Attempt, death: Death) -> bool:
    """Return whether it cannot have arrived: no connection was made, or nobody listened all the while."""
    nobody_listened = death.confirmed <= attempt.began and attempt.ended <= death.revived
    return attempt.fate is Fate.REFUSED or nobody_listened


def disagreements(ledger: Ledger, seen: Seen) -> list[str]:
    """Return everything in which the clients, the services and the library's own events contradict one another."""
    found: list[str] = []
    sent = {attempt.name for call in ledger.calls for attempt in call.attempts}
    for name, times in seen.arrived.items():
        if name not in sent:
            found.append(f"{name} arrived, but no client has sent it")
        if times > 1:
            found.append(f"{name} was sent once, and arrived {times} times")
    for call in ledger.calls:
        found += _wrong_with(call, ledger.death, seen)
    guarded = ledger.of(GUARDED, None)
    counted = {
        "CallEnded": len(guarded),
        "AttemptEnded": sum(len(call.attempts) for call in guarded),
        "attempts of calls": sum(len(call.attempts) for call in guarded),
    }
    found += [
        f"the library's events count {ledger.events[name]} ({name}), but there were {count}"
        for name, count in counted.items()
        if ledger.events[name] != count
    ]
    return [f"{ledger.service}: {sentence}" for sentence in found]


def _wrong_with(call: Call, death: Death, seen: Seen) -> Iterable[str]:
    if call.outcome is None:
        yield f"{call.name} never ended"
    if call.outcome is Outcome.REJECTED and call.attempts:
        yield f"{call.name} was rejected as not sent, but {len(call.attempts)} attempts were made"
    if call.outcome is Outcome.OK and not (call.attempts and call.attempts[-1].name in seen.done):
        yield f"{call.name} was answered, but the service has not done it"
    if call.client == GUARDED and not call.safe and seen.times_done(call) > 1:
        yield f"{call.name} is not safe to repeat, and was carried out {seen.times_done(call)} times"
    for attempt in call.attempts:
        arrived = attempt.name in seen.arrived
        if arrived and attempt.fate is Fate.REFUSED:
            yield f"{attempt.name} was called unprocessed, but arrived"
        if not arrived and not (surely_refused(attempt, death) or _may_be_lost(attempt, death)):
            yield f"{attempt.name} never arrived, and nothing explains that: {attempt.fate}"


def _may_be_lost(attempt: Attempt, death: Death) -> bool:
    """Return whether it may have been under way when its time was up, or when the service died."""
    dying = attempt.began <= death.confirmed and attempt.ended >= death.asked
    return attempt.fate is Fate.CUT or (attempt.fate is Fate.BROKEN and dying)
