"""The recommended pipeline, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Never, TypeAlias

from resilience._call.budget import RetryBudget
from resilience._call.call import CallOptions
from resilience._call.entry import Entry
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._pipeline.pipeline import Pipeline
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.bulkhead import Bulkhead
from resilience._policies.cooldown.cooldown import Cooldown
from resilience._policies.partition import Partition
from resilience._policies.retry.retry import Retry
from resilience._policies.timeout import Timeout
from resilience._util import validation
from resilience._util.locks import new_lock
from resilience.events._types import Mode, ModeName

Idempotent: TypeAlias = "bool | str | Iterable[str] | Callable[[str], bool | None] | None"
"""Whether calls may safely be repeated; for gRPC also names, patterns or a predicate of methods."""


class StandardPipeline(Pipeline[Never]):
    """The pipeline that `standard` returns.

    Attributes:
        idempotent: what was given as `idempotent`.
    """

    def __init__(
        self, *policies: Any, name: str, idempotent: Idempotent, failures: Failures | None, mode: ModeName
    ) -> None:
        super().__init__(*policies, name=name, failures=failures, mode=mode)
        self.idempotent = idempotent
        known = idempotent if isinstance(idempotent, bool) else None
        self._standard_options = CallOptions(self.engine.info, idempotent=known)

    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the engine and the call options. Internal."""
        return self.engine, self._standard_options


def standard(
    name: str,
    *,
    timeout: float = 30.0,
    attempt_timeout: float | None = None,
    attempts: int = 3,
    limit: int = 100,
    queue: int = 100,
    max_wait: float = 1.0,
    idempotent: Idempotent = None,
    failures: Failures | None = None,
    mode: ModeName = Mode.ENFORCE,
) -> StandardPipeline:
    """Return the recommended pipeline for calls to one dependency: functions, an httpx client, or a gRPC channel.

        payments = standard("payments", timeout=2.0)

    It is `Timeout(timeout), Retry(attempts), Cooldown(), Bulkhead(limit, queue=queue, max_wait=max_wait),
    CircuitBreaker(consecutive_failures=7), Timeout(attempt_timeout)`, with one retry budget.

    Args:
        name: the name of the dependency, not empty.
        timeout: the seconds for a whole call, retries and waits included, > 0. 30 s is what most callers still wait
            for; give what yours do.
        attempt_timeout: the seconds for one attempt, > 0 and less than `timeout`; None for `timeout / attempts`.
        attempts: the greatest number of attempts, >= 1. Three: the first, one for a bad connection, and one more; the
            budget bounds them long before where many fail.
        limit: the greatest number of concurrent calls, >= 1. By Little's law, with four standard deviations of room for
            chance, 100 are enough for about 670 calls a second of 100 ms.
        queue: the greatest number of calls that wait for a permit, >= 0; as many as `limit`, so that a burst of twice
            the limit gets through.
        max_wait: the longest wait for a permit, in seconds, >= 0.
        idempotent: whether calls may safely be repeated; for gRPC also the names or patterns of the methods that may.
            None: a plain function counts as idempotent, HTTP and gRPC have their rules.
        failures: which outcomes are failures of the dependency, such as HTTP_FAILURES for a function that calls a
            service over HTTP; None for those of an integration, or NETWORK_ERRORS.
        mode: "enforce"; "shadow" to see first what it would do; or "off".

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    The Bulkhead is outside of the breaker, so that a call that has waited in the queue asks the breaker just before it
    is made, and the time in the queue is no slowness of the dependency. Here retries add to the load while the breaker
    learns that the dependency is dead, so it opens after 7 failures in a row, not 10: in a simulation, more calls were
    lost with 10 than without retries and breaker if the capacity fell for 3 s (docs/bad-day.md). The other defaults are
    those of the policies.
    """
    validation.text("name", name)
    total = validation.number("timeout", timeout, above=True)
    validation.integer("attempts", attempts, low=1)
    if attempt_timeout is None:
        each = total / attempts
    else:
        each = validation.number("attempt_timeout", attempt_timeout, above=True)
        if attempts > 1 and each >= total:
            raise ValueError(f"attempt_timeout must be less than timeout, {total:g} s, not {attempt_timeout!r}")
    _check(idempotent)
    inner = [] if each >= total else [Timeout(each)]
    return StandardPipeline(
        Timeout(total),
        Retry(attempts),
        Cooldown(),
        Bulkhead(limit, queue=queue, max_wait=max_wait),
        CircuitBreaker(consecutive_failures=7),
        *inner,
        name=name,
        idempotent=idempotent,
        failures=failures,
        mode=mode,
    )


_per_target: dict[str, Pipeline[Never]] = {}
_per_target_lock = new_lock()


def standard_per_target(name: str, failures: Allowlist) -> Pipeline[Never]:
    """Return the standard pipeline for calls to many targets, each of which has its own state; one per name.

    Args:
        name: the name of the pipeline.
        failures: its allowlist.
    """
    with _per_target_lock:
        if name not in _per_target:
            _per_target[name] = _made_per_target(name, failures)
        return _per_target[name]


def _made_per_target(name: str, failures: Allowlist) -> Pipeline[Never]:
    return Pipeline(
        Timeout(30.0),
        Retry(),
        Partition(Cooldown),
        Partition(lambda: Bulkhead(100, queue=100)),
        Partition(lambda: CircuitBreaker(consecutive_failures=7)),
        Timeout(10.0),
        name=name,
        failures=failures,
        budget=Partition(RetryBudget),
    )


def _check(idempotent: Any) -> None:
    """Raise a TypeError for what cannot be `idempotent`."""
    if not (idempotent is None or isinstance(idempotent, bool | Iterable) or callable(idempotent)):
        raise TypeError(
            "idempotent must be True, False or None; or for gRPC names or patterns of methods, or a predicate of them; "
            f"not {idempotent!r}"
        )
