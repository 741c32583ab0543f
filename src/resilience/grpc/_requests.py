"""The requests that attempts send: the message as it was when the call was made, or a stream of messages, replayed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from resilience._util.locks import make_lock
from resilience.errors import RejectedError
from resilience.grpc._call import SendsRequest

REPLAY_BYTES: Final = 262_144
"""The size up to which the messages of a request stream are kept for another attempt; that of gRPC itself (A6)."""
UNKNOWN_SIZE: Final = 1024
"""The size that is assumed for a message of a type that does not tell it."""
_IMMUTABLE: Final = frozenset({bytes, str, int, float, bool, type(None)})


def copied(message: Any) -> Any:
    """Return a copy of a message, so that the caller may change its own; the message itself if it cannot be copied."""
    if message.__class__ in _IMMUTABLE:
        return message
    try:
        own = getattr(message.__class__, "__deepcopy__", None)  # messages of protobuf have it
        return copy.deepcopy(message) if own is None else own(message, {})
    except Exception:
        return message


def size_of(message: Any) -> int:
    """Return the size of a message in bytes, or `UNKNOWN_SIZE`."""
    kind: Any = message.__class__
    try:
        if kind in (bytes, bytearray, str):
            return len(message)
        inner = kind.pb(message) if hasattr(kind, "pb") else message  # a message of proto-plus has one of protobuf
        size: int = inner.ByteSize()
    except Exception:
        return UNKNOWN_SIZE
    return size


class AnyRequest(SendsRequest, Protocol):
    """The requests of the attempts of an RPC."""

    def for_attempt(self) -> Any:
        """Return what an attempt sends: a message or an iterator."""

    def end_attempt(self) -> None:
        """End the latest attempt, so that it takes no more messages from another one."""

    def commit(self) -> None:
        """Keep nothing for another attempt, since none follows."""


class RequestsSpent(RejectedError):
    """Another attempt could not send all messages: it was not made, and the error of the one before is raised."""


class UnaryRequest:
    """The request of an RPC with a single one.

    Args:
        message: the message; it is copied.
    """

    __slots__ = ("_message", "is_streamed", "replayable")

    def __init__(self, message: Any) -> None:
        self._message = copied(message)
        self.replayable = True
        self.is_streamed = False

    def for_attempt(self) -> Any:
        """Return the message."""
        return self._message

    def end_attempt(self) -> None:
        """Do nothing: the message is kept."""

    def commit(self) -> None:
        """Allow no other attempt."""
        self.replayable = False


class RequestBuffer:
    """The messages that were read from a request stream, for an attempt that sends them again.

    Attributes:
        replayable: whether all messages so far are still there, so that another attempt may be made.
        error: the exception that the caller's iterator has raised; None for none.
        exhausted: whether the iterator has no more messages.
    """

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._first = 0
        self._size = 0
        self.replayable = True
        self.is_streamed = True
        self.error: Exception | None = None
        self.exhausted = False
        self._latest = 0
        self._attempts = 0

    def has(self, number: int) -> bool:
        """Return whether the message with that number, from 0, is there."""
        return number < self._first + len(self._messages)

    def take(self, number: int) -> Any:
        """Return a message that is there. Once no other attempt can follow, it is removed with those before it."""
        message = self._messages[number - self._first]
        if not self.replayable:
            del self._messages[: number - self._first + 1]
            self._first = number + 1
        return message

    def add(self, message: Any) -> None:
        """Add the next message. If the messages have become too large to be kept, no other attempt can follow."""
        self._size += size_of(message) if self.replayable else 0
        if self._size > REPLAY_BYTES:
            self.replayable = False
        self._messages.append(copied(message) if self.replayable else message)

    def end_attempt(self) -> None:
        """End the iterator of the latest attempt."""
        self._latest = 0

    def commit(self) -> None:
        """Stop to keep messages, since no other attempt follows."""
        self.replayable = False

    def _begin(self) -> int:
        """Begin another attempt and return its number, from 1.

        Raises:
            RequestsSpent: an attempt that goes on, such as on a thread that was abandoned, has taken messages since it
                was decided to make another one.
        """
        if self._first:
            raise RequestsSpent("the requests are not kept any more")
        self._attempts += 1
        self._latest = self._attempts
        return self._latest


class ReplayedRequests(RequestBuffer):
    """The messages of a request iterator, which is read once, by one thread at a time, for all attempts.

    Args:
        requests: the iterator of the caller. If it raises an exception, so do those of all attempts.
    """

    def __init__(self, requests: Iterable[Any]) -> None:
        super().__init__()
        self._source = iter(requests)
        self._reading = make_lock()

    def for_attempt(self) -> Iterator[Any]:
        """Return an iterator over all messages. Those of earlier attempts end."""
        return _Replay(self, self._begin())

    def next_for(self, attempt: int, number: int) -> Any:
        """Return the message with that number for the iterator of an attempt, or raise StopIteration."""
        if attempt != self._latest:
            raise StopIteration
        if not self.has(
            number
        ):  # without the lock: the thread of an earlier attempt may hold it and wait for a message
            with self._reading:
                if not self.has(number):
                    self._read()
        if attempt != self._latest:
            raise StopIteration
        return self.take(number)

    def _read(self) -> None:
        """Read the next message into the buffer."""
        if self.error is not None:
            raise self.error
        if self.exhausted:
            raise StopIteration
        try:
            message = next(self._source)
        except StopIteration:
            self.exhausted = True
            raise
        except Exception as error:
            self.error = error
            raise
        self.add(message)


class _Replay(Iterator[Any]):
    """The request iterator of one attempt."""

    __slots__ = ("_attempt", "_number", "_requests")

    def __init__(self, requests: ReplayedRequests, attempt: int) -> None:
        self._requests = requests
        self._attempt = attempt
        self._number = 0

    def __next__(self) -> Any:
        message = self._requests.next_for(self._attempt, self._number)
        self._number += 1
        return message
