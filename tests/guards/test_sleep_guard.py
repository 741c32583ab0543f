"""The guard that fails a test which sleeps in real time without being marked slow."""

import pytest

from tests.guards import sleep_guard
from tests.guards.tree import ROOT

GUARDED = ["-p", "tests.guards.sleep_guard", "-p", "no:cacheprovider"]

SLEEPS = """
import asyncio, subprocess, sys, threading, time
from time import sleep
import anyio, pytest, trio, trio.testing

def test_time(): time.sleep(0.01)
def test_a_name_taken_early(): sleep(0.01)
def test_asyncio(): asyncio.run(asyncio.sleep(0.01))
def test_trio(): trio.run(trio.sleep, 0.01)
def test_trio_until():
    async def main(): await trio.sleep_until(trio.current_time() + 0.01)
    trio.run(main)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(backend): anyio.run(anyio.sleep, 0.01, backend=backend)
def test_swallowed():
    try:
        time.sleep(0.01)
    except Exception:
        pass
def test_swallowed_in_a_thread():
    def work():
        try:
            time.sleep(0.01)
        except Exception:
            pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
@pytest.fixture
def slow_fixture(): time.sleep(0.01)
def test_setup(slow_fixture): pass
"""

HARMLESS = """
import asyncio, subprocess, sys, time
import anyio, pytest, trio, trio.testing
import resilience.testing._virtual_time

def test_nothing_at_all():
    time.sleep(0)
    asyncio.run(asyncio.sleep(0))
    trio.run(trio.sleep, 0)
    anyio.run(anyio.sleep, 0)
def test_a_child_process(): subprocess.run([sys.executable, "-c", ""], timeout=60, check=True)
def test_mock_clock(): trio.run(trio.sleep, 3600, clock=trio.testing.MockClock(autojump_threshold=0))
def test_mock_clock_through_anyio():
    options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    anyio.run(anyio.sleep, 3600, backend="trio", backend_options=options)
def test_virtual_loop(monkeypatch):
    class Loop(asyncio.SelectorEventLoop): pass
    monkeypatch.setattr(resilience.testing, "VirtualLoop", Loop, raising=False)
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(asyncio.sleep(0.001))
        runner.run(anyio.sleep(0.001))
@pytest.mark.slow
def test_slow():
    time.sleep(0.001)
    asyncio.run(asyncio.sleep(0.001))
    trio.run(trio.sleep, 0.001)
"""


@pytest.fixture
def planted(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nmarkers = slow: may sleep\n")
    return pytester


def test_every_way_to_sleep_in_real_time_fails_the_test(planted: pytest.Pytester) -> None:
    planted.makepyfile(SLEEPS)

    result = planted.runpytest_subprocess(*GUARDED)

    result.assert_outcomes(failed=9, errors=1)
    result.stdout.fnmatch_lines(["*time.sleep in real time at *.py:6: mark the test slow, or use virtual time*"])
    result.stdout.fnmatch_lines(["*swallowed by the test or its threads:*"])


def test_what_does_not_sleep_or_sleeps_in_virtual_time_passes(planted: pytest.Pytester) -> None:
    planted.makepyfile(HARMLESS)

    result = planted.runpytest_subprocess(*GUARDED)

    result.assert_outcomes(passed=6)


def test_this_run_is_guarded() -> None:
    import time

    with pytest.raises(sleep_guard.RealSleepError, match="mark the test slow"):
        time.sleep(0.001)
    sleep_guard.WATCH.seen.clear()
