"""The values of labels: a bounded number of each, and without credentials."""

from __future__ import annotations

import uuid
from enum import Enum
from typing import Any, Final

from resilience import CombinedRateLimit, Partition, RateLimit
from resilience._call.call import PipelineInfo
from resilience._util.label_values import OVERFLOW, Bounded, label_text
from resilience._util.redaction import without_credentials
from resilience.prometheus._families import Family

MOST_PIPELINES: Final = 1000
MOST_POLICIES: Final = 1000
MOST_KEYS: Final = 100
LONGEST: Final = 100
"""The greatest length of the text of a key."""


class Labels:
    """The values of the labels of all metrics.

    Args:
        key_labels: whether metrics about the policies of a Partition have a label `key`.
    """

    def __init__(self, *, key_labels: bool) -> None:
        self.key_labels = key_labels
        self._pipelines = Bounded(MOST_PIPELINES)
        self._policies = Bounded(MOST_POLICIES)
        self._keys: dict[Family, Bounded] = {}
        self._partitions: set[tuple[str, str]] = set()
        self._rate_limits: set[tuple[str, str]] = set()

    def learn(self, info: PipelineInfo) -> None:
        """Take note of which policies of a pipeline are Partitions and rate limits."""
        pipeline = self.pipeline(info.name)
        for name, policy in info.policies.items():
            place = pipeline, self.policy(name)
            if isinstance(policy, Partition):
                self._partitions.add(place)
            if isinstance(sample_of(policy), RateLimit | CombinedRateLimit):
                self._rate_limits.add(place)

    def pipeline(self, name: str) -> str:
        """Return the value for a pipeline."""
        return self._pipelines.of(name)

    def policy(self, name: str) -> str:
        """Return the value for a policy."""
        return self._policies.of(name)

    def is_rate_limit(self, pipeline: str, policy: str) -> bool:
        """Return whether a policy is a rate limit, or a Partition of such; both are given as values of labels."""
        return (pipeline, policy) in self._rate_limits

    def with_key(self, family: Family, values: tuple[str, ...], key: object) -> tuple[str, ...]:
        """Return values of the labels of a metric, together with that of `key` if the metric has it.

        Args:
            family: the metric.
            values: the values of all other labels; the first two are those of `pipeline` and `policy`.
            key: the key in a Partition; None for its overflow policy, and without a Partition.
        """
        if not (self.key_labels and family.by_key):
            return values
        if key is None:
            return *values, OVERFLOW if values[:2] in self._partitions else ""
        bounded = self._keys.get(family) or self._keys.setdefault(family, Bounded(MOST_KEYS))
        return *values, bounded.of(key_text(key))


def sample_of(policy: Any) -> Any:
    """Return a policy; for a Partition, one of its policies, which are all made alike."""
    return getattr(policy, "overflow", policy) if issubclass(type(policy), Partition) else policy


def key_text(key: object) -> str:
    """Return a key as text: strings without credentials, numbers, members of enumerations and UUIDs; tuples of these.

    Of other objects it is the name of the type, since their `repr` may contain anything.
    """
    return label_text(_text(key)[:LONGEST])


def _text(key: Any) -> str:
    if isinstance(key, Enum):
        return f"{type(key).__name__}.{key.name}"
    if isinstance(key, str):
        return without_credentials(key)
    if isinstance(key, bool | int | float | uuid.UUID):
        return str(key)
    if issubclass(type(key), tuple):
        return ",".join(map(_text, key))
    return type(key).__qualname__
