"""One call and its ending, as the policies see them."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from resilience.allowlist import Allowlist, Failure, FailureKind
from resilience.budget import RetryBudget
from resilience.clock import FOREVER
from resilience.complaints import hook_failed
from resilience.errors import DeadlineExceededError, RejectedError
from resilience.events import Bus, Event
from resilience.locks import new_lock


class Site:
    """What a policy knows of the pipeline it stands in: the name, the failures, the budget, the listeners."""

    __slots__ = ("__weakref__", "budget", "bus", "failures", "name", "names")

    def __init__(self, name: str, failures: Allowlist, budget: RetryBudget | None, bus: Bus) -> None:
        self.name = name
        self.failures = failures
        self.budget = budget
        self.bus = bus
        self.names: dict[int, str] = {}

    def name_of(self, policy: object) -> str:
        """Return the name that a policy has in this pipeline."""
        return self.names.get(id(policy), "")

    def publish(self, kind: type[Event], policy: object, call: Call, **facts: Any) -> None:
        """Tell the listeners what a policy did to a call."""
        if self.bus.heard(kind):
            self.bus.publish(
                kind,
                pipeline=self.name,
                policy=self.name_of(policy),
                operation=call.operation,
                target=call.binding.target,
                **facts,
            )


class Binding:
    """What is known about the calls of one call site before they are made.

    `idempotent` says whether repeating a call does no harm: True, False, or None for unknown.
    """

    __slots__ = ("idempotent", "operation", "site", "target")

    def __init__(
        self, site: Site, operation: str | None = None, target: str | None = None, idempotent: bool | None = None
    ) -> None:
        self.site = site
        self.operation = operation
        self.target = target
        self.idempotent = idempotent


class Waiter(Protocol):
    """Something to wait for: it takes a callable that ends the wait."""

    def park(self, wake: Callable[[], object]) -> bool:
        """Remember `wake`, and call it once at most; False: there is nothing to wait for any more."""
        ...


class Call:
    """One logical call: what is called with what, which attempt it is, and until when it may take.

    `attempt` counts from 1. `deadline` is a point in time of the ambient clock. `site` is the pipeline that the
    call is in at the moment. It never holds an exception: the cycle would keep the user's frames alive.
    """

    __slots__ = (
        "__weakref__", "_interrupted", "_nap", "args", "attempt", "binding", "deadline", "deferred", "function",
        "kwargs", "site",
    )  # fmt: skip

    def __init__(
        self, binding: Binding, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.binding = binding
        self.site = binding.site
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempt = 1
        self.deadline = FOREVER
        self.deferred: Deferred | None = None

    @property
    def operation(self) -> str:
        """What is called, in words that metrics and logs may show."""
        return self.binding.operation or name_of(self.function)

    @property
    def target(self) -> str | None:
        """Whom the call goes to, such as a host; None when nobody said."""
        return self.binding.target

    @property
    def idempotent(self) -> bool | None:
        """Whether repeating the call does no harm; None when unknown."""
        return self.binding.idempotent

    @property
    def replayable(self) -> bool:
        """Whether what the call sends can be sent again."""
        return True

    def renew(self) -> None:
        """Begin another attempt."""
        self.attempt += 1
        self.deferred = None

    def park(self, wake: Callable[[], object]) -> bool:
        """Sleep until `interrupt`; False when that has happened already."""
        self._nap = wake
        return not self.interrupted

    @property
    def interrupted(self) -> bool:
        """Whether the call must not be retried any more, since its pipeline is being drained."""
        return getattr(self, "_interrupted", False)

    def interrupt(self) -> None:
        """End the wait between two attempts, now and in the future."""
        if not self.interrupted:
            self._interrupted = True
            wake: Callable[[], object] | None = getattr(self, "_nap", None)
            if wake is not None:
                with contextlib.suppress(RuntimeError):  # its event loop is closed: nobody sleeps there any more
                    wake()


def unwrapped(function: Any) -> Any:
    """Return what a partial, or a partial of a partial, calls in the end."""
    while isinstance(function, functools.partial):
        function = operator.attrgetter("func")(function)
    return function


def name_of(function: Callable[..., Any]) -> str:
    """Return a short name: `Client.get` of a method, `fetch` of a function that is local to another."""
    inner = unwrapped(function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]


class EndingKind(StrEnum):
    """How something ended.

    ok: a value, or an exception that is a known answer. failed: a listed failure. timed_out: our own cut fired.
    error: an exception that nobody listed. abandoned: cancelled from outside, or refused by a policy further in, so
    that the dependency was never called. The last two are neutral: permits come back, nobody scores them.
    """

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ERROR = "error"
    ABANDONED = "abandoned"


class Ending:
    """How a call or an attempt ended. `failure` and, for exceptions, `kind` are worked out when first asked for.

    Args:
        kind: None: work it out from the error.
        error: what was raised; None for a value.
        call: the call; None for the shared endings.
        site: the pipeline in whose eyes it is judged.
        replaced: a substitute stood in for the outcome.
    """

    __slots__ = ("_failure", "_kind", "call", "error", "replaced", "site")

    def __init__(
        self,
        kind: EndingKind | None = None,
        error: BaseException | None = None,
        call: Call | None = None,
        site: Site | None = None,
        *,
        replaced: bool = False,
    ) -> None:
        self._kind = kind
        self._failure: Failure | None = None
        self.error = error
        self.call = call
        self.site = site
        self.replaced = replaced

    @property
    def kind(self) -> EndingKind:
        """One of the five kinds."""
        if self._kind is None:
            self._kind, self._failure = self._judge()
        return self._kind

    @property
    def failure(self) -> Failure | None:
        """The failure that it is in the eyes of the pipeline; None where it is none."""
        if self._kind is None:
            self._kind, self._failure = self._judge()
        return self._failure

    def failure_by(self, allowlist: Allowlist | None) -> Failure | None:
        """The failure that it is by a policy's own allowlist; None given: the pipeline's."""
        return self.failure if allowlist is None else judge(self.error, allowlist)[1]

    def _judge(self) -> tuple[EndingKind, Failure | None]:
        return judge(self.error, self.site.failures if self.site is not None else NOTHING)


def judge(error: BaseException | None, allowlist: Allowlist) -> tuple[EndingKind, Failure | None]:
    """Return the kind of ending that `error` is, and the failure, in the eyes of an allowlist."""
    if not isinstance(error, Exception) or isinstance(error, RejectedError):
        return EndingKind.ABANDONED, None
    if isinstance(error, DeadlineExceededError):
        return (EndingKind.ABANDONED, None) if error.unprocessed else (EndingKind.TIMED_OUT, DEADLINE)
    try:
        failure = allowlist.classify(error)
        if failure is not None:
            return EndingKind.FAILED, failure
        return (EndingKind.OK if allowlist.is_answer(error) else EndingKind.ERROR), None
    except Exception as broken:
        hook_failed("predicate of an allowlist", allowlist, broken)
        return EndingKind.ERROR, None


DEADLINE = Failure(FailureKind.TIMEOUT)
NOTHING = Allowlist()
OK = Ending(EndingKind.OK)
"""The ending of every call that returned a value."""

Settle: TypeAlias = "Callable[[Any, Ending], object]"


class Deferred:
    """The settling that waits for a streamed result to end: exactly once, whoever ends it.

    Gates register innermost first. A gate that registers after the end is settled at once. When the last reference
    is dropped without an end, the gates are settled as abandoned, at the next call: a finaliser may run inside a
    locked region, so it only leaves a note.
    """

    __slots__ = ("__weakref__", "_ending", "_lock", "_waiting")

    def __init__(self, ending: Ending | None = None) -> None:
        self._lock = new_lock()
        self._ending = ending
        self._waiting: list[tuple[Settle, Any]] = []

    @property
    def ended(self) -> bool:
        """Whether the end has come."""
        return self._ending is not None

    def then(self, settle: Settle, token: Any) -> None:
        """Settle a gate when the end comes, or at once if it has come."""
        with self._lock:
            ending = self._ending
            if ending is None:
                self._waiting.append((settle, token))
        if ending is not None:
            conclude(settle, token, ending)

    def end(self, ending: Ending) -> None:
        """Settle everything with this ending; a second end changes nothing."""
        with self._lock:
            if self._ending is not None:
                return
            self._ending = ending
            waiting, self._waiting = self._waiting, []
        for settle, token in waiting:
            conclude(settle, token, ending)

    def __del__(self) -> None:
        if self._waiting:
            lost.append(self._waiting)


lost: deque[list[tuple[Settle, Any]]] = deque()
"""What dropped streams have left to settle; every entry into a pipeline sweeps it."""


def sweep() -> None:
    """Settle what dropped streams have left, as abandoned."""
    while lost:
        try:
            waiting = lost.popleft()
        except IndexError:
            return
        for settle, token in waiting:
            conclude(settle, token, _ABANDONED)


_ABANDONED = Ending(EndingKind.ABANDONED)
REPLACED = Deferred(Ending(EndingKind.OK, replaced=True))
"""The end of a call whose outcome a substitute has replaced."""


def conclude(settle: Settle, token: Any, ending: Ending) -> None:
    """Settle one gate. What its hook raises is logged once, and the other gates still hear of the ending."""
    try:
        settle(token, ending)
    except Exception as error:
        hook_failed("settle of a policy", settle, error)
