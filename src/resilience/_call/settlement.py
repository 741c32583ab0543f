"""Settlement: gates settle their tokens when a call, or the stream that it returned, has ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from resilience._outcome.allowlist import Allowlist
from resilience._outcome.ending import ABANDONED, Ending, EndingKind
from resilience._util.finalizers import pending, put_off, settle_from_finalizer, settle_pending
from resilience._util.locks import holds_any_lock
from resilience._util.log_once import hook_failed

Settle: TypeAlias = "Callable[[Ending], object]"
"""Settles one token with the ending of its call."""


class Settler(Protocol):
    """The methods of a gate that settlement uses."""

    @property
    def holds_permit(self) -> bool:
        """Whether its token is a permit, which is in use until the work has ended."""
        ...

    def on_response_head(self, token: Any) -> Any:
        """Called when the head of a streamed result was received; returns the token to settle at its end."""

    def settle(self, token: Any, ending: Ending) -> None:
        """Settle a token with the ending of its call."""


class Unsettled(deque[Settle]):
    """The settlements that are still to be made. Calling the object makes them as abandoned, for finalizers."""

    __slots__ = ()

    def __call__(self) -> None:
        settle_all(self, ABANDONED)


class DeferredSettlement:
    """The settlement of a call whose work continues after it has returned: made exactly once, when that work ends.

    The work is a streamed result, such as the body of a response: then all gates are settled at its end. Or it is an
    abandoned thread, whose outcome is `known`: then only gates that hold a permit are settled when it ends.

    Gates are added innermost first. A gate that is added after the end is settled at once. If the object is
    garbage-collected before the end, the gates are settled as abandoned, as soon as no lock of the library is held.

    Args:
        ending: the ending, for work that has ended already; None for work that continues.
        known: whether the outcome is known although the work continues.
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
        """Settle a gate whose call returned: at the end of the work, or now if the outcome is known and no permit held.

        Args:
            gate: the gate.
            token: its token.
            ending: the ending, for a gate that is settled now.
        """
        if self.known and not gate.holds_permit:
            settle_safely(partial(gate.settle, token), ending)
            return
        try:
            token = gate.on_response_head(token)
        except Exception as error:
            hook_failed("on_response_head of a policy", gate, error)
        self.add(partial(gate.settle, token))

    def settle_error(self, gate: Settler, token: Any, ending: Ending) -> None:
        """Settle a gate whose call raised: now, or at the end of the work if it continues and the gate holds a permit.

        Args:
            gate: the gate.
            token: its token.
            ending: the ending, for a gate that is settled now.
        """
        if gate.holds_permit and not self.ended:
            self.add(partial(gate.settle, token))
        else:
            settle_after_error(partial(gate.settle, token), ending)

    def join(self, other: DeferredSettlement | None) -> DeferredSettlement:
        """Return a settlement that ends when both this one and `other` have ended, with the ending of `other`."""
        if other is None or other.ended:
            return self
        both = DeferredSettlement(known=self.known and other.known)
        self.add(lambda _: other.add(both.end))
        return both

    def judged_by(self, allowlist: Allowlist) -> DeferredSettlement:
        """Return a settlement that ends with this one, and with its ending as another allowlist judges it."""
        other = DeferredSettlement(known=self.known)
        self.add(lambda ending: other.end(ending.judged_by(allowlist)))
        return other

    def add(self, settle: Settle) -> None:
        """Call `settle` with the ending when the work ends, or at once if it has ended."""
        self._waiting.append(settle)
        if self._ending is not None:
            self._settle(self._ending)

    def end(self, ending: Ending) -> None:
        """Settle all gates with this ending. Later calls have no effect."""
        if self._ending is None and next(self._ends) == 0:
            self._ending = ending
            self._settle(ending)

    def _settle(self, ending: Ending) -> None:
        """Settle all gates: now, or once this thread has left the region that it has locked.

        The caller may be a finalizer, such as that of a client's stream which closes a response, and may have
        interrupted such a region.
        """
        if holds_any_lock():
            put_off(partial(settle_all, self._waiting, ending))
        else:
            settle_all(self._waiting, ending)

    def __del__(self) -> None:
        if self._waiting:
            pending.append(self._waiting)  # before any other call, which a Ctrl-C may interrupt
            settle_pending()


def settle_all(waiting: Unsettled, ending: Ending) -> None:
    """Make each settlement once, also if several threads call this; after a BaseException, make the remaining ones."""
    try:
        while waiting:
            settle = waiting.popleft()
            try:
                settle(ending)
            except Exception as error:
                hook_failed("settle of a policy", settle, error)
    except IndexError:  # another thread has taken the last one
        return
    finally:
        if waiting:
            settle_all(waiting, ending)


REPLACED = DeferredSettlement(Ending(EndingKind.OK, replaced=True))
"""The settlement of a call whose outcome a Substitute replaced."""


def settle_safely(settle: Settle, ending: Ending) -> None:
    """Call `settle` with an ending. An exception is logged once, so that the other gates are settled, too."""
    try:
        settle(ending)
    except Exception as error:
        hook_failed("settle of a policy", settle, error)


def settle_after_error(settle: Settle, ending: Ending) -> None:
    """Call `settle` after an exception; as a finalizer after a GeneratorExit: a coroutine is garbage-collected."""
    if ending.error.__class__ is GeneratorExit:
        settle_from_finalizer(Unsettled([settle]))
    else:
        settle_safely(settle, ending)
