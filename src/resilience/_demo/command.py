"""The command line of the demo."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from resilience._demo.arms import Target, Timeouts
from resilience._demo.metrics import metrics
from resilience._demo.plots import picture
from resilience._demo.remote import ServiceError
from resilience._demo.report import report
from resilience._demo.run import Plan, Result, View, own_day, run
from resilience._demo.script import (
    ATTEMPT_TIMEOUT,
    DAY,
    ORDER_SHARE,
    QUICK_ATTEMPT_TIMEOUT,
    QUICK_DAY,
    Arm,
    ServiceName,
    Span,
    spans,
)
from resilience._demo.verify import SEEDS, verify
from resilience._demo.view import LiveView, PlainView
from resilience._demo.words import LEGEND, caution, sentences, table

REPORT = "resilience-demo.html"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(
        prog="python -m resilience demo",
        allow_abbrev=False,
        description="Two services on this machine go through a bad day, and are called in three ways at the same "
        "times: bare, with the retry decorator of tenacity, and with the standard pipeline of this library.",
    )
    made.add_argument("--quick", action="store_true", help="a short day: under 15 seconds instead of under 45")
    made.add_argument("--verify", action="store_true", help=f"{SEEDS} days with different seeds; 1 if one is not good")
    made.add_argument("--seed", type=int, default=1, help="of all random numbers (1); the first one for --verify")
    made.add_argument("--report", metavar="PATH", type=Path, help=f"where the report goes (./{REPORT})")
    made.add_argument("--no-report", action="store_true", help="write no report")
    made.add_argument("--svg", metavar="PATH", type=Path, help="write the plots as a picture, too")
    made.add_argument("--plain", action="store_true", help="lines in place of the live table, as without a terminal")
    made.add_argument("--metrics-port", metavar="PORT", type=int, default=0, help="of /metrics (one that is free)")
    made.add_argument("--seconds", type=float, help="how long the load lasts; the phases shrink or grow with it")
    own = made.add_argument_group("a service of yours, in place of the two; give --rate and --seconds with it")
    own.add_argument("--url", help="is asked with GET by each arm")
    own.add_argument("--grpc-target", metavar="HOST:PORT", help="is called with an empty request, without encryption")
    own.add_argument("--grpc-method", metavar="METHOD", default=HEALTH_CHECK, help=f"the method ({HEALTH_CHECK})")
    own.add_argument("--rate", type=float, help="the calls per second of each arm")
    own.add_argument("--attempt-timeout", metavar="SECONDS", type=float, help=f"of each attempt ({ATTEMPT_TIMEOUT:g})")
    own.add_argument("--arm", choices=[str(arm) for arm in Arm], action="append", help="only this arm; more than once")
    return made


def plan_of(options: argparse.Namespace, fail: argparse.ArgumentParser) -> Plan:
    """Return what the options ask for; ends the program if they contradict each other."""
    if options.seconds is not None and options.seconds <= 0:
        fail.error("--seconds must be greater than 0")
    if options.attempt_timeout is not None and options.attempt_timeout <= 0:
        fail.error("--attempt-timeout must be greater than 0")
    if options.url is None and options.grpc_target is None:
        if options.rate is not None or options.arm:
            fail.error("--rate and --arm are for a service of yours: give --url or --grpc-target, too")
        if options.attempt_timeout is not None:
            fail.error("--attempt-timeout is for a service of yours: that of the demo is part of the script")
        timeouts = Timeouts(QUICK_ATTEMPT_TIMEOUT if options.quick else ATTEMPT_TIMEOUT)
        return Plan(day=_day(options), seed=options.seed, timeouts=timeouts)
    if options.verify or options.quick:
        fail.error("--verify and --quick are for the services of the demo")
    if not options.rate or options.seconds is None or options.rate < 0:
        fail.error(
            "with --url or --grpc-target, give --rate (calls per second of each arm) and --seconds, both above 0"
        )
    own: list[Target] = []
    if options.url is not None:
        own.append(Target(ServiceName.HTTP, options.url, own=True))
    if options.grpc_target is not None:
        own.append(Target(ServiceName.GRPC, options.grpc_target, options.grpc_method, own=True))
    arms = [arm for arm in Arm if not options.arm or arm in options.arm]
    timeouts = Timeouts(options.attempt_timeout or ATTEMPT_TIMEOUT)
    day = own_day(options.seconds)
    return Plan(day=day, seed=options.seed, rate=options.rate, arms=arms, timeouts=timeouts, own=own)


def _day(options: argparse.Namespace) -> list[Span]:
    phases = QUICK_DAY if options.quick else DAY
    length = spans(phases)[-1].end
    return spans(phases, scale=1.0 if options.seconds is None else options.seconds / length)


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit code.

    Returns:
        0; 1 if `--verify` has found a run that is not good; 2 if a service did not start; 130 after Ctrl-C, and 143
        after SIGTERM.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs each connection that breaks
    made = parser()
    options = made.parse_args(arguments)
    plan = plan_of(options, made)
    try:
        return asyncio.run(_main(options, plan))
    except (ServiceError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:  # SIGTERM
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


async def _main(options: argparse.Namespace, plan: Plan) -> int:
    this = asyncio.current_task()
    assert this is not None
    with contextlib.suppress(NotImplementedError):  # Windows ends the process at once; the services end with it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    console = Console(soft_wrap=True, highlight=False)
    live = console.is_terminal and not options.plain
    with contextlib.ExitStack() as stack:
        view: View = stack.enter_context(LiveView(console)) if live else PlainView(_quiet if options.verify else _say)
        if not options.verify:
            _introduce(plan)
        view = stack.enter_context(metrics(view, options.metrics_port, _say))
        if options.verify:
            return 0 if await _verify(plan, view) else 1
        result = await run(plan, view)
    _conclude(result, options)
    return 0


async def _verify(plan: Plan, view: View) -> bool:
    def one(seed: int) -> asyncio.Task[Result]:
        return asyncio.create_task(run(replace(plan, seed=seed), view))

    return await verify(one, range(plan.seed, plan.seed + SEEDS), _say)


def _introduce(plan: Plan) -> None:
    where = (
        " and ".join(target.address for target in plan.own) or "an HTTP service and a gRPC service, each with a bad day"
    )
    _say(f"Each arm makes {plan.rate:g} calls/s of {where}, for {plan.seconds:g} s.")
    if not plan.own:
        _say(f"{ORDER_SHARE:.0%} of the calls are orders, which are not safe to repeat.")
    for arm in plan.arms:
        _say(f"  {arm}: {plan.timeouts.words(arm)}")


def _conclude(result: Result, options: argparse.Namespace) -> None:
    _say("")
    for line in sentences(result):
        _say(line)
    if caution(result):
        _say(caution(result))
    _say("")
    for line in table(result):
        _say(line)
    _say(f"\n{LEGEND}")
    if not options.no_report:
        path: Path = options.report or Path(REPORT)
        path.write_text(report(result), "utf-8")
        _say(f"\nThe report, with plots: {path.resolve()}")
    if options.svg is not None:
        options.svg.write_text(picture(result), "utf-8")


def _quiet(line: str) -> None:
    """Print nothing: of several days only their numbers are shown."""


def _say(line: str) -> None:
    print(line, flush=True)
