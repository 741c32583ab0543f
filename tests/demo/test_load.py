"""The load: the same calls in each arm, at their times, whatever comes back."""

from __future__ import annotations

import asyncio
from itertools import islice, pairwise

from resilience._demo.arms import Client, Timeouts
from resilience._demo.load import arrivals, drive
from resilience._demo.records import Arrival, Records
from resilience._demo.script import Arm, ServiceName
from resilience._util.clock import clock
from resilience.testing import virtual_time
from tests.demo import made


class Slow(Client):
    """A client whose calls take a second; every third one fails."""

    def __init__(self, arm: Arm) -> None:
        super().__init__(arm, Timeouts(0.5))
        self.begun: list[float] = []

    async def _ask(self, arrival: Arrival) -> None:
        self.begun.append(clock.monotonic())
        await asyncio.sleep(1.0)
        if arrival.number % 3 == 0:
            raise TimeoutError

    async def close(self) -> None:
        """Nothing is open."""


def test_the_calls_are_those_of_the_seed() -> None:
    one, again, other = (list(arrivals(key, 25.0, 40.0)) for key in ("http 1", "http 1", "http 2"))

    assert one == again != other
    assert [call.number for call in one] == list(range(len(one)))
    assert 800 < len(one) < 1200
    assert 0.15 < sum(call.order for call in one) / len(one) < 0.35
    assert all(0.0 < before.due < after.due < 40.0 for before, after in pairwise(one))
    assert not any(call.order for call in arrivals("http 1", 25.0, 40.0, order_share=0.0))


def test_every_arm_makes_the_same_calls_and_none_waits_for_another() -> None:
    calls = list(islice(arrivals("http 1", 10.0, 60.0), 12))
    clients = {arm: Slow(arm) for arm in (Arm.BARE, Arm.STANDARD)}
    ended: list[object] = []
    with virtual_time():
        records = Records(began=clock.monotonic() + 0.5)
        asyncio.run(drive(ServiceName.HTTP, clients, calls, made.DAY, records, ended.append))

    expected = [records.began + call.due for call in calls]
    for client in clients.values():
        assert [round(begun - due, 6) for begun, due in zip(client.begun, expected, strict=True)] == [0.0] * len(calls)
    assert ended == records.calls
    assert records.lag < 1e-6
    bare = [call for call in records.calls if call.arm is Arm.BARE]
    assert [call.served for call in bare] == [call.number % 3 != 0 for call in calls]
    assert {round(call.seconds, 6) for call in bare} == {1.0}
    assert {call.phase for call in bare if call.arrival.due < 1.0} == {"sick"}


def test_tenacity_asks_three_times_and_within_the_same_time() -> None:
    client = Slow(Arm.TENACITY)
    with virtual_time():
        records = Records(began=clock.monotonic())
        asyncio.run(
            drive(
                ServiceName.HTTP,
                {Arm.TENACITY: client},
                [Arrival(3, 0.0, order=True)],
                made.DAY,
                records,
                lambda _: None,
            )
        )

    (call,) = records.calls
    assert not call.served
    assert [round(begun - client.begun[0], 6) for begun in client.begun] == [0.0, 1.1]  # the third has no time left
    assert round(call.seconds, 6) == 2.0


def test_attempts_are_counted_by_half_seconds() -> None:
    with virtual_time() as time:
        records = Records(began=clock.monotonic() + 1.0)
        for _ in range(5):
            records.note_attempt(ServiceName.GRPC, Arm.BARE)
            time.advance(0.4)

    assert records.sent == {(ServiceName.GRPC, Arm.BARE, 0): 4, (ServiceName.GRPC, Arm.BARE, 1): 1}
