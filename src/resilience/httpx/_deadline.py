"""The deadline of an attempt in the timeouts, the upload and the `trace` extension of httpcore."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from resilience._util.clock import FOREVER, clock
from resilience.httpx._call import HttpCall
from resilience.httpx._modules import HttpxModule

PHASES: Final = ("connect", "read", "write", "pool")
"""The keys of the `timeout` extension."""
SHORTEST: Final = 0.001
"""The shortest timeout, in seconds: sockets take 0 for non-blocking mode."""
LONGEST: Final = 1_000_000.0
"""The longest timeout, in seconds: sockets reject more than some years."""
SLICE: Final = 65_536
"""The number of bytes that are sent between two checks of the deadline."""
TO_SEND: Final = frozenset({"connect_tcp.started", "connect_unix_socket.started", "send_request_headers.started"})
"""The steps before anything is sent: at their start the attempt can still be given up as unsent."""
SENDING: Final = "send_request_headers.started"
"""The step with which sending begins."""


class Timeouts(dict[str, "float | None"]):
    """The timeouts of one attempt, in seconds by phase. Each is at most the time left when it is read.

    Args:
        given: the timeouts of the request; None for no limit.
        deadline: the deadline; that of the attempt for the response head, that of the whole call for the body.
    """

    __slots__ = ("_deadline", "_given")

    def __init__(self, given: Mapping[str, float | None], deadline: float) -> None:
        super().__init__(given)
        self._given = given
        self._deadline = deadline

    def set_deadline(self, deadline: float) -> None:
        """Set another deadline, such as that of the body after the head."""
        self._deadline = deadline

    def get(self, phase: str, default: Any = None, /) -> Any:
        """Return the timeout of a phase: the time left, or the given timeout if that is less."""
        given = self._given.get(phase)
        if self._deadline == FOREVER:
            return self._given.get(phase, default)
        left = _limited(self.left)
        return left if given is None or given > left else given

    def __getitem__(self, phase: str) -> float | None:
        if phase not in self:
            raise KeyError(phase)
        found: float | None = self.get(phase)
        return found

    # What makes a plain dict of it, or reads it as one, gets the times that are left as well.

    def __contains__(self, phase: object) -> bool:
        return phase in self._given or (phase in PHASES and self._deadline != FOREVER)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self) -> Any:
        """Return the phases; all of them where there is a deadline."""
        return dict.fromkeys(self._given if self._deadline == FOREVER else [*self._given, *PHASES]).keys()

    def items(self) -> Any:
        """Return the phases with their timeouts."""
        return {phase: self.get(phase) for phase in self.keys()}.items()

    def values(self) -> Any:
        """Return the timeouts."""
        return {phase: self.get(phase) for phase in self.keys()}.values()

    @property
    def left(self) -> float:
        """The seconds until the deadline; negative when it has passed."""
        return self._deadline - clock.monotonic()


def _limited(left: float) -> float:
    """Return the time left as a timeout that sockets accept."""
    return SHORTEST if left < SHORTEST else left if left < LONGEST else LONGEST


class DeadlineTrace:
    """A `trace` for plain clients, which gives each step of connecting the time left, and starts none without any.

    Args:
        timeouts: the timeouts of the attempt.
        module: the module of the request.
        trace: the `trace` extension of the request, which is called as well; None for none.
    """

    def __init__(self, timeouts: Timeouts, module: HttpxModule, trace: Any) -> None:
        self._timeouts = timeouts
        self._module = module
        self._trace = trace
        self._pause = 0.0

    def __call__(self, name: str, info: Any) -> None:
        """Handle an event of httpcore, which reads the timeout once for all connection attempts and TLS: update it.

        Raises:
            ConnectTimeout: the deadline has passed and nothing has been sent.
        """
        step = name.partition(".")[2]
        if step == "retry.started":
            self._retry()
        elif step in TO_SEND and self._timeouts.left <= 0:
            raise self._module.module.ConnectTimeout("the deadline passed before the request was sent")
        if step.endswith(".started") and "timeout" in info:
            info["timeout"] = self._timeouts.get("connect")
        if self._trace is not None:
            self._trace(name, info)

    def _retry(self) -> None:
        """Raise the error that `HTTPTransport(retries=)` would retry, if its wait would end past the deadline."""
        error = sys.exception()
        if self._timeouts.left <= self._pause and error is not None:
            raise error
        self._pause = self._pause * 2 or 0.5  # the waits of httpcore: 0, 0.5, 1, 2, ...


def needs_upload(stream: Any) -> bool:
    """Return whether sending a body may take several writes."""
    content: object = getattr(stream, "_stream", None)
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


class SendTrace:
    """A `trace` for async clients, which notes whether a request waits for a connection and whether sending has begun.

    Args:
        call: the call.
    """

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._trace = call.request.extensions.get("trace")
        self.sending = False
        call.queued = True

    async def __call__(self, name: str, info: Any) -> None:
        """Handle an event of httpcore."""
        self._call.queued = False
        if name.endswith(SENDING) and not _is_connect(info):
            self.sending = True
        if self._trace is not None:
            await self._trace(name, info)


def _is_connect(info: Any) -> bool:
    """Return whether an event is about the request that opens a tunnel through a proxy."""
    return getattr(info.get("request"), "method", b"") == b"CONNECT"
