"""The forecast of a queue is what happens, and it does not hold after anything else has happened."""

from __future__ import annotations

import pytest

from resilience import RateLimit
from resilience._policies.rate_limit.forecast import Charges, Forecast, ready_at
from resilience._policies.rate_limit.meter import Charge, Meter
from tests.policies.rate_limit.helpers import admitted, queued

START = 1000.0


def charges(*costs: tuple[Meter, float]) -> Charges:
    return [(meter, Charge(cost)) for meter, cost in costs]


def test_a_call_is_admitted_when_all_meters_admit_it() -> None:
    slow, quick = Meter(1, 1, 1), Meter(10, 1, 1)
    slow.take(1, START)
    quick.take(1, START)

    assert ready_at(charges((slow, 1), (quick, 1))) == START + 1
    assert ready_at(charges((quick, 1))) == pytest.approx(START + 0.1)


def test_the_forecast_is_what_happens_also_where_one_meter_is_idle_while_another_is_waited_for() -> None:
    requests, tokens = Meter(1, 1, 2), Meter(100, 1, 100)
    for meter in (requests, tokens):
        meter.take(meter.burst, START)
    line = [charges((requests, 1), (tokens, cost)) for cost in (10, 400, 30, 100, 5)]
    forecast = Forecast(line[:2])
    told: list[float] = []
    for one in line[2:]:
        told.append(forecast.ready_at(one))
        forecast.joined(one, told[-1])

    came: list[float] = []
    for one in line:
        came.append(max(came[-1] if came else 0.0, ready_at(one)))
        for meter, charge in one:
            meter.charge(charge, came[-1], track=False)

    assert told == pytest.approx(came[2:])


def test_it_holds_while_only_the_queue_moves_as_forecast() -> None:
    meter = Meter(1, 1, 1)
    meter.take(1, START)
    line = [charges((meter, 1)) for _ in range(3)]
    forecast = Forecast(line)
    assert forecast.holds(line)

    first = line.pop(0)
    meter.charge(first[0][1], ready_at(first), track=False)
    forecast.admitted(first)
    assert forecast.holds(line)
    assert forecast.ready_at(charges((meter, 1))) == START + 4


def test_it_does_not_hold_after_anything_else() -> None:
    meter = Meter(1, 1, 1)
    meter.take(1, START)
    line = [charges((meter, 1))]
    assert Forecast(line).holds(line)
    assert not Forecast(line).holds([])

    forecast = Forecast(line)
    meter.take(1, START)
    assert not forecast.holds(line)
    forecast = Forecast(line)
    meter.configure(1, 1, 5, START)
    assert not forecast.holds(line)


@pytest.mark.usefixtures("clock")
def test_a_long_queue_is_not_gone_through_for_each_call_that_joins() -> None:
    limit = RateLimit(1, max_wait=1e6)
    admitted(limit)
    queued(limit)
    queued(limit)
    forecasts = {id(vars(limit)["_forecast"]) for _ in range(50) if queued(limit)}

    assert len(forecasts) == 1
