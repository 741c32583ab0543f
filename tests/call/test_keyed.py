"""A call finds the policy of its key; a key that cannot be used is logged, and its call uses the overflow policy."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest

from resilience import Bulkhead, Call, Partition, Pipeline, RetryBudget
from resilience._call.keyed import LONGEST_KEY
from resilience.testing import virtual_time

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


class Broken:
    """A key that cannot be hashed or compared."""

    def __init__(self, hashes: bool) -> None:
        self.hashes = hashes

    def __hash__(self) -> int:
        if not self.hashes:
            raise RuntimeError("no hash")
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


def peaks(partition: Partition[Bulkhead]) -> list[int]:
    """How many calls used the overflow policy at once, and then how many each of the others."""
    return [bulkhead.peak for bulkhead in partition.policies()]


def by_argument(**more: Any) -> Partition[Bulkhead]:
    return Partition(lambda: Bulkhead(5), by=lambda call: call.args[0], **more)


def pass_through(partition: Partition[Bulkhead], *keys: Any) -> None:
    pipeline = Pipeline(partition)
    for key in keys:
        assert pipeline.call(lambda one: one, key) is key


def test_each_target_has_its_own_policy() -> None:
    partition = Partition(lambda: Bulkhead(5))
    pipeline = Pipeline(partition)
    for target in ("a.example", "b.example", "a.example"):
        pipeline.bind(target=target).call(int)

    assert list(partition.snapshot()["policies"]) == ["a.example", "b.example"]
    assert peaks(partition) == [0, 1, 1]


def test_calls_without_a_target_share_the_policy_of_none() -> None:
    partition = Partition(lambda: Bulkhead(5))
    Pipeline(partition).call(int)

    assert list(partition.snapshot()["policies"]) == ["None"]


def test_a_callable_tells_the_key() -> None:
    seen: list[Call] = []

    def by(call: Call) -> Hashable:
        seen.append(call)
        return call.operation, call.args

    partition = Partition(lambda: Bulkhead(5), by=by)
    Pipeline(partition).call(int, "7")

    assert seen[0].args == ("7",)
    assert list(partition.snapshot()["policies"]) == ["('int', ('7',))"]


def test_a_key_is_what_is_equal_and_has_the_same_hash() -> None:
    partition = by_argument()
    pass_through(partition, "a", 1, ("a", 1), frozenset("a"), "a", 1.0)

    assert len(partition) == 4


@pytest.mark.parametrize("key", [["list"], {}, Broken(False)], ids=["list", "dict", "hash"])
def test_a_key_without_a_hash_uses_the_overflow_policy(key: Any, caplog: pytest.LogCaptureFixture) -> None:
    partition = by_argument()
    pass_through(partition, key, key)

    assert peaks(partition) == [1]
    (line,) = caplog.messages
    assert "a key of a Partition" in line
    assert "raised" in line


def test_a_key_that_cannot_be_compared_uses_the_overflow_policy(caplog: pytest.LogCaptureFixture) -> None:
    partition = by_argument()
    pass_through(partition, Broken(True), Broken(True), "fine")

    assert peaks(partition) == [1, 1, 1]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("key", ["x" * (LONGEST_KEY + 1), b"x" * (LONGEST_KEY + 1)], ids=["str", "bytes"])
def test_a_huge_key_is_not_kept(key: Any, caplog: pytest.LogCaptureFixture) -> None:
    partition = by_argument()
    pass_through(partition, key, key[:-1])

    assert peaks(partition) == [1, 1]
    assert "ValueError" in caplog.messages[0]


def test_an_error_of_by_is_logged_once_and_never_reaches_the_call(caplog: pytest.LogCaptureFixture) -> None:
    partition: Partition[Bulkhead] = Partition(lambda: Bulkhead(5), by=lambda call: call.kwargs["tenant"])
    pipeline = Pipeline(partition)
    for _ in range(3):
        assert pipeline.call(str) == ""

    assert (peaks(partition), len(partition)) == ([1], 0)
    (line,) = caplog.messages
    assert "by= of a Partition" in line
    assert "KeyError" in line


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_by_is_raised(interrupt: type[BaseException]) -> None:
    def by(call: Call) -> Hashable:
        raise interrupt

    with pytest.raises(interrupt):
        Pipeline(Partition(lambda: Bulkhead(5), by=by)).call(int)


def failing(after: int, error: Callable[[], BaseException]) -> Callable[[], Bulkhead]:
    made = 0

    def factory() -> Bulkhead:
        nonlocal made
        made += 1
        if made > after:
            raise error()
        return Bulkhead(5)

    return factory


def test_an_error_of_the_factory_is_logged_once_and_takes_no_place(caplog: pytest.LogCaptureFixture) -> None:
    partition = Partition(failing(1, lambda: OSError("no file")), max_keys=2)
    pipeline = Pipeline(partition)
    for number in range(5):
        pipeline.bind(target=str(number)).call(int)

    assert (peaks(partition), len(partition)) == ([1], 0)
    assert len(caplog.messages) == 1
    assert "factory of a Partition" in caplog.messages[0]
    partition._factory = lambda: Bulkhead(5)
    for number in range(5):
        pipeline.bind(target=str(number)).call(int)
    assert len(partition) == 2


def test_an_interrupt_of_the_factory_takes_no_place() -> None:
    partition = Partition(failing(1, KeyboardInterrupt), max_keys=1)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(partition).call(int)
    partition._factory = lambda: Bulkhead(5)
    Pipeline(partition).call(int)

    assert len(partition) == 1


def test_the_policy_of_a_key_is_found_by_hand() -> None:
    partition = by_argument(max_keys=1)
    one = partition.of("a")

    assert partition.of("a") is one
    assert partition.of("b") is partition.overflow
    assert partition.policies() == [partition.overflow, one]
    partition.of("a").update(limit=9)
    assert partition.snapshot()["policies"]["a"]["limit"] == 9


def test_a_snapshot_shows_any_key() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    partition = by_argument()
    pass_through(partition, "a", 1, None, Silent())
    shown = list(partition.snapshot()["policies"])

    assert shown[:3] == ["a", "1", "None"]
    assert "Silent object at" in shown[3]


def test_a_reset_reaches_all() -> None:
    partition = Partition(lambda: RetryBudget(capacity=2), max_keys=1)
    for key in ("a", "b"):
        assert partition.of(key).withdraw()
    partition.reset()

    assert partition.snapshot() == {
        "policies": {"a": {"tokens": 2.0, "capacity": 2.0}},
        "overflow": {"tokens": 2.0, "capacity": 2.0},
    }


def test_an_empty_partition_is_true() -> None:
    with virtual_time():
        partition = by_argument()

    assert len(partition) == 0
    assert partition
