"""How long imports take, each in a fresh process, on top of what nearly every program has already."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.bars import Missing
from benchmarks.peers import MODULES
from benchmarks.rounds import Found, Plan, order

BELOW = "anyio, tenacity"
SCRIPT = """
import sys, time, {below}
start, clock = time.process_time_ns(), time.perf_counter_ns()
import {module}
print((time.process_time_ns() - start) / 1e6, (time.perf_counter_ns() - clock) / 1e6)
"""
LEAST, MOST = 5, 31


def once(module: str, cache: str) -> tuple[float, float]:
    """Import it in a new process; returns the milliseconds of CPU time, and of the clock.

    What is compiled is kept in `cache`, as an installed package keeps it, whatever the environment says.
    """
    command = [sys.executable, "-c", SCRIPT.format(below=BELOW, module=module)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ImportError(answer.stderr.strip().rpartition("\n")[2])
    cpu, clock = answer.stdout.split()
    return float(cpu), float(clock)


def measure(plan: Plan, *, peers: bool) -> Found:
    """Measure in rounds. The first import, which has to compile, does not count."""
    with tempfile.TemporaryDirectory() as cache:
        return _measure(plan, cache, peers=peers)


def _measure(plan: Plan, cache: str, *, peers: bool) -> Found:
    found = Found()
    modules = {"resilience": "resilience"}
    if peers:
        modules |= {package: module for package, module in MODULES.items() if package != "tenacity"}
    for package, module in list(modules.items()):
        try:
            once(module, cache)
        except ImportError as error:
            found.missing[package] = Missing(package, str(error))
            del modules[package]
    found.series = {name: [] for package in modules for name in (package, f"{package}, by the clock")}
    end = time.monotonic() + plan.seconds
    for number in range(MOST):
        for package in order(list(modules), number):
            cpu, clock = once(modules[package], cache)
            found.series[package].append(cpu)
            found.series[f"{package}, by the clock"].append(clock)
        if number + 1 >= LEAST and time.monotonic() > end:
            break
    return found
