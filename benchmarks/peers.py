"""The peers: which there are, and how each guards a function. They are untyped, so all in here is Any."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.rounds import Refusal

SYNC, ASYNCIO, TRIO = "sync", "asyncio", "trio"
MODULES: Final = {
    "tenacity": "tenacity",
    "stamina": "stamina",
    "pybreaker": "pybreaker",
    "circuitbreaker": "circuitbreaker",
    "aiobreaker": "aiobreaker",
    "interlock-cb": "interlock",
    "nopanic": "nopanic",
    "pyresilience": "pyresilience",
    "grit-toolkit": "grit",
    "httpx-retries": "httpx_retries",
    "crashbytes-resilience": "crashbytes_resilience",
    "resilient-circuit": "resilient_circuit",
}
"""Distributions and the modules that they bring."""

Guard = Callable[[Any], Any]


@dataclass(frozen=True)
class Peer:
    """What a peer has to offer: `guard` takes a function, or coroutine function, and returns it guarded."""

    package: str
    what: str
    guard: Guard
    runtimes: tuple[str, ...] = (SYNC, ASYNCIO)

    @property
    def name(self) -> str:
        return f"{self.package} {self.what}"


@dataclass(frozen=True)
class BreakerPeer:
    """A circuit breaker: `guard` also takes how many failures in a row open it; it then stays open for an hour."""

    package: str
    guard: Callable[[Any, int], Any]
    refusal: Callable[[], Refusal]
    runtimes: tuple[str, ...] = (SYNC, ASYNCIO)

    @property
    def name(self) -> str:
        return f"{self.package} breaker"


def load(package: str, within: str = "") -> Any:
    """Import a peer, or a module within it."""
    return importlib.import_module(MODULES[package] + within)
