"""Measuring: every contender once per round, in an order that changes, for as many rounds as it takes to be certain.

What is measured is the CPU time of this process, so that what else runs on the machine counts little. The cyclic
garbage collector stays on, since what a contender leaves to it is that contender's cost; but it starts each slice
with nothing to do (`gc.collect`), and never looks at what was there before (`gc.freeze`).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from types import TracebackType
from typing import Any, Protocol

import trio

from benchmarks.bars import Missing

ANSWER = 1
"""What every measured function returns."""
Refusal = type[BaseException]


class WrongAnswerError(Exception):
    """A contender does not do what it is measured for."""


@dataclass(frozen=True)
class Subject:
    """Something ready to be called; `refusal` is what each call raises, if that is what is measured."""

    call: Callable[[], Any]
    refusal: Refusal | None = None
    threads: int = 1


@dataclass(frozen=True)
class Contender:
    """Something to be measured; `package` is the distribution that it is a part of."""

    name: str
    make: Callable[[], Subject]
    package: str = ""


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    slice_ns: int
    least: int
    seconds: float
    most: int = 400


@dataclass
class Found:
    """What was measured in a section: one number per round and contender."""

    series: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    missing: dict[str, Missing] = field(default_factory=dict[str, Missing])


class Runner(Protocol):
    """Calls a subject so many times, in the way of one runtime."""

    def slice(self, subject: Subject, calls: int) -> int:
        """Return the nanoseconds that so many calls took."""
        ...

    def results(self, subject: Subject, calls: int) -> list[Any]:
        """Return what so many calls returned, or what they raised."""
        ...


class OnThread(nullcontext[None]):
    """Plain calls, one after the other."""

    def slice(self, subject: Subject, calls: int) -> int:
        call, refusal = subject.call, subject.refusal
        start = time.process_time_ns()
        if refusal is None:
            for _ in repeat(None, calls):
                call()
        else:
            for _ in repeat(None, calls):
                try:
                    call()
                except refusal:
                    continue
                raise WrongAnswerError("was not refused")
        return time.process_time_ns() - start

    def results(self, subject: Subject, calls: int) -> list[Any]:
        results: list[Any] = []
        for _ in range(calls):
            try:
                results.append(subject.call())
            except Exception as error:
                results.append(error)
        return results


async def _slice(subject: Subject, calls: int) -> int:
    call, refusal = subject.call, subject.refusal
    start = time.process_time_ns()
    if refusal is None:
        for _ in repeat(None, calls):
            await call()
    else:
        for _ in repeat(None, calls):
            try:
                await call()
            except refusal:
                continue
            raise WrongAnswerError("was not refused")
    return time.process_time_ns() - start


async def _results(subject: Subject, calls: int) -> list[Any]:
    results: list[Any] = []
    for _ in range(calls):
        try:
            results.append(await subject.call())
        except Exception as error:
            results.append(error)
    return results


class OnAsyncio(AbstractContextManager[None]):
    """Awaited calls, one after the other, in a task per slice of one asyncio loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def slice(self, subject: Subject, calls: int) -> int:
        return self._runner.run(_slice(subject, calls))

    def results(self, subject: Subject, calls: int) -> list[Any]:
        return self._runner.run(_results(subject, calls))

    def __exit__(self, *details: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._runner.close()


class OnTrio(nullcontext[None]):
    """Awaited calls, one after the other, in a trio run per slice."""

    def slice(self, subject: Subject, calls: int) -> int:
        return trio.run(_slice, subject, calls)

    def results(self, subject: Subject, calls: int) -> list[Any]:
        return trio.run(_results, subject, calls)


def measure(
    contenders: Iterable[Contender],
    runner: Runner,
    plan: Plan,
    settled: Callable[[Found], bool],
    *,
    least_calls: int = 8,
) -> Found:
    """Measure in rounds, until `settled`, or until the time of the plan is over.

    A contender that cannot be made, or does not do what it should, is missing.
    """
    found = Found()
    ready: list[tuple[str, Subject, int]] = []
    for contender in contenders:
        if contender.name in found.missing or any(contender.name == name for name, _, _ in ready):
            raise ValueError(f"there are two contenders named {contender.name!r}")
        try:
            subject = contender.make()
            check(runner, subject)
            ready.append((contender.name, subject, calibrate(runner, subject, plan.slice_ns, least_calls)))
        except Exception as error:
            found.missing[contender.name] = Missing(contender.package, f"{type(error).__name__}: {error}")
    found.series = {name: [] for name, _, _ in ready}
    gc.collect()
    gc.freeze()
    try:
        end = time.monotonic() + plan.seconds
        for number in range(plan.most):
            for name, subject, calls in order(ready, number):
                gc.collect()
                found.series[name].append(runner.slice(subject, calls) / calls)
            if number + 1 >= plan.least and settled(found):
                break
            if number + 1 >= 3 and time.monotonic() > end:
                break
    finally:
        gc.unfreeze()
    return found


def order(ready: Sequence[Any], number: int) -> list[Any]:
    """Each round begins with another contender, and every other one runs backwards: no one has a steady neighbour."""
    first = number % len(ready) if ready else 0
    turned = [*ready[first:], *ready[:first]]
    return turned[::-1] if number % 2 else turned


def check(runner: Runner, subject: Subject) -> None:
    """Make sure that a subject gives the answer, or refuses; a breaker is opened by its first calls."""
    if subject.refusal is None:
        results = runner.results(subject, 6)
        if results != [ANSWER] * 6:
            raise WrongAnswerError(f"gave {results!r}")
        return
    results = runner.results(subject, 12)
    if not all(isinstance(result, subject.refusal) for result in results[-3:]):
        raise WrongAnswerError(f"did not refuse, but gave {results[-1]!r}")


def calibrate(runner: Runner, subject: Subject, slice_ns: int, least_calls: int) -> int:
    """Find how many calls fill a slice."""
    calls = least_calls
    while True:
        taken = max(1, runner.slice(subject, calls))
        if taken >= slice_ns / 4:
            return max(least_calls, round(calls * slice_ns / taken))
        calls *= 2
