"""The channel of the synchronous API that the makers return."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import grpc

from resilience.grpc._callables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from resilience.grpc._guard import Guard


class GuardedChannel(grpc.Channel):
    """A channel whose RPCs pass through a pipeline. It ends their waits when it is closed.

    Args:
        channel: the channel that makes the attempts.
        guard: passes RPCs through the pipeline.
    """

    def __init__(self, channel: grpc.Channel, guard: Guard) -> None:
        self._channel = channel
        self._guard = guard

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """Have `callback` called with each new state of the connection; see `grpc.Channel`."""
        self._channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Any) -> None:
        """Remove what `subscribe` has added."""
        self._channel.unsubscribe(callback)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with one request and one response; see `grpc.Channel`."""
        return UnaryUnary(self._guard, method, self._channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with one request and a stream of responses; see `grpc.Channel`."""
        return UnaryStream(self._guard, method, self._channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with a stream of requests and one response; see `grpc.Channel`."""
        return StreamUnary(self._guard, method, self._channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with streams of requests and responses; see `grpc.Channel`."""
        return StreamStream(self._guard, method, self._channel.stream_stream(method, *args, **kwargs))

    def close(self) -> None:
        """Close the channel. What runs ends with CANCELLED, and so do futures and streams that wait.

        A blocking call that waits, in a queue or for another attempt, ends when its wait is over.
        """
        self._guard.close()
        self._channel.close()

    def __enter__(self) -> GuardedChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.close()
        return None
