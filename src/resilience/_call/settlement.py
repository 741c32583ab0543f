"""Settling: what happens to the tokens of gates when a call, or the stream that it returned, has ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from resilience._outcome.ending import Ending, EndingKind
from resilience._util.finalizers import pending, settle_from_finalizer, settle_pending
from resilience._util.log_once import hook_failed

Settle: TypeAlias = "Callable[[Any, Ending], object]"


class Settler(Protocol):
    """A gate, as far as settling it goes."""

    @property
    def holds_permit(self) -> bool:
        """Whether its token is in use for as long as the work goes on."""
        ...

    def on_response_head(self, token: Any) -> Any:
        """Hear that the head of a streamed result has come."""

    def settle(self, token: Any, ending: Ending) -> None:
        """Hear how it ended."""


class Unsettled(deque[tuple[Settle, Any]]):
    """What is to be settled. Called, it settles all of that as abandoned, for a finalizer to leave it behind."""

    __slots__ = ()

    def __call__(self) -> None:
        settle_all(self, _ABANDONED)


class DeferredSettlement:
    """The settling that waits for something to end which the call has left running: exactly once, whoever ends it.

    Either a streamed result, such as the body of a response: then all gates wait for its end. Or work whose outcome
    is `known` already, such as a thread that was left behind: then only gates that hold something wait for it.

    Gates register innermost first. A gate that registers after the end is settled at once. When the last reference
    is dropped without an end, the gates are settled as abandoned, at the next call: a finaliser may run inside a
    locked region, so it only leaves a note.
    """

    __slots__ = ("__weakref__", "_ending", "_ends", "_waiting", "known")

    def __init__(self, ending: Ending | None = None, *, known: bool = False) -> None:
        self._ends = itertools.count()
        self._ending = ending
        self._waiting = Unsettled()
        self.known = known

    @property
    def ended(self) -> bool:
        """Whether the end has come."""
        return self._ending is not None

    def settle_ok(self, gate: Settler, token: Any, ending: Ending) -> None:
        """Settle a gate whose call came back well: now, if the outcome is known and it holds nothing."""
        if self.known and not gate.holds_permit:
            settle_safely(gate.settle, token, ending)
        else:
            self.add(gate.settle, gate.on_response_head(token))

    def settle_error(self, gate: Settler, token: Any, ending: Ending) -> None:
        """Settle a gate whose call came back with an exception: now, unless it holds something."""
        if gate.holds_permit and not self.ended:
            self.add(gate.settle, token)
        else:
            settle_after_error(gate.settle, token, ending)

    def join(self, other: DeferredSettlement | None) -> DeferredSettlement:
        """Return something that ends when both this and the other have ended, with the ending of the other."""
        if other is None or other.ended:
            return self
        both = DeferredSettlement(known=self.known and other.known)
        self.add(lambda _, ending: other.add(both.end_with, None), None)
        return both

    def end_with(self, _: object, ending: Ending) -> None:
        """End; in the form in which gates are settled."""
        self.end(ending)

    def add(self, settle: Settle, token: Any) -> None:
        """Settle a gate when the end comes, or at once if it has come."""
        self._waiting.append((settle, token))
        if self._ending is not None:
            settle_all(self._waiting, self._ending)

    def end(self, ending: Ending) -> None:
        """Settle everything with this ending; a second end changes nothing."""
        if self._ending is None and next(self._ends) == 0:
            self._ending = ending
            settle_all(self._waiting, ending)

    def __del__(self) -> None:
        if self._waiting:
            pending.append(self._waiting)  # before any other call, at which a Ctrl-C may strike
            settle_pending()


def settle_all(waiting: deque[tuple[Settle, Any]], ending: Ending) -> None:
    """Settle each once, whoever else is at it, and the rest also when a hook raises a BaseException."""
    try:
        while waiting:
            settle, token = waiting.popleft()
            settle_safely(settle, token, ending)
    except IndexError:  # another thread has settled the last one
        return
    finally:
        if waiting:
            settle_all(waiting, ending)


_ABANDONED = Ending(EndingKind.ABANDONED)
REPLACED = DeferredSettlement(Ending(EndingKind.OK, replaced=True))
"""The end of a call whose outcome a substitute has replaced."""


def settle_safely(settle: Settle, token: Any, ending: Ending) -> None:
    """Settle one gate. What its hook raises is logged once, and the other gates still hear of the ending."""
    try:
        settle(token, ending)
    except Exception as error:
        hook_failed("settle of a policy", settle, error)


def settle_after_error(settle: Settle, token: Any, ending: Ending) -> None:
    """Settle one gate after an exception. A dropped coroutine unwinds as finalizers run."""
    if ending.error.__class__ is GeneratorExit:
        settle_from_finalizer(Unsettled([(settle, token)]))
    else:
        settle_safely(settle, token, ending)
