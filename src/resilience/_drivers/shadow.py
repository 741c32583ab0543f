"""A gate in shadow mode: it is asked and told as if it were in force, and keeps nobody out."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call
from resilience._call.wait_queue import Ticket
from resilience._drivers.hooks import publish_rejection, rejection_of
from resilience._outcome.ending import Ending
from resilience._policies.shapes import Gate
from resilience._util.log_once import hook_failed
from resilience.errors import RejectedError
from resilience.events._types import Mode

REJECTED: Any = object()
"""The token of a call that the gate would have kept out: nobody hears of its ending."""


class ShadowGate(Gate[Any]):
    """Stands in a chain in the place of a gate that only watches. It never makes a call wait, and never refuses."""

    def __init__(self, gate: Gate[Any]) -> None:
        super().__init__()
        self._gate = gate
        self.holds_permit = gate.holds_permit

    def admit(self, call: Call) -> Any:
        """Ask the gate; report a refusal, or a wait."""
        gate = self._gate
        try:
            token = gate.admit(call)
        except RejectedError as error:
            publish_rejection(gate, call, error, Mode.SHADOW)
            return REJECTED
        except Exception as error:
            hook_failed("admit of a policy in shadow mode", gate, error)
            return REJECTED
        if isinstance(token, Ticket):
            token.leave()
            publish_rejection(gate, call, rejection_of(gate, call), Mode.SHADOW)
            return REJECTED
        return token

    def on_response_head(self, token: Any) -> Any:
        """Tell the gate, if it let the call in."""
        return REJECTED if token is REJECTED else self._gate.on_response_head(token)

    def settle(self, token: Any, ending: Ending) -> None:
        """Tell the gate, if it let the call in."""
        if token is REJECTED:
            return
        try:
            self._gate.settle(token, ending)
        except Exception as error:
            hook_failed("settle of a policy", self._gate.settle, error)
