"""The sections of the benchmarks, and how long each may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks import calls, clients, imports, memory, metrics, rpcs
from benchmarks.bars import BARS, settled
from benchmarks.peers import ASYNCIO, SYNC, TRIO
from benchmarks.rounds import Contender, Found, Plan, measure

MILLION = 1_000_000
NANOSECONDS = "ns per call"


@dataclass(frozen=True)
class Section:
    """A part of the benchmarks: what is measured, in what unit; `seconds` is its part of a whole run."""

    name: str
    title: str
    seconds: float
    run: Callable[[float, bool], Found]
    unit: str = NANOSECONDS


def _settled(section: str) -> Callable[[Found], bool]:
    bars = [bar for bar in BARS if bar.section == section]
    return lambda found: settled(bars, {f"{section}/{name}": values for name, values in found.series.items()})


def plan(seconds: float, quick: bool) -> Plan:
    return Plan(slice_ns=1_000_000, least=9, seconds=seconds) if quick else Plan(3_000_000, 25, seconds)


def _calls(name: str, contenders: Callable[[str], Iterable[Contender]], runtime: str) -> Callable[[float, bool], Found]:
    def run(seconds: float, quick: bool) -> Found:
        runner = calls.RUNNERS[runtime]()
        with runner:
            return measure(contenders(runtime), runner, plan(seconds, quick), _settled(name))

    return run


def _threads(seconds: float, quick: bool) -> Found:
    crowd = Plan(20_000_000, 5, seconds) if quick else Plan(80_000_000, 11, seconds)
    return measure(calls.crowds(SYNC), calls.OnThreads(), crowd, _settled("threads"), least_calls=64)


def _loopback(
    name: str, run: Callable[[str, Plan, Callable[[Found], bool]], Found], runtime: str
) -> Callable[[float, bool], Found]:
    return lambda seconds, quick: run(runtime, plan(seconds, quick), _settled(name))


def _memory(seconds: float, quick: bool) -> Found:
    del seconds
    return memory.measure(MILLION // 20 if quick else MILLION)


def _metrics(seconds: float, quick: bool) -> Found:
    return metrics.run(plan(seconds, quick), _settled("metrics"))


def _imports(seconds: float, quick: bool) -> Found:
    return imports.measure(plan(seconds, quick), peers=not quick)


SECTIONS = (
    Section("sync", "Success, plain calls", 19, _calls("sync", calls.success, SYNC)),
    Section("asyncio", "Success, asyncio", 19, _calls("asyncio", calls.success, ASYNCIO)),
    Section("trio", "Success, trio", 10, _calls("trio", calls.success, TRIO)),
    Section("failure-sync", "One failure, then success, plain calls", 10, _calls("failure-sync", calls.failure, SYNC)),
    Section(
        "failure-asyncio", "One failure, then success, asyncio", 8, _calls("failure-asyncio", calls.failure, ASYNCIO)
    ),
    Section("open-sync", "Open breaker, plain calls", 8, _calls("open-sync", calls.refused, SYNC)),
    Section("open-asyncio", "Open breaker, asyncio", 8, _calls("open-asyncio", calls.refused, ASYNCIO)),
    Section("hedge-asyncio", "Hedged, the first wins, asyncio", 4, _calls("hedge-asyncio", calls.hedges, ASYNCIO)),
    Section("http-sync", "A request without a socket, plain", 5, _loopback("http-sync", clients.without_socket, SYNC)),
    Section(
        "http-asyncio",
        "A request without a socket, asyncio",
        12,
        _loopback("http-asyncio", clients.without_socket, ASYNCIO),
    ),
    Section(
        "http-loopback-sync",
        "A request over loopback, plain",
        5,
        _loopback("http-loopback-sync", clients.over_loopback, SYNC),
    ),
    Section(
        "http-loopback-asyncio",
        "A request over loopback, asyncio",
        5,
        _loopback("http-loopback-asyncio", clients.over_loopback, ASYNCIO),
    ),
    Section("grpc-sync", "A unary RPC, plain", 5, _loopback("grpc-sync", rpcs.calls, SYNC)),
    Section("grpc-asyncio", "A unary RPC, asyncio", 5, _loopback("grpc-asyncio", rpcs.calls, ASYNCIO)),
    Section(
        "grpc-stream-sync",
        "A message of a response stream, plain",
        4,
        _loopback("grpc-stream-sync", rpcs.streams, SYNC),
    ),
    Section(
        "grpc-stream-asyncio",
        "A message of a response stream, asyncio",
        4,
        _loopback("grpc-stream-asyncio", rpcs.streams, ASYNCIO),
    ),
    Section("threads", "One breaker for all threads, by the clock", 12, _threads),
    Section("window", "Short and long windows", 10, _calls("window", calls.windows, SYNC)),
    Section("metrics", "Metrics for Prometheus", 9, _metrics),
    Section("memory", "Memory", 45, _memory, "bytes"),
    Section("import", "Import, on top of anyio and tenacity", 12, _imports, "ms"),
)
QUICK = 1 / 10
"""A quick run takes this part of the time."""


def chosen(names: Iterable[str]) -> Iterator[Section]:
    """Yield the sections of these names; without names, all."""
    wanted = set(names)
    known = {section.name for section in SECTIONS}
    if unknown := sorted(wanted - known):
        raise ValueError(f"there is no section {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    for section in SECTIONS:
        if not wanted or section.name in wanted:
            yield section
