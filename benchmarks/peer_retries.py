"""How the peers retry: three attempts, no wait."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import ASYNCIO, SYNC, TRIO, Peer, load


def _tenacity(function: Any) -> Any:
    tenacity = load("tenacity")
    return tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), reraise=True)(function)


def _stamina(function: Any) -> Any:
    stamina = load("stamina")
    stamina.instrumentation.set_on_retry_hooks([])  # without it, each retry is a line of log
    return stamina.retry(on=ConnectionError, attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)(function)


def _pyresilience(function: Any) -> Any:
    pyresilience = load("pyresilience")
    return pyresilience.resilient(retry=pyresilience.RetryConfig(max_attempts=3, delay=0, jitter=False))(function)


def _grit(function: Any) -> Any:
    return load("grit-toolkit").retry(tries=3, wait=_at_once)(function)


def _crashbytes(function: Any) -> Any:
    return load("crashbytes-resilience").retry(max_attempts=3, delay=0)(function)


def _resilient_circuit(function: Any) -> Any:
    return load("resilient-circuit").RetryWithBackoffPolicy(max_retries=2)(function)


def _at_once(attempt: int) -> float:
    del attempt
    return 0.0


RETRIES = (
    Peer("tenacity", "retry", _tenacity, (SYNC, ASYNCIO, TRIO)),
    Peer("stamina", "retry", _stamina, (SYNC, ASYNCIO, TRIO)),
    Peer("pyresilience", "retry", _pyresilience),
    Peer("grit-toolkit", "retry", _grit),
    Peer("crashbytes-resilience", "retry", _crashbytes),
    Peer("resilient-circuit", "retry", _resilient_circuit),
)
