"""Drive a coroutine and cancel it at its k-th suspension, for every k.

On asyncio and uvloop twice: before the awaited thing is done ("early"), and in the very tick in which it is done
("late"). On trio once. Every visit runs a fresh scenario, and afterwards its `check` says what leaked. `must_hold`
prints how many suspensions were visited, and fails if there was none.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio.lowlevel
import trio
import uvloop

MOST = 300
Guard: TypeAlias = "Callable[[Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]"
"""Calls a coroutine function through policies: `pipeline.acall`, for example."""


@dataclass
class Scenario:
    """What to run: the call under test, helpers that run beside it, and a check that returns what leaked."""

    call: Callable[[], Coroutine[Any, Any, Any]]
    check: Callable[[], str | None]
    helpers: list[Callable[[], Coroutine[Any, Any, Any]]] = field(default_factory=list)


async def hung_up() -> None:
    """Fail as the first attempt of a call does in most scenarios."""
    raise ConnectionError("hung up")


def waiting_scenario(
    guard: Guard,
    check: Callable[[], str | None],
    *,
    holding: Guard,
    holders: int = 2,
    first_attempt: Callable[[], Coroutine[Any, Any, Any]] | None = hung_up,
) -> Scenario:
    """Return the scenario of a call that has to wait for permits, and whose first attempt fails.

    Args:
        guard: what the call goes through.
        check: returns what leaked.
        holding: what those go through who hold permits at first, for three suspensions each.
        holders: how many of them there are.
        first_attempt: what the first attempt does after one suspension. Every other attempt is suspended twice and
            returns "fine"; with None, the first one too.
    """
    attempts = 0

    async def fetch() -> Any:
        nonlocal attempts
        await anyio.lowlevel.checkpoint()
        attempts += 1
        if attempts == 1 and first_attempt is not None:
            return await first_attempt()
        await anyio.lowlevel.checkpoint()
        return "fine"

    async def hold() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    return Scenario(call=lambda: guard(fetch), check=check, helpers=[lambda: holding(hold)] * holders)


@dataclass
class Report:
    """How many suspensions were visited, and what went wrong at which."""

    runner: str
    visited: int = 0
    wrong: list[str] = field(default_factory=list)

    def must_hold(self) -> None:
        """Print the number of visits; fail if something went wrong, or if nothing was visited."""
        print(f"{self.runner}: visited {self.visited} suspensions")
        assert self.visited > 0, "no suspension was visited: the scenario never waits, so nothing was tested"
        assert self.wrong == []


@types.coroutine
def probed(coroutine: Coroutine[Any, Any, Any], k: int, hook: Callable[[Any], object]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and call `hook` with what it yields at its k-th suspension."""
    number = 0
    value: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            suspended = coroutine.send(value) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value
        number += 1
        if number == k:
            hook(suspended)
        try:
            value, thrown = (yield suspended), None
        except BaseException as error:
            value, thrown = None, error


async def _probe(coroutine: Coroutine[Any, Any, Any], k: int, hook: Callable[[Any], object]) -> Any:
    return await probed(coroutine, k, hook)


def _judge(report: Report, where: str, scenario: Scenario, ended: str) -> None:
    report.visited += 1
    leaked = scenario.check()
    if leaked:
        report.wrong.append(f"{where}: {leaked}")
    if ended != "cancelled":
        report.wrong.append(f"{where}: the cancellation was swallowed, it {ended}")


def on_asyncio(make: Callable[[], Scenario]) -> Report:
    """Cancel at every suspension, early and late."""
    return _on_a_loop(make, "asyncio", None)


def on_uvloop(make: Callable[[], Scenario]) -> Report:
    """Cancel at every suspension, early and late."""
    return _on_a_loop(make, "uvloop", uvloop.new_event_loop)


def _on_a_loop(
    make: Callable[[], Scenario], name: str, factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> Report:
    report = Report(name)
    for late in (False, True):
        for k in range(1, MOST):
            scenario = make()
            with asyncio.Runner(loop_factory=factory) as runner:
                reached, ended = runner.run(_one_asyncio(scenario, k, late))
            if not reached:
                break
            _judge(report, f"{name} {'late' if late else 'early'} {k}", scenario, ended)
    return report


async def _one_asyncio(scenario: Scenario, k: int, late: bool) -> tuple[bool, str]:
    reached = False

    def hook(suspended: Any) -> None:
        nonlocal reached
        reached = True
        if not late:
            task.cancel()
        elif asyncio.isfuture(suspended):
            suspended.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)

    helpers = [asyncio.create_task(helper()) for helper in scenario.helpers]
    await asyncio.sleep(0)
    task = asyncio.create_task(_probe(scenario.call(), k, hook))
    try:
        await task
        ended = "returned"
    except asyncio.CancelledError:
        ended = "cancelled"
    except Exception as error:
        ended = f"raised {error!r}"
    await asyncio.gather(*helpers, return_exceptions=True)
    return reached, ended


def on_trio(make: Callable[[], Scenario]) -> Report:
    """Cancel at every suspension."""
    report = Report("trio")
    for k in range(1, MOST):
        scenario = make()
        reached, ended = trio.run(_one_trio, scenario, k)
        if not reached:
            break
        _judge(report, f"trio {k}", scenario, ended)
    return report


async def _one_trio(scenario: Scenario, k: int) -> tuple[bool, str]:
    reached = False
    ended = "returned"
    async with trio.open_nursery() as nursery:
        for helper in scenario.helpers:
            nursery.start_soon(_run_helper, helper)
        await trio.lowlevel.checkpoint()
        with trio.CancelScope() as scope:

            def hook(_: Any) -> None:
                nonlocal reached
                reached = True
                scope.cancel()

            try:
                await _probe(scenario.call(), k, hook)
            except Exception as error:
                ended = f"raised {error!r}"
        if scope.cancelled_caught:
            ended = "cancelled"
    return reached, ended


async def _run_helper(helper: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    with contextlib.suppress(Exception):  # what a leak does to the helpers is not the question
        await helper()


RUNNERS = (on_asyncio, on_uvloop, on_trio)
