"""The gate that makes the calls, or the attempts, of a pipeline in a context, as tracing needs it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from resilience._call.running_call import RunningCall
from resilience._drivers.event_gate import outcome_of
from resilience._outcome.ending import Ending
from resilience._policies.shapes import Gate
from resilience.events._types import Outcome


class ContextGate(Gate[Any]):
    """Enters a context before a call or an attempt, and leaves it when that returns.

    A chain contains it only while there is tracing. `enter` and `leave` are called by the same thread or task; `ended`
    when the work has ended, which a streamed result may do later and elsewhere. None of them may raise an exception.
    """

    @abstractmethod
    def enter(self, call: RunningCall, /) -> Any:
        """Enter the context, and return a token; None for a call or an attempt that needs no context."""

    @abstractmethod
    def leave(self, token: Any, result: object, error: BaseException | None, /) -> None:
        """Leave the context.

        Args:
            token: what `enter` has returned.
            result: what the call or the attempt has returned; None if it has raised an exception.
            error: the exception; None if it has returned. After a GeneratorExit the context may be another one.
        """

    def ended(self, token: Any, outcome: Outcome, error: BaseException | None, /) -> None:
        """Called once for each token, when the call or the attempt has ended.

        Args:
            token: what `enter` has returned; after a streamed result, what `on_response_head` has made of it.
            outcome: how it ended.
            error: the exception that it ended with; None if there is none.
        """

    def settle(self, token: Any, ending: Ending) -> None:
        """Report the ending."""
        self.ended(token, outcome_of(ending), ending.error)
