"""The values of labels: bounded in number, and free of credentials."""

from __future__ import annotations

import enum
import uuid

import pytest

from resilience import Bulkhead, Partition, Pipeline, RateLimit
from resilience._util.label_values import OVERFLOW
from resilience.prometheus._families import BREAKER_STATE, BULKHEAD_LIMIT, CALLS
from resilience.prometheus._labels import LONGEST, MOST_KEYS, Labels, key_text


class Region(enum.Enum):
    NORTH = "secret"


class Sealed:
    def __repr__(self) -> str:
        return "secret"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("tenant-1", "tenant-1"),
        ("https://ada:hunter2@api.example.com/v1?token=abc#x", "https://api.example.com/v1"),
        ("ada:hunter2@api.example.com", "api.example.com"),
        (7, "7"),
        (True, "True"),
        (1.5, "1.5"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Region.NORTH, "Region.NORTH"),
        (("eu", 3, Region.NORTH), "eu,3,Region.NORTH"),
        (("eu", "u:p@host"), "eu,host"),
        (b"secret", "bytes"),
        (Sealed(), "Sealed"),
        (("eu", Sealed()), "eu,Sealed"),
        (frozenset({"secret"}), "frozenset"),
        ("x" * 200, "x" * LONGEST),
        ("\udc80tenant", "?tenant"),
    ],
    ids=range(16),
)
def test_the_text_of_a_key(key: object, text: str) -> None:
    assert key_text(key) == text


def test_without_key_labels_there_is_no_key() -> None:
    assert Labels(key_labels=False).with_key(BULKHEAD_LIMIT, ("p", "b"), "k") == ("p", "b")
    assert Labels(key_labels=True).with_key(CALLS, ("p", "ok"), "k") == ("p", "ok")


def test_each_metric_has_its_own_keys() -> None:
    labels = Labels(key_labels=True)
    for number in range(MOST_KEYS + 5):
        labels.with_key(BULKHEAD_LIMIT, ("p", "b"), number)

    assert labels.with_key(BULKHEAD_LIMIT, ("p", "b"), "another") == ("p", "b", OVERFLOW)
    assert labels.with_key(BREAKER_STATE, ("p", "b", "open"), "another") == ("p", "b", "open", "another")


def test_without_a_key_it_is_empty_but_for_the_overflow_policy_of_a_partition() -> None:
    labels = Labels(key_labels=True)
    pipeline = Pipeline(Partition(lambda: Bulkhead(3), name="split"), Bulkhead(3), name="of_labels")
    labels.learn(pipeline.engine.info)

    assert labels.with_key(BULKHEAD_LIMIT, ("of_labels", "split"), None) == ("of_labels", "split", OVERFLOW)
    assert labels.with_key(BULKHEAD_LIMIT, ("of_labels", "bulkhead"), None) == ("of_labels", "bulkhead", "")


def test_rate_limits_are_known_also_in_a_partition() -> None:
    labels = Labels(key_labels=False)
    pipeline = Pipeline(
        Partition(lambda: RateLimit(3), name="split"),
        RateLimit.all_of(RateLimit(3), RateLimit(4), name="both"),
        Bulkhead(3),
        name="of_limits",
    )
    labels.learn(pipeline.engine.info)

    assert [labels.is_rate_limit("of_limits", name) for name in ("split", "both", "bulkhead", "none")] == [
        *(True, True, False, False)
    ]
