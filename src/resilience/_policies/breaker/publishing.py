"""What a circuit breaker tells: its changes of state as events, and exceptions that no allowlist lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilience._call.call import Call
from resilience._outcome.ending import Ending, EndingKind
from resilience._outcome.unlisted import log_unlisted
from resilience._policies.base import Policy, Recomposable, key_in_partition, target_by_key
from resilience._policies.breaker.settings import BreakerSettings
from resilience._policies.breaker.state import Change
from resilience.events._types import BreakerChanged


def publish_change(
    breaker: Policy[Any], pipelines: Iterable[Recomposable], change: Change, call: Call | None = None
) -> None:
    """Publish a change of state in every pipeline that contains the breaker. No lock is held: listeners may use it.

    Args:
        breaker: the breaker.
        pipelines: the pipelines that contain it.
        change: the change; if the state is the same as before, nothing is published.
        call: the call that made the breaker half-open, for its operation and target; None for other changes.
    """
    if change.previous is change.state:
        return
    facts = {**change._asdict(), "partition_key": key_in_partition(breaker)}
    facts["key"] = change.state  # the log distinguishes the states
    published = False
    for pipeline in pipelines:
        info, mode = pipeline.info, pipeline.effective_mode(breaker)
        if call is not None and info is call.pipeline:
            published = True
            info.publish(BreakerChanged, breaker, call, mode=mode, **facts)
            continue
        name, target = info.name_of(breaker) or breaker.name, target_by_key(breaker)
        info.bus.publish(
            BreakerChanged, pipeline=info.name, policy=name, operation="", target=target, mode=mode, **facts
        )
    if call is not None and not published:
        call.pipeline.publish(BreakerChanged, breaker, call, mode=breaker.mode, **facts)


def log_if_unlisted(
    pipelines: Iterable[Recomposable], settings: BreakerSettings, ending: Ending, error: Exception
) -> None:
    """Log once each type of exception that is neither a failure nor an answer by the breaker's allowlist."""
    if ending.by(settings.on)[0] is EndingKind.ERROR:
        log_unlisted(next((pipeline.info.name for pipeline in pipelines), ""), error)
