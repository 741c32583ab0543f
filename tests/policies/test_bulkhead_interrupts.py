"""Permits come back after Ctrl-C, other signals, and whatever the function raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resilience import Pipeline
from resilience._policies.bulkhead import Bulkhead
from tests.policies.helpers import PATIENCE, admitted, give_back, idle, in_thread, joined
from tests.support.threads import interrupt_while


def test_ctrl_c_while_parked_gives_the_place_back() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=PATIENCE)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    thread = in_thread(lambda: interrupt_while(lambda: bulkhead.queued == 1))
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(int)
    joined(thread)

    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)
    give_back(bulkhead)
    assert pipeline.call(int) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ZeroDivisionError, ConnectionError])
def test_a_permit_comes_back_whatever_the_function_raises(error: type[BaseException]) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead)

    def fail() -> None:
        assert bulkhead.in_flight == 1
        raise error

    async def fail_async() -> None:
        fail()

    with pytest.raises(error):
        pipeline.call(fail)
    coroutine = pipeline(fail_async)()
    with pytest.raises(error):
        coroutine.send(None)

    assert idle(bulkhead)


SIGNALLED = """
import gc, signal
from resilience import AdaptiveLimit, Bulkhead, Call, Pipeline
from resilience._outcome.ending import OK

class Signalled(BaseException):
    pass

armed = False
heard = lost = 0

def hear(*_):
    global heard
    if armed:
        heard += 1
        raise Signalled

gc.disable()  # an exception in a finaliser is swallowed
bulkhead = MAKE
_, binding = Pipeline(bulkhead).entry()
call = Call.make(binding, int, (), {})
admit, settle = bulkhead.admit, bulkhead.settle
signal.signal(signal.SIGALRM, hear)
signal.setitimer(signal.ITIMER_REAL, 2e-5, 2e-5)
while heard < 2000:
    entered = False
    try:
        armed = True
        while True:
            permit = admit(call)
            entered = True
            settle(permit, OK)
            entered = False
    except Signalled:
        armed = False
    if bulkhead.in_flight:
        lost += not entered
        settle(permit, OK)
signal.setitimer(signal.ITIMER_REAL, 0)
print("lost", lost, bulkhead.snapshot())
"""


@pytest.mark.parametrize("make", ["Bulkhead(1)", "AdaptiveLimit(1, max_limit=1)"])
def test_a_signal_during_admit_loses_no_permit(make: str) -> None:
    """Either `admit` came back, or nothing was taken: Python hears signals between its steps, wherever it calls."""
    code = SIGNALLED.replace("MAKE", make)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)

    assert child.stderr == ""
    assert child.stdout == "lost 0 {'in_flight': 0, 'queued': 0, 'limit': 1, 'peak': 1}\n"
