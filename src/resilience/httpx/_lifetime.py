"""What a transport around another one does as it is entered and closed."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Any, Self


class Lifetime:
    """Enters and closes the inner transport of a plain client.

    Attributes:
        _transport: the inner transport.
    """

    _transport: Any

    @abstractmethod
    def note_closing(self) -> None:
        """Called before the inner transport is closed."""

    def close(self) -> None:
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        self.note_closing()
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.note_closing()
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncLifetime:
    """Enters and closes the inner transport of an async client.

    Attributes:
        _transport: the inner transport.
    """

    _transport: Any

    @abstractmethod
    def note_closing(self) -> None:
        """Called before the inner transport is closed."""

    async def aclose(self) -> None:
        """Close the inner transport. Calls that wait for another attempt are rejected."""
        self.note_closing()
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.note_closing()
        await self._transport.__aexit__(exc_type, exc_value, traceback)
