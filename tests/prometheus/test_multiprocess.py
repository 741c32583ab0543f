"""The multiprocess directory: sums over processes are exact, and gauges are those of the processes that live."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.interpreter import run_python

pytestmark = pytest.mark.slow

START = """
import os, struct, sys, threading, time
from contextlib import suppress
from prometheus_client import CollectorRegistry, REGISTRY, multiprocess
from resilience import *
from resilience import events
from resilience.prometheus import PrometheusMetrics
from tests.support.functions import Failing, down

def value(name, **labels):
    registry = CollectorRegistry(support_collectors_without_names=True)
    multiprocess.MultiProcessCollector(registry)
    while True:
        try:
            return registry.get_sample_value(name, labels)
        except struct.error:  # prometheus_client does not expect the file of a process that has just begun
            continue

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing has happened for too long"
        time.sleep(0.01)

def in_children(number, work):
    children = []
    for index in range(number):
        child = os.fork()
        if child == 0:
            try:
                work(index)
            finally:
                sys.stdout.flush()
                os._exit(0)
        children.append(child)
    return children

def wait_for(children):
    for child in children:
        os.waitpid(child, 0)
"""


def run(directory: Path, code: str) -> list[str]:
    """Run a program with a multiprocess directory; return the lines that it prints."""
    return run_python(START + code, PROMETHEUS_MULTIPROC_DIR=str(directory), PYTHONPATH=os.getcwd()).splitlines()


def test_four_forked_processes_lose_no_count(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
pipeline = Pipeline(Retry(2, wait=backoff.none()), name="forked", budget=None)
metrics = PrometheusMetrics()
pipeline.call(int)

def work(index):
    def calls():
        for number in range(500):
            with suppress(ConnectionError):
                pipeline.call(int if number % 10 else Failing(1) if number % 50 else down)
    threads = [threading.Thread(target=calls) for _ in range(2)]
    [one.start() for one in threads]
    [one.join() for one in threads]

wait_for(in_children(4, work))
common = {"pipeline": "forked"}
print(value("resilience_calls_total", outcome="ok", **common))
print(value("resilience_calls_total", outcome="failed", **common))
print(value("resilience_attempts_total", outcome="ok", **common))
print(value("resilience_attempts_total", outcome="failed", **common))
print(value("resilience_call_duration_seconds_count", **common))
print(value("resilience_call_duration_seconds_bucket", le="+Inf", **common))
print(value("resilience_attempt_duration_seconds_count", **common))
print(value("resilience_call_retries_count", **common))
print(value("resilience_retries_refused_total", reason="attempts", **common))
""",
    )
    failed = 4 * 2 * 10
    ok = 4 * 2 * 500 + 1 - failed
    retried = 4 * 2 * 50
    assert printed == [
        *(f"{ok}.0", f"{failed}.0", f"{ok}.0", f"{retried + failed}.0"),
        *(f"{ok + failed}.0", f"{ok + failed}.0", f"{ok + failed + retried}.0", f"{retried}.0", f"{failed}.0"),
    ]


