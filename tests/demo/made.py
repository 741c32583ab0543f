"""A run of the demo that is made up: ten calls a second of each service for two seconds, in each arm."""

from __future__ import annotations

from resilience._demo.records import Arrival, BreakerRecord, CallRecord
from resilience._demo.run import Plan, Result, own_day
from resilience._demo.script import Arm, Phase, ServiceName, spans

DAY = spans(
    [
        Phase(name="sick", seconds=1.0, workers=1, work=(0.1, 0.1)),
        Phase(name="healthy again", seconds=1.0, sick=False),
    ]
)
LOAD = {Arm.BARE: 10, Arm.TENACITY: 28, Arm.STANDARD: 6}
SERVED = {Arm.BARE: 0, Arm.TENACITY: 1, Arm.STANDARD: 2}
"""The calls that are served of ten in the sick phase."""
DOUBLED = {Arm.BARE: 0, Arm.TENACITY: 3, Arm.STANDARD: 0}


def result(*, own: bool = False) -> Result:
    """What the run has brought; `own`: of a service of the user."""
    made = Result(Plan(day=own_day(2.0) if own else DAY, rate=10.0))
    for service in ServiceName:
        for number in range(20):
            arrival, sick = Arrival(number, number / 10 + 0.05, order=number % 4 == 0), number < 10
            phase = "your service" if own else "sick" if sick else "healthy again"
            for arm in Arm:
                served = not sick or number < SERVED[arm]
                made.records.calls.append(CallRecord(service, arm, arrival, phase, served, 0.01 if served else 0.5))
                made.records.sent[service, arm, number // 5] += 1
        if not own:
            made.seen[service] = {
                str(arm): {
                    "phases": {"sick": LOAD[arm], "healthy again": 10},
                    "bins": {"0": LOAD[arm], "2": 10},
                    "orders": 5,
                    "doubled": DOUBLED[arm],
                }
                for arm in Arm
            }
    made.records.breakers += [
        BreakerRecord(ServiceName.HTTP, 0.4, "open"),
        BreakerRecord(ServiceName.HTTP, 0.9, "half_open"),
        BreakerRecord(ServiceName.HTTP, 1.0, "closed"),
    ]
    return made
