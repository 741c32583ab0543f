"""The time that each phase of an attempt may take, and what httpcore tells while it works (its `trace` extension)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from resilience._util.clock import FOREVER, clock
from resilience.httpx._call import HttpCall
from resilience.httpx._modules import HttpxModule

PHASES: Final = ("connect", "read", "write", "pool")
SHORTEST: Final = 0.001
LONGEST: Final = 1_000_000.0
"""Sockets take 0 for "do not wait at all", and no more than some years."""
SLICE: Final = 65_536
"""Bytes that are sent without a look at the clock."""
TO_SEND: Final = frozenset({"connect_tcp.started", "connect_unix_socket.started", "send_request_headers.started"})
"""The steps to sending a request that may be left out."""
SENDING: Final = "send_request_headers.started"


class Timeouts(dict[str, "float | None"]):
    """The timeouts of one attempt, each clipped to the time that is left when somebody asks for it.

    Args:
        given: those of the request.
        deadline: until when; the head has that of the attempt, the body that of the whole call.
    """

    __slots__ = ("_deadline", "_given")

    def __init__(self, given: Mapping[str, float | None], deadline: float) -> None:
        super().__init__(given)
        self._given = given
        self.set_deadline(deadline)

    def set_deadline(self, deadline: float) -> None:
        """Go on with another deadline, as from the head to the body."""
        self._deadline = deadline
        if deadline != FOREVER:
            self.update({phase: self.get(phase) for phase in PHASES})

    def get(self, phase: str, default: Any = None, /) -> Any:
        """Return seconds: what is left, or what was given where that is less."""
        given = self._given.get(phase)
        if self._deadline == FOREVER:
            return self._given.get(phase, default)
        left = min(max(self.left, SHORTEST), LONGEST)
        return left if given is None or given > left else given

    def __getitem__(self, phase: str) -> float | None:
        if phase not in self:
            raise KeyError(phase)
        found: float | None = self.get(phase)
        return found

    @property
    def left(self) -> float:
        """Seconds; negative when the deadline has passed."""
        return self._deadline - clock.monotonic()


class DeadlineTrace:
    """For plain clients: each step has the time that is left as it begins, and none begins when none is left.

    Args:
        timeouts: of the attempt.
        dialect: the request's.
        follow: a `trace` of the request's own, which hears everything as well.
    """

    def __init__(self, timeouts: Timeouts, dialect: HttpxModule, follow: Any) -> None:
        self._timeouts = timeouts
        self._dialect = dialect
        self._follow = follow
        self._pause = 0.0

    def __call__(self, name: str, info: Any) -> None:
        """Hear of a step. httpcore asks for the timeout once for all tries to connect and for TLS: set it anew."""
        step = name.partition(".")[2]
        if step == "retry.started":
            self._retry()
        elif step in TO_SEND and self._timeouts.left <= 0:
            raise self._dialect.module.ConnectTimeout("the deadline passed before the request was sent")
        if step.endswith(".started") and "timeout" in info:
            info["timeout"] = self._timeouts.get("connect")
        if self._follow is not None:
            self._follow(name, info)

    def _retry(self) -> None:
        """Raise what HTTPTransport(retries=) would try again after, where its wait would end past the deadline."""
        error = sys.exception()
        if self._timeouts.left <= self._pause and error is not None:
            raise error
        self._pause = self._pause * 2 or 0.5  # as httpcore waits: 0, 0.5, 1, 2, ...


class Upload:
    """For plain clients: the body of a request, which is not sent on when the deadline has passed.

    Args:
        stream: the body.
        timeouts: of the attempt.
        dialect: the request's.
    """

    def __init__(self, stream: Any, timeouts: Timeouts, dialect: HttpxModule) -> None:
        self._stream = stream
        self._timeouts = timeouts
        self._dialect = dialect

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            for start in range(0, len(chunk), SLICE):
                if self._timeouts.left <= 0:
                    raise self._dialect.module.WriteTimeout("the deadline passed while the request was sent")
                yield chunk if len(chunk) <= SLICE else chunk[start : start + SLICE]

    def close(self) -> None:
        """Close the body."""
        self._stream.close()


class SendTrace:
    """For async clients: whether the request still waits for a connection, and whether any of it was sent.

    Args:
        call: the call.
    """

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._follow = call.request.extensions.get("trace")
        self.sending = False
        call.set_queued(True)

    async def __call__(self, name: str, info: Any) -> None:
        """Hear of an event."""
        self._call.set_queued(False)
        if name.endswith(SENDING):
            self.sending = True
        if self._follow is not None:
            await self._follow(name, info)
