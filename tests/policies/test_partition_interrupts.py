"""After Ctrl-C and other signals no call is counted that is over, so that its policy can be evicted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.policies.helpers import PATIENCE

SIGNALLED = """
import gc, signal
from resilience import Bulkhead, Partition, Pipeline, Retry, RetryBudget

class Signalled(BaseException):
    pass

armed = False
heard = 0

def hear(*_):
    global heard
    if armed:
        heard += 1
        raise Signalled

gc.disable()  # an exception in a finaliser is swallowed
bulkheads = Partition(lambda: Bulkhead(1000000), BY)
budgets = Partition(RetryBudget, BY)
pipeline = Pipeline(Retry(), bulkheads, budget=budgets).bind(target="key")
pipeline.call(int)
signal.signal(signal.SIGALRM, hear)
signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
while heard < 2000:
    try:
        armed = True
        while True:
            pipeline.call(int)
    except Signalled:
        armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
print([(one.key, len(one.users)) for keyed in (bulkheads, budgets) for one in (keyed._rest, *keyed._members)])
"""


@pytest.mark.parametrize("by", ["'target'", "lambda call: 'key'"])
def test_a_signal_during_a_call_leaves_nothing_in_use(by: str) -> None:
    source = SIGNALLED.replace("BY", by)
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE)

    assert child.stderr == ""
    assert child.stdout == "[(None, 0), ('key', 0), (None, 0), ('key', 0)]\n"
