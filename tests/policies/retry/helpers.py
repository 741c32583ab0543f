"""What the tests of Retry share."""

from typing import Any

import pytest

from resilience import Allowlist, Failure, Pipeline
from resilience.events import GiveUpReason, RetryGivenUp
from resilience.testing import Recorder


class Down:
    """Raises the error of its turn, and counts; with no error for the turn, it returns "fine"."""

    def __init__(self, *errors: BaseException | None, default: type[BaseException] | None = None) -> None:
        self.errors = list(errors)
        self.default = default
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        error = self.errors[self.calls - 1] if self.calls <= len(self.errors) else None
        if error is None and self.calls > len(self.errors) and self.default is not None:
            error = self.default("down")
        if error is not None:
            raise error
        return "fine"


def listing(failure: Failure) -> Allowlist:
    return Allowlist(when=lambda error: failure if isinstance(error, ConnectionError) else None)


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def gives_up(
    pipeline: Pipeline[Any],
    down: Down,
    reason: GiveUpReason,
    words: str,
    *,
    attempts: int,
    idempotent: bool | None = None,
) -> None:
    with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
        pipeline.bind(idempotent=idempotent).call(down)
    (event,) = recorder.of(RetryGivenUp)
    assert (event.reason, event.attempts, down.calls) == (reason, attempts, attempts)
    assert (event.pipeline, event.policy, event.operation) == ("quotes", "retry", "Down")
    (note,) = notes(caught.value)
    assert note.startswith(f"resilience: retry of quotes gave up after {attempts} attempt")
    assert words in note.rpartition(" s: ")[2]
