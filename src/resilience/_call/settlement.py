"""Settlement: what is done with the tokens of gates when a call, or the stream that it returned, has ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from resilience._outcome.ending import ABANDONED, Ending, EndingKind
from resilience._util.finalizers import pending, settle_from_finalizer, settle_pending
from resilience._util.log_once import hook_failed

Settle: TypeAlias = "Callable[[Ending], object]"
"""Settles one token with the ending of its call."""


class Settler(Protocol):
    """A gate, as far as settlement is concerned."""

    @property
    def holds_permit(self) -> bool:
        """Whether its token is in use until the work has ended."""
        ...

    def on_response_head(self, token: Any) -> Any:
        """Take note that the head of a streamed result has come."""

    def settle(self, token: Any, ending: Ending) -> None:
        """Settle a token."""


class Unsettled(deque[Settle]):
    """What is still to be settled. Called, it is settled as abandoned: the form in which a finalizer leaves it."""

    __slots__ = ()

    def __call__(self) -> None:
        settle_all(self, ABANDONED)


class DeferredSettlement:
    """The settlement of a call that has left work running: done exactly once, when that work ends.

    The work is either a streamed result, such as the body of a response: then all gates wait for its end. Or its
    outcome is `known` already, as that of a thread which was abandoned: then only gates that hold a permit wait.

    Gates register innermost first. A gate that registers after the end is settled at once. When the last reference is
    dropped without an end, the gates are settled as abandoned. A finalizer may run inside a locked region; so that is
    left to the next call where it cannot be done at once.

    Args:
        ending: the ending, for work that has ended already.
        known: whether the outcome is known, though the work goes on.
    """

    __slots__ = ("__weakref__", "_ending", "_ends", "_waiting", "known")

    def __init__(self, ending: Ending | None = None, *, known: bool = False) -> None:
        self._ends = itertools.count()
        self._ending = ending
        self._waiting = Unsettled()
        self.known = known

    @property
    def ended(self) -> bool:
        """Whether the work has ended."""
        return self._ending is not None

    def settle_ok(self, gate: Settler, token: Any, ending: Ending) -> None:
        """Settle a gate whose call returned: now, if the outcome is known and the gate holds no permit."""
        if self.known and not gate.holds_permit:
            settle_safely(partial(gate.settle, token), ending)
        else:
            self.add(partial(gate.settle, gate.on_response_head(token)))

    def settle_error(self, gate: Settler, token: Any, ending: Ending) -> None:
        """Settle a gate whose call raised: now, unless the gate holds a permit and the work goes on."""
        if gate.holds_permit and not self.ended:
            self.add(partial(gate.settle, token))
        else:
            settle_after_error(partial(gate.settle, token), ending)

    def join(self, other: DeferredSettlement | None) -> DeferredSettlement:
        """Return a settlement that ends when both this and the other have ended, with the ending of the other."""
        if other is None or other.ended:
            return self
        both = DeferredSettlement(known=self.known and other.known)
        self.add(lambda _: other.add(both.end))
        return both

    def add(self, settle: Settle) -> None:
        """Call `settle` with the ending when the work ends, or at once if it has ended."""
        self._waiting.append(settle)
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


def settle_all(waiting: Unsettled, ending: Ending) -> None:
    """Settle each once, also when several threads do so at once, and the rest when one raises a BaseException."""
    try:
        while waiting:
            settle_safely(waiting.popleft(), ending)
    except IndexError:  # another thread has settled the last one
        return
    finally:
        if waiting:
            settle_all(waiting, ending)


REPLACED = DeferredSettlement(Ending(EndingKind.OK, replaced=True))
"""The settlement of a call whose outcome a substitute has replaced."""


def settle_safely(settle: Settle, ending: Ending) -> None:
    """Settle. What the hook of a policy raises is logged once, and does not keep other gates from being settled."""
    try:
        settle(ending)
    except Exception as error:
        hook_failed("settle of a policy", settle, error)


def settle_after_error(settle: Settle, ending: Ending) -> None:
    """Settle after an exception. A coroutine that is dropped unwinds inside a finalizer; see `finalizers`."""
    if ending.error.__class__ is GeneratorExit:
        settle_from_finalizer(Unsettled([settle]))
    else:
        settle_safely(settle, ending)
