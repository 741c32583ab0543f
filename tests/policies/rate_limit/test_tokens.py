"""The tokens of admitted calls."""

from __future__ import annotations

import pytest

from resilience import RateLimit
from resilience._policies.rate_limit.meter import Charge, Meter
from resilience._policies.rate_limit.tokens import SETTLED, Admitted
from tests.policies.rate_limit.helpers import admitted, call_of, queued


def test_it_is_unused_until_the_function_is_called() -> None:
    call = call_of(RateLimit(1))
    call.calls_made = 2  # earlier attempts
    token = Admitted(call, ())

    assert token.is_unused
    call.calls_made += 1
    assert not token.is_unused
    assert not SETTLED.is_unused


def test_corrections_are_of_one_meter() -> None:
    one, other = Meter(1, 1, 1), Meter(1, 1, 1)
    charge = Charge(3)
    token = Admitted(None, [(one, charge), (other, Charge(4))])

    assert token.of(one, 7) == [(one, charge, 7)]
    assert token.of(Meter(1, 1, 1), 7) == []


@pytest.mark.usefixtures("clock")
def test_each_kind_of_token_says_what_was_admitted() -> None:
    limit = RateLimit(1, burst=1)
    quick = limit.admitted_of(admitted(limit))
    ticket = queued(limit)

    assert [(meter, charge.cost) for meter, charge in quick.charges] == [(limit.source.meter, 1)]
    assert quick.is_unused
    assert limit.admitted_of(ticket) is ticket.admitted
    assert limit.admitted_of(quick) is quick
    assert (ticket.cost, ticket.admitted.charges) == (1, ticket.charges)
