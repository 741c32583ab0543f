"""Responses of the synchronous API that come from a plain iterator, and the end of streams of responses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from resilience.grpc._failures import code_of, details_of
from resilience.grpc._outcomes import Finished, LocalRpcError


class IteratedCall(Finished):
    """The call of responses that come from a plain iterator: of a Fallback, or of another interceptor.

    Args:
        responses: the iterator.
    """

    def __init__(self, responses: Iterator[Any]) -> None:
        self._responses = responses
        self._error: Exception | None = None
        self._ended = False
        self._callbacks: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._responses)
        except StopIteration:
            self._end()
            raise
        except Exception as error:
            self._error = error
            self._end()
            raise

    def _end(self) -> None:
        self._ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the iterator ends; return False, and do not call it, if it has ended."""
        if not self._ended:
            self._callbacks.append(callback)
        return not self._ended

    def code(self) -> grpc.StatusCode:
        """Return the status code of the error that the iterator has raised; OK if it has raised none so far."""
        return grpc.StatusCode.OK if self._error is None else code_of(self._error) or grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        """Return the details of the error that the iterator has raised; empty if it has raised none so far."""
        return "" if self._error is None else details_of(self._error)

    def result(self, timeout: float | None = None) -> Any:
        """Raise the error of the iterator, if it has raised one."""
        del timeout
        if self._error is not None:
            raise self._error

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return the error of the iterator; None if it has raised none so far."""
        del timeout
        return self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback of the error of the iterator."""
        del timeout
        return None if self._error is None else self._error.__traceback__

    def done(self) -> bool:
        """Return whether the iterator has ended."""
        return self._ended

    def running(self) -> bool:
        """Return whether the iterator has not ended."""
        return not self._ended

    def cancel(self) -> bool:
        """Close the iterator, if it can be closed at this moment; return whether it was."""
        close: Any = getattr(self._responses, "close", None)
        if close is None or self._ended:
            return False
        with contextlib.suppress(ValueError):  # another thread waits for its next response
            close()
            self._end()
        return self._ended


def error_of_ended(stream: Any) -> Exception | None:
    """Return the error of a stream that has ended, or None if it has ended well."""
    code = stream.code()
    if code is grpc.StatusCode.OK:
        return None
    return stream if isinstance(stream, Exception) else LocalRpcError(code, stream.details() or "")
