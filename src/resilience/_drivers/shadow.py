"""Gates in shadow mode: they decide and are settled as in enforce mode, but reject no call."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call
from resilience._call.entry import Admit
from resilience._call.members import Member
from resilience._call.wait_queue import Ticket
from resilience._drivers.hooks import publish_rejection, settle_gate
from resilience._outcome.ending import Ending
from resilience._policies.base import key_in_partition
from resilience._policies.blocks import ResultGate
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed
from resilience.errors import RejectedError
from resilience.events._types import Mode, Queued

REJECTED: Any = object()
"""The token of a call that the gate would have rejected: the gate does not settle it."""


class ShadowGate(ResultGate[Any]):
    """Replaces a gate in a chain. It reports rejections and waits of the gate, and admits every call at once.

    Args:
        gate: the gate in shadow mode.
        admit: what is called in place of `gate.admit`; None for that.
    """

    def __init__(self, gate: Gate[Any], admit: Admit | None = None) -> None:
        super().__init__()
        self._gate = gate
        self._admit = admit or gate.admit
        self.holds_permit = gate.holds_permit

    def admit(self, call: Call) -> Any:
        """Return the gate's token; if the call would be rejected or have to wait, report that and return REJECTED."""
        gate = self._gate
        try:
            token = self._admit(call)
        except RejectedError as error:
            publish_rejection(gate, call, error, Mode.SHADOW)
            return REJECTED
        except Exception as error:
            hook_failed("admit of a policy in shadow mode", gate, error)
            return REJECTED
        if isinstance(token, Ticket):
            token.leave()
            _publish_queued(gate, call, token)
            return REJECTED
        return token

    @property
    def observes_results(self) -> bool:
        """Whether the gate observes results."""
        return isinstance(self._gate, ResultGate) and self._gate.observes_results

    def on_result(self, token: Any, result: Any) -> None:
        """Call the gate's `on_result`, if it admitted the call."""
        if token is not REJECTED and isinstance(self._gate, ResultGate):
            self._gate.on_result(token, result)

    def on_response_head(self, token: Any) -> Any:
        """Call the gate's `on_response_head`, if it admitted the call."""
        return REJECTED if token is REJECTED else self._gate.on_response_head(token)

    def settle(self, token: Any, ending: Ending) -> None:
        """Settle the gate, if it admitted the call."""
        if token is not REJECTED:
            settle_gate(self._gate, token, ending)


def _publish_queued(gate: Gate[Any], call: Call, ticket: Ticket) -> None:
    """Publish that a call would have waited."""
    now, expected = clock.monotonic(), ticket.expected_at
    call.pipeline.publish(
        Queued,
        gate,
        call,
        wait=None if expected is None else max(0.0, expected - now),
        longest=max(0.0, ticket.until - now),
        mode=Mode.SHADOW,
        partition_key=key_in_partition(gate),
    )


def shadow_of(member: Member[Any]) -> ShadowGate:
    """Return the gate that replaces the one of a key in shadow mode; it is made when it is first needed."""
    gate: ShadowGate | None = member.shadow
    if gate is None:
        gate = member.shadow = ShadowGate(member.policy)
    return gate
