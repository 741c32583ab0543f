"""Gates with interchangeable permits, which can guard a block of code directly, with `with` or `async with`.

And gates that look at what their calls return.
"""

from __future__ import annotations

import contextlib
from typing import Any, Generic, Self, TypeVar

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


class ResultGate(Gate[Token], Generic[Token]):
    """A gate that may look at what its calls return."""

    settles_success: bool = True
    """Whether `settle` has to be called after a success, too; if not, a pipeline may leave that out."""

    @property
    def observes_results(self) -> bool:
        """Whether `on_result` is to be called; it is asked when a chain is composed."""
        return True

    def on_result(self, token: Token, result: Any) -> None:
        """Called with the result of a call before its token is settled, also with one that came after the deadline.

        It is not called with results that are failures. Of a streamed result it gets the object that the function has
        returned, when its head has arrived.
        """
