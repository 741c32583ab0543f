"""Any behaviour of a server that takes batches: a job loses no item, doubles none, and tells the truth of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import Pipeline, Retry, RetryBudget, backoff
from resilience.jobs import BatchResult, Failed, ItemStatus, aretry_failed, retry_failed
from resilience.testing import virtual_time
from tests.support.functions import AppError

ITEM = st.sampled_from(["ok", "ok", "busy", "hint", "invalid", "doubtful"])
"""What becomes of one item of a batch that is answered."""
CALL = st.sampled_from(["answer", "answer", "answer", "refuse", "break before", "break after", "bug"])
"""What becomes of a batch: a connection may break before it is processed, or after that."""


class Server:
    """A server with a ledger: how often it has processed each item, and how often it was sent."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.processed: Counter[int] = Counter()
        self.seen: Counter[int] = Counter()
        self.bugs = 0

    def __call__(self, batch: list[int]) -> list[Any]:
        what = self.data.draw(CALL)
        assert len(set(batch)) == len(batch)
        self.seen.update(batch)
        if what == "refuse":
            raise ConnectionRefusedError
        if what == "bug":
            self.bugs += 1
            raise AppError
        if what == "break before":
            raise ConnectionResetError
        outcomes = [self.take(item) for item in batch]
        if what == "break after":
            raise ConnectionResetError
        return outcomes

    def take(self, item: int) -> Any:
        outcome = self.data.draw(ITEM)
        if outcome == "ok":
            self.processed[item] += 1
            return -item
        if outcome == "doubtful":
            self.processed[item] += self.data.draw(st.booleans())
            return Failed("doubtful", unprocessed=False)
        return Failed(outcome, retryable=outcome != "invalid", retry_after=3.0 if outcome == "hint" else None)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(
    data=st.data(),
    count=st.integers(0, 8),
    size=st.one_of(st.none(), st.integers(1, 4)),
    attempts=st.integers(1, 4),
    idempotent=st.booleans(),
    inner=st.booleans(),
    tokens=st.integers(0, 10),
    tasks=st.booleans(),
)
def test_nothing_is_lost_and_nothing_is_doubled(
    data: st.DataObject,
    count: int,
    size: int | None,
    attempts: int,
    idempotent: bool,
    inner: bool,
    tokens: int,
    tasks: bool,
) -> None:
    server = Server(data)
    pipeline = Pipeline(*([Retry(2, wait=backoff.none())] if inner else []), budget=RetryBudget(initial=tokens))
    how: dict[str, Any] = {
        "pipeline": pipeline,
        "batch_size": size,
        "attempts": attempts,
        "idempotent": idempotent,
    }

    async def send(batch: list[int]) -> list[Any]:
        return server(batch)

    with virtual_time():
        items = range(count)
        if tasks:
            result: BatchResult[int, Any] = asyncio.run(aretry_failed(items, send, **how))
        else:
            result = retry_failed(items, server, **how)

    assert [one.item for one in result.items] == list(items)
    assert sorted(one.position for one in [*result.succeeded, *result.failed]) == list(items)
    assert server.bugs <= 1
    assert pipeline.snapshot()["in_flight"] == 0
    for one in result.items:
        processed = server.processed[one.item]
        assert one.attempts == server.seen[one.item] <= attempts * (2 if inner else 1)
        assert idempotent or processed <= 1, "it was processed twice"
        match one.status:
            case ItemStatus.SUCCEEDED:
                assert processed >= 1
                assert one.result == -one.item
                assert one.reason is None
            case ItemStatus.FAILED:
                assert processed == 0
                assert one.attempts > 0
            case ItemStatus.UNSENT:
                assert one.attempts == 0
            case ItemStatus.UNKNOWN:
                assert one.attempts > 0
        if one.status is not ItemStatus.SUCCEEDED:
            assert one.gave_up is not None or result.error is not None
