"""A batch job that sends only the failed records again.

    python docs/examples/batch_job.py      needs the library alone; takes about a second

A stream takes at most ten records a batch and throttles some of them, as Kinesis does. One sees which records each
batch has; that throttled ones are sent again, after a wait and in one batch; that a record which is not valid is not
sent again; and what is known of each record where the connection breaks in the middle of a job.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from resilience import CircuitBreaker, FailureKind, Pipeline, Timeout, backoff
from resilience.jobs import BatchResult, Failed, retry_failed

BATCH = 10
stream_pipeline = Pipeline(CircuitBreaker(), Timeout(2.0), name="stream")


@dataclass
class Stream:
    """A stand-in for the stream: every third record is throttled at first, and one is never valid."""

    breaks_at: int | None = None
    """The batch at which the connection breaks after the records have been written."""
    written: Counter[str] = field(default_factory=Counter[str])
    batches: int = 0

    def put_records(self, records: list[str]) -> dict[str, Any]:
        """Answer as PutRecords does: one entry for each record, in their order."""
        self.batches += 1
        entries: list[dict[str, str]] = []
        for position, record in enumerate(records):
            if not record:
                entries.append({"ErrorCode": "InvalidArgument"})
            elif position % 3 == 2 and self.batches <= 3:
                entries.append({"ErrorCode": "ProvisionedThroughputExceeded"})
            else:
                self.written[record] += 1
                entries.append({"SequenceNumber": str(self.written.total())})
        print(f"    batch {self.batches}: {' '.join(record or '(empty)' for record in records)}")
        if self.batches == self.breaks_at:
            raise ConnectionResetError("the connection was reset")
        return {"Records": entries}


def send_to(stream: Stream) -> Any:
    """Return the call of the job: it turns the answer of the stream into an outcome for each record."""

    def send(batch: list[str]) -> list[str | Failed]:
        return [outcome(entry) for entry in stream.put_records(batch)["Records"]]

    return send


def outcome(entry: dict[str, str]) -> str | Failed:
    """Return what an entry of the answer means."""
    code = entry.get("ErrorCode")
    if code is None:
        return entry["SequenceNumber"]
    if code == "InvalidArgument":
        return Failed(code, retryable=False)
    return Failed(code, kind=FailureKind.OVERLOAD)


def report(result: BatchResult[str, str], stream: Stream) -> None:
    """Print what has become of the records."""
    print(f"  {result!r} in {result.rounds} rounds")
    for why, records in groupby(result.failed, lambda one: f"{one.status}, {one.reason!r}, {one.gave_up}"):
        print(f"    {' '.join(one.item or '(empty)' for one in records)}: {why}")
    print(f"    records written twice: {sum(times > 1 for times in stream.written.values())}")


def run(title: str, records: list[str], stream: Stream) -> None:
    """Run one job."""
    print(title)
    wait = backoff.full_jitter(0.2, cap=2.0)
    result = retry_failed(
        records, send_to(stream), pipeline=stream_pipeline, batch_size=BATCH, wait=wait, timeout=10.0, idempotent=False
    )
    report(result, stream)


def main() -> None:
    """Run two jobs."""
    records = [f"r{number}" for number in range(24)]
    run("25 records, of which one is not valid:", [*records, ""], Stream())
    run("the connection breaks in the second batch:", records, Stream(breaks_at=2))


if __name__ == "__main__":
    main()
