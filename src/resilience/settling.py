"""Settling: what happens to the tokens of gates when a call, or the stream that it returned, has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from resilience.complaints import hook_failed
from resilience.ending import Ending, EndingKind
from resilience.locks import any_locked, new_lock

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
"""What dropped streams and coroutines have left to settle; every entry into a pipeline sweeps it."""


def sweep() -> None:
    """Settle what was dropped, as abandoned."""
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


def unwind(settle: Settle, token: Any, ending: Ending) -> None:
    """Settle one gate after an exception.

    A coroutine that was dropped unwinds wherever the interpreter happens to find it, perhaps inside a locked region
    of this very thread; then settling is left to the next sweep.
    """
    if ending.error.__class__ is GeneratorExit and any_locked():
        lost.append([(settle, token)])
    else:
        conclude(settle, token, ending)
