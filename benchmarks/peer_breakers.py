"""How the peers break circuits: after so many failures in a row, for an hour."""

from __future__ import annotations

import logging
from datetime import timedelta
from fractions import Fraction
from typing import Any

from benchmarks.peers import ASYNCIO, SYNC, TRIO, BreakerPeer, Peer, load

HOUR = 3600


def _pybreaker(function: Any, failures: int) -> Any:
    return load("pybreaker").CircuitBreaker(fail_max=failures, reset_timeout=HOUR)(function)


def _circuitbreaker(function: Any, failures: int) -> Any:
    return load("circuitbreaker").CircuitBreaker(failure_threshold=failures, recovery_timeout=HOUR)(function)


def _aiobreaker(function: Any, failures: int) -> Any:
    return load("aiobreaker").CircuitBreaker(fail_max=failures, timeout_duration=timedelta(seconds=HOUR))(function)


def _interlock(function: Any, failures: int) -> Any:
    return interlock_breaker(failures, seconds=10)(function)


def interlock_breaker(failures: int, seconds: int) -> Any:
    interlock = load("interlock-cb")
    config = interlock.Config(
        window_type=interlock.WindowType.TIME_BASED,
        window_size=seconds,
        minimum_number_of_calls=failures,
        failure_rate_threshold=1.0,
        wait_duration_in_open=HOUR,
    )
    return interlock.CircuitBreaker(name="benchmark", config=config)


def _pyresilience(function: Any, failures: int) -> Any:
    pyresilience = load("pyresilience")
    config = pyresilience.CircuitBreakerConfig(failure_threshold=failures, recovery_timeout=HOUR)
    return pyresilience.resilient(circuit_breaker=config)(function)


def _pyresilience_window(function: Any, calls: int) -> Any:
    pyresilience = load("pyresilience")
    config = pyresilience.CircuitBreakerConfig(sliding_window_size=calls, minimum_calls=calls)
    return pyresilience.resilient(circuit_breaker=config)(function)


def _grit(function: Any, failures: int) -> Any:
    return load("grit-toolkit").breaker(fails=failures, reset_after=HOUR)(function)


def _crashbytes(function: Any, failures: int) -> Any:
    return load("crashbytes-resilience").CircuitBreaker(failure_threshold=failures, recovery_timeout=HOUR)(function)


def _resilient_circuit(function: Any, failures: int) -> Any:
    return resilient_circuit_breaker(failures)(function)


def resilient_circuit_breaker(failures: int) -> Any:
    logging.getLogger("resilient_circuit").setLevel(logging.ERROR)  # it warns that its state is in memory only
    return load("resilient-circuit").CircuitProtectorPolicy(
        storage=load("resilient-circuit", ".storage").InMemoryStorage(),
        cooldown=timedelta(seconds=HOUR),
        failure_limit=Fraction(1) if failures == 1 else Fraction(failures - 1, failures),  # so many of the last calls
    )


BREAKERS = (
    BreakerPeer("pybreaker", _pybreaker, lambda: load("pybreaker").CircuitBreakerError, (SYNC,)),
    BreakerPeer(
        "circuitbreaker", _circuitbreaker, lambda: load("circuitbreaker").CircuitBreakerError, (SYNC, ASYNCIO, TRIO)
    ),
    BreakerPeer("aiobreaker", _aiobreaker, lambda: load("aiobreaker").CircuitBreakerError),
    BreakerPeer("interlock-cb", _interlock, lambda: load("interlock-cb").CircuitOpenError),
    BreakerPeer("pyresilience", _pyresilience, lambda: load("pyresilience").CircuitOpenError),
    BreakerPeer("grit-toolkit", _grit, lambda: load("grit-toolkit").exceptions.BreakerOpen, (SYNC, ASYNCIO, TRIO)),
    BreakerPeer(
        "crashbytes-resilience",
        _crashbytes,
        lambda: load("crashbytes-resilience").CircuitOpenError,
        (SYNC, ASYNCIO, TRIO),
    ),
    BreakerPeer(
        "resilient-circuit",
        _resilient_circuit,
        lambda: load("resilient-circuit", ".exceptions").ProtectedCallError,
    ),
)

WINDOWS = (
    Peer("pyresilience", "breaker, 20 calls", lambda function: _pyresilience_window(function, 20), (SYNC,)),
    Peer("pyresilience", "breaker, 1,000 calls", lambda function: _pyresilience_window(function, 1000), (SYNC,)),
    Peer("interlock-cb", "breaker, 1 s", lambda function: interlock_breaker(5, seconds=1)(function), (SYNC,)),
    Peer("interlock-cb", "breaker, 1,000 s", lambda function: interlock_breaker(5, seconds=1000)(function), (SYNC,)),
)
