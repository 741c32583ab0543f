"""The five shapes: what their hooks do unless a policy says more, and the state of one call in a Loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Call,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Failure,
    Gate,
    Loop,
    Pipeline,
    Policy,
    Race,
    RejectedError,
    RetryState,
    Scope,
    Substitute,
    Ticket,
)
from resilience._outcome.ending import ABANDONED, OK
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience.testing import VirtualClock
from tests.support.calls import running_call
from tests.support.turnstile import Turnstile


def unasked() -> float:
    pytest.fail("nobody has to look for cancel scopes")


class Waiting(Turnstile):
    """A gate that says nothing of its own about a wait in vain."""

    kind = "waiting"


class TestGate:
    def test_a_wait_in_vain_is_a_rejection_that_names_it(self, virtual_clock: VirtualClock) -> None:
        gate = Waiting()
        assert gate.take()

        with pytest.raises(RejectedError, match="waiting") as caught:
            Pipeline(gate, name="line").call(int)

        error = caught.value
        assert (error.reason, error.policy, error.pipeline) == ("queue_timeout", "waiting", "line")

    def test_a_gate_that_only_admits_may_leave_the_rest_out(self) -> None:
        class Open(Gate[str]):
            def admit(self, call: Call) -> str:
                return "token"

        gate = Open()

        assert gate.on_response_head("token") == "token"
        assert not gate.holds_permit
        assert Pipeline(gate).call(int) == 0

    def test_a_gate_without_a_queue_never_sees_a_ticket(self) -> None:
        tokens: list[str] = []

        class Open(Gate[str]):
            def admit(self, call: Call) -> str:
                return "token"

            def settle(self, token: str, ending: Ending) -> None:
                assert not isinstance(token, Ticket)
                tokens.append(token)

        Pipeline(Open(), Waiting()).call(int)

        assert tokens == ["token"]


def test_a_loop_pays_for_nothing() -> None:
    assert Loop().on_success(running_call().pipeline) is None


def test_a_scope_has_no_thread_and_no_fixed_time() -> None:
    scope = Scope()

    assert (scope.thread, scope.seconds) == (False, None)
    scope.before_thread_call(running_call())


@pytest.mark.parametrize(
    "hook",
    [
        lambda: Gate[Any]().admit(running_call()),
        lambda: Loop().delay(running_call(), OK, RetryState(0.0, unasked)),
        lambda: Scope().deadline(running_call(), 0.0),
        lambda: Race().begin(running_call(), 0.0, lambda: True),
        lambda: Substitute[Any]().replace(running_call(), OK),
    ],
    ids=["gate", "loop", "scope", "race", "substitute"],
)
def test_what_a_policy_has_to_say_itself(hook: Callable[[], object]) -> None:
    with pytest.raises(NotImplementedError):
        hook()


@pytest.mark.parametrize(
    ("ending", "handled"),
    [
        (OK, False),
        (Ending(None, ConnectionError(), NETWORK_ERRORS), True),
        (Ending(EndingKind.FAILED, None, None, Failure()), True),
        (Ending(None, DeadlineExceededError()), True),
        (Ending(None, DeadlineExceededError(unprocessed=True)), True),
        (Ending(None, RejectedError()), True),
        (Ending(None, KeyError(), NETWORK_ERRORS), False),
        (Ending(None, KeyboardInterrupt()), False),
        (ABANDONED, False),
    ],
)
def test_a_substitute_handles_failures_and_rejections(ending: Ending, handled: bool) -> None:
    assert Substitute[Any]().should_handle(running_call(), ending) is handled


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(Gate, "gate"), (Loop, "loop"), (Scope, "scope"), (Race, "race"), (Substitute, "substitute")],
)
def test_a_policy_is_called_after_its_shape_unless_it_has_a_name(shape: type[Policy[Any]], kind: str) -> None:
    assert (shape().name, shape(name="mine").name) == (kind, "mine")
