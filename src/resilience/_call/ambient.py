"""The ambient deadline: by when the caller needs the result, for all that runs in its context."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from resilience._util.clock import FOREVER
from resilience._util.locks import members


class AmbientDeadline:
    """A deadline that holds as long as what has set it: a call, or a block with `deadline_after`.

    Tasks and threads that inherit the context obey it. When what has set it ends, it is made void by setting `at` to
    infinity, in all contexts at once, and the one around it holds again. It stays the value of the context variable,
    which costs less than to restore the previous one, and is right in whichever context the end comes.

    Deadlines only shrink on their way in, so the innermost that is not void is the earliest.

    Attributes:
        at: the time in seconds of the library's monotonic clock; infinity once it is void.
        outer: the deadline around it; None for the outermost.
        followers: called by `release`, by key; None if there have been none.
    """

    __slots__ = ("at", "followers", "outer")

    at: float
    outer: AmbientDeadline | None
    followers: dict[object, Callable[[], object]] | None

    @classmethod
    def make(cls, at: float, outer: AmbientDeadline | None) -> AmbientDeadline:
        """Return a new deadline; `outer` is one that holds. It is in force once it is the value of `ambient`."""
        new = cls()
        new.at = at
        new.outer = outer
        new.followers = None
        return new

    def holding(self) -> AmbientDeadline:
        """Return the innermost deadline, from this one outwards, that is not void; else the outermost."""
        one = self
        while one.at == FOREVER and one.outer is not None:
            one = one.outer
        return one

    def follow(self, key: object, follower: Callable[[], object]) -> None:
        """Call `follower` when this deadline becomes void, to adapt what was scheduled for it."""
        if self.followers is None:
            self.followers = {}
        self.followers[key] = follower
        if self.at == FOREVER:
            self.release()

    def unfollow(self, key: object) -> None:
        """Do not call that follower any more."""
        if self.followers is not None:
            self.followers.pop(key, None)

    def release(self) -> None:
        """Call the followers. To be called after `at` was set to infinity, if there are followers."""
        followers = self.followers or {}
        for key in members(followers):
            follower = followers.pop(key, None)
            if follower is not None:
                follower()


NO_DEADLINE = AmbientDeadline.make(FOREVER, None)
"""The outermost deadline, which never holds."""
ambient: ContextVar[AmbientDeadline] = ContextVar("resilience_deadline", default=NO_DEADLINE)
"""The ambient deadline of this context, which may be void."""


def ambient_deadline() -> float:
    """Return the time of the ambient deadline that holds, in seconds of the monotonic clock; infinity without one."""
    return ambient.get().holding().at
