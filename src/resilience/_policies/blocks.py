"""Gates with interchangeable permits, which can guard a block of code directly, with `with` or `async with`."""

from __future__ import annotations

import contextlib
from typing import Generic, Self, TypeVar

from resilience._call.block import Block
from resilience._policies.shapes import Gate

Token = TypeVar("Token")


class PermitGate(Gate[Token], Generic[Token]):
    """A gate whose permits are interchangeable, so that it can also be used as `with gate:` and `async with gate:`.

    One object may guard many blocks at once, in several threads and tasks, and nested in one another. A block that ends
    gives back a permit, whichever: all are worth the same.
    """

    def __enter__(self) -> Self:
        """Admit the block, or raise the gate's rejection. A thread may wait in the gate's queue.

        Raises:
            UsageError: the gate would have to wait in a task of an event loop; use `async with` there.
        """
        block = self.calling()
        block.__enter__()
        self._entered().append(block)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Give a permit back."""
        blocks = self._entered()
        with contextlib.suppress(IndexError):  # it was entered before a fork
            blocks.pop().__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        """Admit the block, or raise the gate's rejection. The task may wait in the gate's queue."""
        block = self.calling()
        await block.__aenter__()
        self._entered().append(block)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Give a permit back."""
        self.__exit__(kind, error, traceback)

    def _forget_calls(self) -> None:
        self._entered().clear()

    def _entered(self) -> list[Block[Self]]:
        """Return the blocks that have been entered and not left; made when it is first needed."""
        blocks: list[Block[Self]] = vars(self).setdefault("_blocks", [])
        return blocks