def test_gauges_are_of_all_processes_that_live(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
bulkhead, breaker = Bulkhead(5), CircuitBreaker()
pipeline = Pipeline(Retry(), bulkhead, breaker, name="gauged")
metrics = PrometheusMetrics()
pipes = [os.pipe() for _ in range(2)]
common = {"pipeline": "gauged", "policy": "bulkhead"}

def work(index):
    for _, writer in pipes:
        os.close(writer)  # so that a parent that fails ends this, too
    reader, _ = pipes[index]
    with bulkhead:
        pipeline.call(int)
        if index:
            breaker.isolate()
        os.read(reader, 1)
    pipeline.call(int) if not index else None
    until(lambda: bulkhead.in_flight == 0)
    os.read(reader, 1)

children = in_children(2, work)
until(lambda: value("resilience_bulkhead_in_flight", **common) == 2)
until(lambda: value("resilience_bulkhead_limit", **common) == 10)
state = {"pipeline": "gauged", "policy": "breaker"}
until(lambda: value("resilience_circuit_breaker_state", state="isolated", **state) == 1)
until(lambda: value("resilience_circuit_breaker_state", state="closed", **state) == 1)
until(lambda: value("resilience_retry_budget_tokens", pipeline="gauged", policy="budget") == 20)
until(lambda: value("resilience_build_info", version="0.1.0") == 1)
[os.write(writer, b"a") for _, writer in pipes]
until(lambda: value("resilience_bulkhead_in_flight", **common) == 0)  # although nothing is called any more
[os.write(writer, b"b") for _, writer in pipes]
wait_for(children)
print(value("resilience_bulkhead_limit", **common))
for child in children:
    multiprocess.mark_process_dead(child)
print(value("resilience_bulkhead_limit", **common))
print(value("resilience_calls_total", outcome="ok", pipeline="gauged"))
print(value("resilience_circuit_breaker_transitions_total", to="isolated", **state))
print(value("resilience_build_info", version="0.1.0"))
""",
    )
    assert printed == ["10.0", "None", "3.0", "1.0", "None"]


def test_pipelines_that_are_collected_and_counts_by_name(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
def broken(event):
    raise ZeroDivisionError

import gc, logging
logging.disable()
pipeline = Pipeline(Bulkhead(5), Partition(lambda: Bulkhead(2), name="split"), name="short")
metrics = PrometheusMetrics(key_labels=True)
with subscribe(broken, events=[events.CallEnded]):
    pipeline.bind(target="https://a:b@host/").call(int)
    pipeline.engine.info.count_foreign_retry()
    pipeline.call(int)
children = in_children(2, lambda index: pipeline.call(int))
wait_for(children)
for child in children:
    multiprocess.mark_process_dead(child)
until(lambda: value("resilience_bulkhead_limit", pipeline="short", policy="bulkhead", key="") == 5)
print(value("resilience_bulkhead_limit", pipeline="short", policy="split", key="https://host/"))
until(lambda: value("resilience_listener_errors_total", pipeline="short") == 2)
print(value("resilience_foreign_retries_total", pipeline="short"))
del pipeline
gc.collect()
until(lambda: value("resilience_bulkhead_limit", pipeline="short", policy="bulkhead", key="") == 0)
print(value("resilience_calls_total", outcome="ok", pipeline="short"))
print(value("resilience_fallbacks_total", pipeline="short"))
metrics.close()
metrics = PrometheusMetrics()
print(metrics is not None)
""",
    )
    assert printed == ["2.0", "1.0", "4.0", "0.0", "True"]


def test_the_ratio_of_attempts_to_their_timeout(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
pipeline = Pipeline(Retry(), Timeout(100), name="timed")
metrics = PrometheusMetrics()
for _ in range(150):
    pipeline.call(int)
until(lambda: value("resilience_attempt_timeout_ratio", pipeline="timed"))
print(value("resilience_attempt_timeout_ratio", pipeline="timed") < 0.01)
""",
    )
    assert printed == ["True"]


def test_two_on_one_registry_are_refused_and_nothing_is_left_of_the_second(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
from prometheus_client import Gauge
pipeline = Pipeline(name="twice")
registry = CollectorRegistry()
metrics = PrometheusMetrics(registry, multiprocess=True)
try:
    PrometheusMetrics(registry)
except ValueError as error:
    print("close() the other one first" in str(error))
pipeline.call(int)
print(value("resilience_calls_total", outcome="ok", pipeline="twice"))
taken = CollectorRegistry()
Gauge("resilience_build_info", "Of another library.", registry=taken)
try:
    PrometheusMetrics(taken)
except ValueError as error:
    print(len(list(taken.collect())))
metrics.close()
pipeline.call(int)
print(value("resilience_calls_total", outcome="ok", pipeline="twice"), len(list(registry.collect())))
PrometheusMetrics(registry)
""",
    )
    assert printed == ["True", "1.0", "1", "1.0 0"]


def test_a_directory_that_is_gone_changes_no_call(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
import logging, shutil
logging.disable()
pipeline = Pipeline(Retry(2, wait=backoff.none()), name="gone")
metrics = PrometheusMetrics()
pipeline.call(int)
shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])

def work(index):
    print(pipeline.call(int), pipeline.call(Failing(1)))
    print(Pipeline(name="made after it").call(int))

