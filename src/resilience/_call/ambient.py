"""What the code inside of a guarded call knows by its context: the deadline, and which attempts it is inside of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ClassVar, Self

from resilience._util.clock import FOREVER
from resilience._util.locks import members


class Ambient:
    """What holds in a context as long as what has set it: an attempt of a call, or a block such as `deadline_after`.

    Tasks and threads that inherit the context obey it. When what has set it ends, it is made void by setting `at` to
    infinity and `live` to False, in all contexts at once, and the one around it holds again. It stays the value of the
    context variable: that costs less than to restore the previous one, and is right in whichever context the end comes.

    Deadlines only shrink on their way in, so that of the innermost that has one is the earliest.

    Attributes:
        at: the deadline in seconds of the library's monotonic clock; infinity for that of `outer`, and once it is void.
        live: whether what has set it has not ended.
        outer: the one around it, which was live when this one was made; None if there was none.
        followers: called by `release`, by key; None if there have been none.
        given_up: the bad results that Retries inside have given up on; None for none. See `retry_marks`.
    """

    __slots__ = ("at", "followers", "given_up", "live", "outer")

    passes_deadlines: ClassVar[bool] = True
    """Whether the deadlines around it hold inside it."""
    at: float
    live: bool
    outer: Ambient | None
    followers: dict[object, Callable[[], object]] | None
    given_up: deque[object] | None

    @classmethod
    def make(cls, at: float, outer: Ambient | None) -> Self:
        """Return a new one, which holds once it is the value of `ambient`; `outer` is what `innermost` returned."""
        new = cls()
        new.at = at
        new.live = True
        new.outer = outer if outer is None or outer.live else outer.outer
        new.followers = None
        new.given_up = None
        return new

    def innermost(self) -> Ambient:
        """Return the innermost, from this one outwards, that is live; if none is, the outermost."""
        one = self
        while not one.live and one.outer is not None:
            one = one.outer
        return one

    def holding(self) -> Ambient:
        """Return the innermost, from this one outwards, that has a deadline; if none has one, the outermost."""
        one = self
        while one.at == FOREVER and one.outer is not None:
            one = one.outer if one.passes_deadlines else NOTHING
        return one

    def inherits_from(self) -> Iterator[Ambient]:
        """Yield those from which this one inherits its deadline, from the innermost to that which has set it."""
        one = self
        while one.at == FOREVER and one.outer is not None:
            one = one.outer if one.passes_deadlines else NOTHING
            yield one

    def around(self) -> Iterator[Ambient]:
        """Yield the attempts and blocks that have not ended, from this one outwards."""
        one: Ambient | None = self
        while one is not None:
            if one.live and one.passes_deadlines:
                yield one
            one = one.outer

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


class Detached(Ambient):
    """One that the deadlines around it do not reach, but that is inside of the same attempts. It is never void."""

    __slots__ = ()

    passes_deadlines = False


class InboundRequest(Ambient):
    """A request of another process, as long as the code inside handles it.

    Attributes:
        attempt: which attempt of the caller it is, 1 for the first.
    """

    __slots__ = ("attempt",)

    attempt: int

    @classmethod
    def begin(cls, deadline: float, attempt: int) -> InboundRequest:
        """Set that of this context.

        Args:
            deadline: that of the caller, in seconds of the library's monotonic clock; infinity for none. A deadline
                that is in force already can only become earlier.
            attempt: which attempt of the caller it is, >= 1.
        """
        around = ambient.get().innermost()
        new = cls.make(min(deadline, around.holding().at), around)
        new.attempt = attempt
        ambient.set(new)
        return new

    def end(self) -> None:
        """Make it void, in all contexts. To be called once the caller has its response; further calls do nothing."""
        self.at = FOREVER
        self.live = False
        self.release()


NOTHING = Ambient.make(FOREVER, None)
"""What holds where nothing has been set: no deadline, no attempt."""
NOTHING.live = False
ambient: ContextVar[Ambient] = ContextVar("resilience_ambient", default=NOTHING)
"""That of this context, which may be void."""


def ambient_deadline() -> float:
    """Return the time of the ambient deadline that holds, in seconds of the monotonic clock; infinity without one."""
    return ambient.get().holding().at


def inbound_attempt(inside: Ambient) -> int:
    """Return which attempt of another process is handled inside of `inside`; 1 for the first attempt, or for none.

    Above 1, the caller repeats the call already: retries inside of it would multiply, and outgoing calls are part of a
    retry, too.
    """
    return max((one.attempt for one in inside.around() if isinstance(one, InboundRequest)), default=1)
