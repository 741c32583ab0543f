"""The deadline of an attempt in the timeouts and the upload of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from resilience._util.clock import FOREVER, clock
from resilience.httpx._modules import HttpxModule
from resilience.httpx._privates import request_content_of

PHASES: Final = ("connect", "read", "write", "pool")
"""The keys of the `timeout` extension."""
SHORTEST: Final = 0.001
"""The shortest timeout, in seconds: sockets take 0 for non-blocking mode."""
LONGEST: Final = 1_000_000.0
"""The longest timeout, in seconds: sockets reject more than some years."""
SLICE: Final = 65_536
"""The number of bytes that are sent between two checks of the deadline."""


class Timeouts(dict[str, "float | None"]):
    """The timeouts of one attempt, in seconds by phase. Each is at most the time left when it is asked for.

    It is empty as a dict until it is `filled`: the network backends of this package ask it for the time left.

    Args:
        given: the timeouts of the request; None for no limit.
        deadline: the deadline; that of the attempt for the response head, that of the whole call for the body.

    Attributes:
        deadline: the present deadline; `set_deadline` sets another one.
        has_connection: whether the attempt has a connection, or makes one, so that it does not wait in the pool.
        has_sent: whether something was sent to the server.
        made: the connections that the network has made for the attempt.
    """

    __slots__ = ("_given", "deadline", "has_connection", "has_sent", "made")

    def __init__(self, given: Mapping[str, float | None], deadline: float) -> None:
        self._given = given
        self.deadline = deadline
        self.has_connection = self.has_sent = False
        self.made: tuple[Any, ...] = ()

    def filled(self) -> Timeouts:
        """Fill the dict, for a transport that reads it, and return it. Where there is a deadline it has all phases."""
        self.update(self._given)
        if self.deadline == FOREVER:
            return self
        left = _limited(self.deadline - clock.monotonic())
        for phase, seconds in self._given.items():
            if seconds is None or seconds > left:
                self[phase] = left
        for phase in PHASES:
            if phase not in self:
                self[phase] = left
        return self

    def set_deadline(self, deadline: float) -> None:
        """Set another deadline, such as that of the body after the head."""
        self.deadline = deadline
        if self:
            self.filled()

    def get(self, phase: str, default: Any = None, /) -> Any:
        """Return the timeout of a phase: the time left, or the given timeout if that is less."""
        if self.deadline == FOREVER:
            return self._given.get(phase, default)
        given = self._given.get(phase)
        left = _limited(self.deadline - clock.monotonic())
        return left if given is None or given > left else given

    def __getitem__(self, phase: str) -> float | None:
        if phase not in self:
            raise KeyError(phase)
        found: float | None = self.get(phase)
        return found

    @property
    def left(self) -> float:
        """The seconds until the deadline; negative when it has passed."""
        return self.deadline - clock.monotonic()


def _limited(left: float) -> float:
    """Return the time left as a timeout that sockets accept."""
    return SHORTEST if left < SHORTEST else left if left < LONGEST else LONGEST


def needs_upload(stream: Any) -> bool:
    """Return whether sending a body may take several writes."""
    content = request_content_of(stream)
    return not isinstance(content, bytes) or len(content) > SLICE


class Upload:
    """The body of a request of a plain client. Iterating over it raises WriteTimeout when the deadline has passed.

    Args:
        stream: the body.
        timeouts: the timeouts of the attempt.
        module: the module of the request.
    """

    def __init__(self, stream: Any, timeouts: Timeouts, module: HttpxModule) -> None:
        self._stream = stream
        self._timeouts = timeouts
        self._module = module

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            for start in range(0, len(chunk), SLICE):
                if self._timeouts.left <= 0:
                    raise self._module.module.WriteTimeout("the deadline passed while the request was sent")
                yield chunk if len(chunk) <= SLICE else chunk[start : start + SLICE]

    def close(self) -> None:
        """Close the body."""
        self._stream.close()