wait_for(in_children(1, work))
""",
    )
    assert printed == ["0 fine", "0"]


def test_a_stream_that_the_collector_ends_while_a_count_is_written_waits(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
import gc
from prometheus_client import values

class Cycle:
    def __init__(self, stream):
        self.stream, self.itself = stream, self

@Pipeline(name="streamed")
def items():
    yield 1
    yield 2

metrics = PrometheusMetrics()
pipeline = Pipeline(name="collects")
pipeline.call(int)
gc.disable()
stream = items()
next(stream)
Cycle(stream)
del stream
inc = values.ValueClass.inc
(lock,) = [cell.cell_contents for cell in inc.__closure__ if hasattr(cell.cell_contents, "acquire")]

def interrupted(self, amount):
    with lock:
        gc.collect()  # as the collector may at any moment
    inc(self, amount)

values.ValueClass.inc = interrupted
pipeline.call(int)
values.ValueClass.inc = inc
common = {"pipeline": "streamed"}
until(lambda: value("resilience_call_duration_seconds_count", **common) == 1)
print(value("resilience_calls_total", outcome="ok", pipeline="collects"))
""",
    )
    assert printed == ["2.0"]


def test_a_fork_waits_for_a_write(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
pipeline = Pipeline(name="busy_fork")
metrics = PrometheusMetrics()
over = threading.Event()

def work():
    while not over.is_set():
        pipeline.call(int)

threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
[one.start() for one in threads]
for _ in range(20):
    wait_for(in_children(1, lambda index: pipeline.call(int)))
over.set()
[one.join() for one in threads]
print(value("resilience_calls_total", outcome="ok", pipeline="busy_fork") > 20)
""",
    )
    assert printed == ["True"]


def test_a_fork_waits_until_the_counts_of_a_pipeline_are_made(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
import signal
from prometheus_client import Counter

pipeline = Pipeline(name="made_while_forking")
metrics = PrometheusMetrics()
forked, may_fork, make = threading.Event(), threading.Event(), Counter._metric_init

def slow(self):  # prometheus_client holds a lock meanwhile
    make(self)
    if not forked.is_set() and threading.current_thread() is not threading.main_thread():
        may_fork.set()
        forked.wait(0.2)

def work(index):
    signal.alarm(10)
    pipeline.call(int)
    print("called")

Counter._metric_init = slow
thread = threading.Thread(target=pipeline.call, args=(int,))
thread.start()
may_fork.wait()
children = in_children(1, work)
forked.set()
thread.join()
wait_for(children)
print(value("resilience_calls_total", outcome="ok", pipeline="made_while_forking"))
""",
    )
    assert printed == ["called", "2.0"]


def test_calls_in_a_signal_handler_that_interrupts_a_write(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
import signal
from prometheus_client import values

pipeline = Pipeline(Retry(2, wait=backoff.none()), name="signalled")
other = Pipeline(name="first called by the handler")
metrics = PrometheusMetrics()
pipeline.call(int)
inc = values.ValueClass.inc
(lock,) = [cell.cell_contents for cell in inc.__closure__ if hasattr(cell.cell_contents, "acquire")]

def interrupted(self, amount):
    values.ValueClass.inc = inc
    with lock:
        signal.raise_signal(signal.SIGUSR1)
    inc(self, amount)

def handle(number, frame):
    pipeline.call(int)
    with suppress(ConnectionError):
        pipeline.call(down)
    other.call(int)

signal.signal(signal.SIGUSR1, handle)
signal.alarm(20)
values.ValueClass.inc = interrupted
pipeline.call(int)
pipeline.call(int)
print(value("resilience_calls_total", outcome="ok", pipeline="signalled"))
print(value("resilience_calls_total", outcome="failed", pipeline="signalled"))
print(value("resilience_retries_refused_total", reason="attempts", pipeline="signalled"))
print(value("resilience_call_duration_seconds_count", pipeline="signalled"))
print(value("resilience_calls_total", outcome="ok", pipeline="first called by the handler"))
""",
    )
    assert printed == ["4.0", "1.0", "1.0", "5.0", "1.0"]
