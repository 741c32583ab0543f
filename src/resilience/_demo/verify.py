"""`--verify`: several runs with different seeds, and whether `standard` is better than the other arms in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from resilience._demo.run import Result
from resilience._demo.script import Arm
from resilience._demo.summary import NEVER, Summary, shortfalls, summaries

SEEDS = 5
REPEATS = 2
"""So many runs of a seed are not counted if the machine was busy, whatever has come out; the next one counts."""
ENOUGH = 4
"""In so many runs `standard` has to serve at least as many calls as each other arm; all else holds in every run."""


async def verify(run: Callable[[int], Awaitable[Result]], seeds: Sequence[int], say: Callable[[str], object]) -> bool:
    """Run the demo once for each seed; returns whether `standard` was better.

    Args:
        run: runs it with a seed.
        seeds: the seeds.
        say: prints a line.
    """
    ahead, wrong = 0, 0
    for seed in seeds:
        result = await _on_time(run, seed, say)
        found = summaries(result)
        behind = shortfalls(found)
        served = [line for line in behind if line.startswith("served")]
        ahead += not served
        wrong += len(behind) - len(served)
        say(f"seed {seed}: {'; '.join(_words(one) for one in found.values())}")
        say(f"  greatest delay of a call behind its time: {result.records.lag:.2f} s")
        for line in behind:
            say(f"  standard {line}")
    needed = min(ENOUGH, len(seeds))
    say(f"standard served at least as many calls as each other arm in {ahead} of {len(seeds)} runs; it needs {needed}.")
    say(f"Other shortfalls (load, recovery, doubled orders): {wrong or 'none'}.")
    return ahead >= needed and not wrong


async def _on_time(run: Callable[[int], Awaitable[Result]], seed: int, say: Callable[[str], object]) -> Result:
    """Run the demo; again, if the machine was so busy that calls were made late by more than their own timeout."""
    for _ in range(REPEATS):
        result = await run(seed)
        if result.records.lag <= result.plan.timeouts.attempt:
            return result
        say(f"seed {seed}: not counted, the machine was busy: calls were made up to {result.records.lag:.1f} s late")
    return await run(seed)


def _words(one: Summary) -> str:
    recovered = "not recovered" if one.recovered == NEVER else f"recovered after {one.recovered or 0:.1f} s"
    ours = f"{one.arm} served {one.served} of {one.calls}"
    return f"{ours}, load {one.load}, {recovered}, {one.doubled} orders twice" if one.arm in Arm else ours
