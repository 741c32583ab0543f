"""A bad minute in the life of two services, and how it looks from a guarded and from an unguarded client.

An HTTP service (uvicorn) and a gRPC service (grpcio), each in a process of its own, are healthy, slow, overloaded,
dead, and healthy again. Two clients make the same calls to each: one goes through a pipeline, the other has a retry
loop. At the end, what the clients sent is compared with what the services saw; the exit code is 1 if they disagree.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")  # it logs each connection that breaks

from docs.examples.bad_minute.clients import NAIVE_WAIT, POLICIES, GrpcClients, HttpClients, pipeline
from docs.examples.bad_minute.ledger import Ledger, Seen, disagreements
from docs.examples.bad_minute.load import Stage, load_grpc, load_http
from docs.examples.bad_minute.process import Remote, ServiceError
from docs.examples.bad_minute.script import ATTEMPT_TIMEOUT, ATTEMPTS, RATE, SAFE_SHARE, SCRIPT, Phase
from docs.examples.bad_minute.table import LEGEND, table
from resilience import Pipeline
from resilience.events import BreakerChanged

SHOWN = 10


def main(arguments: Sequence[str]) -> int:
    """Run the show; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 12 seconds instead of under 30")
    options = parser.parse_args(arguments)
    try:
        with contextlib.ExitStack() as stack:
            services = [
                stack.enter_context(contextlib.closing(Remote(name, f"docs.examples.bad_minute.{name}_service")))
                for name in ("http", "grpc")
            ]
            for service in services:
                service.started()
            ledgers = asyncio.run(show(services, quick=options.quick))
            reports = [Seen(**service.report()) for service in services]
    except ServiceError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:  # SIGTERM
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return tell(ledgers, reports)


async def show(services: Sequence[Remote], *, quick: bool) -> list[Ledger]:
    """Lead the services through their bad minute under load; returns what the clients noted."""
    this = asyncio.current_task()
    assert this is not None
    with contextlib.suppress(NotImplementedError):  # Windows ends us at once; the services end with us
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    stage = Stage()
    ledgers = [Ledger(service.name) for service in services]
    guards = [pipeline(service.name) for service in services]
    for ledger, guard in zip(ledgers, guards, strict=True):
        ledger.listen(guard)
        announce_breaker(guard, stage)
    http, grpc = HttpClients(services[0].address, guards[0]), GrpcClients(services[1].address, guards[1])
    print(
        f"Two clients make {RATE:.0f} calls/s each to an HTTP and to a gRPC service; {SAFE_SHARE:.0%} may be repeated."
    )
    print(f"  guarded: {POLICIES}")
    print(f"  naive:   up to {ATTEMPTS} attempts of {ATTEMPT_TIMEOUT} s, {NAIVE_WAIT} s apart, whatever has failed\n")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load_http(http, ledgers[0], stage))
            tasks.create_task(asyncio.to_thread(load_grpc, grpc, ledgers[1], stage))
            try:
                for phase in SCRIPT:
                    await enter(phase, services, ledgers, stage)
                    await asyncio.sleep(phase.length(quick=quick))
            finally:
                stage.over = True
    except BaseException:
        for service in services:
            service.close()  # so that the calls under way end at once
        raise
    finally:
        await http.close()
        grpc.close()
    return ledgers


async def enter(phase: Phase, services: Sequence[Remote], ledgers: Sequence[Ledger], stage: Stage) -> None:
    """Have both services go into a phase."""
    now = time.monotonic()
    dies, revives = not phase.alive and stage.phase.alive, phase.alive and not stage.phase.alive
    for ledger in ledgers:
        if dies:
            ledger.death.asked = now
        if revives:
            ledger.death.revived = now
    await asyncio.gather(*(asyncio.to_thread(service.enter, phase) for service in services))
    if dies:
        for ledger in ledgers:
            ledger.death.confirmed = time.monotonic()
    stage.phase = phase
    print(f"{stage.seconds():6.2f} s  {phase}", flush=True)


def announce_breaker(guard: Pipeline[Any], stage: Stage) -> None:
    """Print a line whenever the breaker of a pipeline changes its state."""

    def changed(event: BreakerChanged) -> None:
        counts = guard["breaker"].snapshot()
        why = f", after {counts['failures']} failures in {counts['calls']} calls" if event.previous == "closed" else ""
        print(f"{stage.seconds():6.2f} s    {guard.name} breaker: {event.previous} -> {event.state}{why}", flush=True)

    guard.subscribe(changed, events=(BreakerChanged,))


def tell(ledgers: Sequence[Ledger], reports: Sequence[Seen]) -> int:
    """Print what happened, and whether everybody agrees on that; returns the exit code."""
    wrong: list[str] = []
    for ledger, seen in zip(ledgers, reports, strict=True):
        print(f"\n{ledger.service.upper()}")
        print("\n".join(table(ledger, seen)))
        wrong += disagreements(ledger, seen)
    print(f"\n{LEGEND}\n")
    if wrong:
        print(f"The clients and the services DISAGREE in {len(wrong)} points:")
        print("\n".join(wrong[:SHOWN]))
        return 1
    sent = sum(len(call.attempts) for ledger in ledgers for call in ledger.calls)
    arrived = sum(sum(seen.arrived.values()) for seen in reports)
    print(
        f"Checked: of the {sent} attempts that the clients sent, the services saw {arrived}, none of them twice. The\n"
        "others never arrived, and for each it is known why. The library's events count the same calls and\n"
        "attempts. No order of a guarded client was carried out twice."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
