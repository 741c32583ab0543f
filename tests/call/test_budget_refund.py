"""Refunds to a budget."""

from __future__ import annotations

from resilience import RetryBudget


def test_a_refund_to_a_grpc_budget_changes_nothing() -> None:
    budget = RetryBudget.grpc(10)
    budget.failed()

    budget.refund()

    assert budget.tokens == 9
