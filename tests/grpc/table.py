"""The table of what becomes of an RPC: what a server does and what happens meanwhile, and the outcome.

A cell of the table is a scenario, an arity, a way of calling, and a kind of server. `SCENARIOS` has what is expected of
a guarded channel; with `plain`, the same is expected of a channel of grpc. Cells that make no sense are left out, each
for a reason that `why_left_out` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from math import inf, nan
from typing import Any

import grpc

from resilience import Retry, Timeout, backoff
from tests.grpc.server_process import Act

ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
WAYS: Mapping[str, str] = {
    "blocking": "stub(request)",
    "with_call": "stub.with_call(request)",
    "future": "stub.future(request)",
    "iterate": "for message in stub(request)",
    "aio": "await stub(request), async for message in stub(request)",
    "aio_write": "call = stub(); await call.write(request); await call.read()",
}
SERVERS = ("sync", "aio")
REQUESTS = ("r0", "r1", "r2")
"""What is sent where requests are streamed; elsewhere the first of these."""

UNARY, STREAM = "unary", "stream"
"""The kinds of responses, and keys of `left_out`, where the names of arities and of ways may stand, too."""

SOON = backoff.fixed(0.01)
Policies = Callable[[], tuple[Any, ...]]


def retrying(attempts: int = 3, wait: float = 0.01, *inner: Any) -> Policies:
    """Return what makes a Retry without a budget and the policies inside it."""
    return lambda: (Retry(attempts, wait=backoff.fixed(wait), budget=None), *inner)


def timing_out(attempts: int = 2) -> Policies:
    """Return what makes a Timeout for the whole call, a Retry, and a Timeout for each attempt."""
    return lambda: (Timeout(10.0), *retrying(attempts)(), Timeout(ATTEMPT_TIMEOUT))


ATTEMPT_TIMEOUT = 0.3


@dataclass(frozen=True)
class Expected:
    """What is expected of a call.

    Args:
        codes: the codes that the call may end with.
        calls: how many attempts the server sees.
        messages: how many messages are received; None for all of the last attempt where the code is OK, otherwise none.
        ours: whether the error is also a DeadlineExceededError.
        seconds: the time that the call takes, or what remains of it after the action; the slack is added.
        least: the time that it takes at least.
        gap: the seconds between the first two attempts, as the server sees them: at least the first number, and not
            more than the second and the slack.
        ended: how the attempts ended, as the server sees it; None where that does not matter.
        remaining: the most that may be left until the deadline when the first attempt arrives, one for which a server
            sees a deadline; the next ones have less. inf where there must be none.
    """

    codes: tuple[str, ...] = ("OK",)
    calls: int = 1
    messages: int | None = None
    ours: bool = False
    seconds: float = 5.0
    least: float = 0.0
    gap: tuple[float, float] | None = None
    ended: tuple[str, ...] | None = None
    remaining: float | None = None


@dataclass(frozen=True)
class Scenario:
    """What a server does, what happens meanwhile, and what is expected.

    Args:
        plan: what each attempt does.
        expected: what is expected.
        policies: makes the policies of the pipeline.
        idempotent: whether the method is idempotent.
        timeout: the `timeout=` of the call.
        action: what happens during the call: "cancel" (of the call), "cancel task", "close" (of the channel), "kill",
            "drain" or "start" (of the server). A server that is killed or drained is started again at the same port.
        when: when it happens: "seen" (the server has seen the first attempt, and has sent its messages), "waiting"
            (a retry was scheduled) or "queued" (the call is in the queue of a bulkhead, which is full until then).
        grace: the seconds that the server gives to calls when it is drained.
        plain: whether a channel without a pipeline does the same.
        core: whether it is a row in which all ways of calling meet all kinds of servers.
        left_out: the reason for each arity, kind of response or way that is left out.
        special: what else is expected, by the kind of response or the way, instead of `expected`.
    """

    plan: tuple[Act, ...]
    expected: Expected
    policies: Policies = field(default_factory=retrying)
    idempotent: bool = True
    timeout: float | None = None
    action: str = ""
    when: str = "seen"
    grace: float = 0.0
    plain: bool = False
    core: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    special: Mapping[str, Expected] = field(default_factory=dict[str, Expected])


OK, HANG, HANG_AFTER_2 = Act(), Act(send=0, hang=True), Act(send=2, hang=True)


def fail(code: str = "UNAVAILABLE", pushback: str | None = None, retry_info: float | None = None) -> Act:
    """Return what fails before the first message."""
    return Act(0, code, pushback=pushback, details=None if retry_info is None else _status(code, retry_info))


def _status(code: str, retry_info: float) -> str:
    """Return a google.rpc.Status with a RetryInfo of so many seconds, as hexadecimal digits."""
    detail: Any = import_module("google.rpc.error_details_pb2").RetryInfo()  # by name: there are no stubs
    detail.retry_delay.FromNanoseconds(round(retry_info * 1e9))
    number: int = grpc.StatusCode[code].value[0]
    status: Any = import_module("google.rpc.status_pb2").Status(code=number, message="on purpose")
    status.details.add().Pack(detail)
    serialized: bytes = status.SerializeToString()
    return serialized.hex()


def failed(*codes: str, calls: int = 1, seconds: float = 5.0) -> Expected:
    """Return what is expected of a call that a server fails."""
    return Expected(codes, calls, seconds=seconds, ended=("failed",) * calls)


def timed_out(calls: int, seconds: float, messages: int = 0) -> Expected:
    """Return what is expected of a call that ends at a deadline."""
    return Expected(
        ("DEADLINE_EXCEEDED",), calls, messages, ours=True, seconds=seconds, least=seconds, ended=("cancelled",) * calls
    )


def cancelled(calls: int = 1, messages: int = 0, ended: tuple[str, ...] = ("cancelled",)) -> Expected:
    """Return what is expected of a call that is cancelled."""
    return Expected(("CANCELLED",), calls, messages, seconds=0.0, ended=ended)


NO_MIDDLE: dict[str, str] = {UNARY: "a unary response has no middle"}
NO_HANDLE: dict[str, str] = dict.fromkeys(("blocking", "with_call"), "there is nothing to cancel while a call blocks")
ONLY_TASKS: dict[str, str] = dict.fromkeys(("blocking", "with_call", "future", "iterate"), "there is no task")
DRAINED = ("CANCELLED", "UNAVAILABLE")
CLOSED_OR_FAILED = Expected(("CANCELLED", "UNAVAILABLE"), seconds=0.5, ended=("failed",))
MANY = retrying(100, 0.05)
LONG_WAIT = retrying(3, 0.5)

_PASSING = {
    "ok": Scenario((OK,), Expected(ended=("ok",)), plain=True, core=True),
    "slow after the first message": Scenario(
        (Act(every=0.2),), Expected(least=0.4, ended=("ok",)), policies=timing_out(), plain=True, left_out=NO_MIDDLE
    ),
    "fails, then ok": Scenario((fail(), OK), Expected(calls=2, ended=("failed", "ok")), core=True),
    "fails twice, then ok, by a deadline": Scenario(
        (fail(), fail(), OK), Expected(calls=3, remaining=0.95), timeout=0.95, policies=retrying(3, 0.1)
    ),
    "fails, then ok, not idempotent": Scenario((fail(), OK), failed("UNAVAILABLE"), idempotent=False, plain=True),
    "fails for good": Scenario((fail(),), failed("UNAVAILABLE", calls=3), core=True),
    "aborted, then ok": Scenario((fail("ABORTED"), OK), Expected(calls=2, ended=("failed", "ok"))),
    "resource exhausted": Scenario((fail("RESOURCE_EXHAUSTED"), OK), failed("RESOURCE_EXHAUSTED"), plain=True),
    "not found": Scenario((fail("NOT_FOUND"), OK), failed("NOT_FOUND"), plain=True),
    "the server's own deadline": Scenario(
        (fail("DEADLINE_EXCEEDED"), OK), failed("DEADLINE_EXCEEDED"), policies=timing_out(), plain=True
    ),
    "hangs": Scenario((HANG,), timed_out(2, 2 * ATTEMPT_TIMEOUT), policies=timing_out()),
    "hangs, then ok": Scenario(
        (HANG, OK),
        Expected(calls=2, least=ATTEMPT_TIMEOUT, seconds=ATTEMPT_TIMEOUT, ended=("cancelled", "ok")),
        policies=timing_out(),
        core=True,
    ),
    "hangs, not idempotent": Scenario(
        (HANG, OK), timed_out(1, ATTEMPT_TIMEOUT), policies=timing_out(), idempotent=False
    ),
    "dies in mid-stream": Scenario(
        (Act(2, "UNAVAILABLE"), OK),
        Expected(("UNAVAILABLE",), messages=2, ended=("failed",)),
        plain=True,
        left_out=NO_MIDDLE,
        core=True,
    ),
    "stalls in mid-stream": Scenario(
        (HANG_AFTER_2, OK),
        timed_out(1, 0.3, messages=2),
        policies=lambda: (Timeout(10.0, idle=0.3), *retrying()()),
        left_out=NO_MIDDLE,
    ),
}

_HINTS = {
    "pushback": Scenario(
        (fail(pushback="150"), OK),
        Expected(calls=2, gap=(0.15, 0.15), ended=("failed", "ok")),
        policies=retrying(3, 1.0),
    ),
    "pushback, not idempotent": Scenario(
        (fail(pushback="150"), OK),
        Expected(calls=2, gap=(0.15, 0.15), ended=("failed", "ok")),
        policies=retrying(3, 1.0),
        idempotent=False,
        core=True,
    ),
    "pushback of 0": Scenario(
        (fail(pushback="0"), OK), Expected(calls=2, gap=(0.0, 0.0)), policies=retrying(3, 1.0), idempotent=False
    ),
    "pushback with resource exhausted": Scenario(
        (fail("RESOURCE_EXHAUSTED", pushback="50"), OK), Expected(calls=2, gap=(0.05, 0.05)), idempotent=False
    ),
    "pushback for ever": Scenario((fail(pushback="10"),), failed("UNAVAILABLE", calls=3), idempotent=False),
    "pushback past the deadline": Scenario(
        (fail(pushback="1500"), OK), failed("UNAVAILABLE", seconds=0.0), timeout=0.9
    ),
    "pushback of -1": Scenario((fail(pushback="-1"), OK), failed("UNAVAILABLE"), plain=True),
    "pushback that is garbage": Scenario((fail(pushback="soon"), OK), failed("UNAVAILABLE"), plain=True),
    "RetryInfo": Scenario(
        (fail(retry_info=0.2), OK), Expected(calls=2, gap=(0.2, 0.24), ended=("failed", "ok")), core=True
    ),
    "RetryInfo below the own wait": Scenario(
        (fail(retry_info=0.01), OK), Expected(calls=2, gap=(0.2, 0.2)), policies=retrying(3, 0.2)
    ),
    "RetryInfo with resource exhausted": Scenario(
        (fail("RESOURCE_EXHAUSTED", retry_info=0.1), OK), Expected(calls=2, gap=(0.1, 0.12))
    ),
    "RetryInfo, not idempotent": Scenario(
        (fail(retry_info=0.1), OK), failed("UNAVAILABLE"), idempotent=False, plain=True
    ),
}

_DEADLINES = {
    "deadline": Scenario((HANG,), timed_out(1, 0.4), timeout=0.4, plain=True, core=True),
    "deadline in mid-stream": Scenario(
        (HANG_AFTER_2,), timed_out(1, 0.4, messages=2), timeout=0.4, plain=True, left_out=NO_MIDDLE
    ),
    "deadline of the pipeline": Scenario(
        (HANG,), timed_out(1, 0.4), policies=lambda: (Timeout(0.4), *retrying()()), timeout=20.0
    ),
    "deadline before the retry": Scenario(
        (fail(), OK), failed("UNAVAILABLE", seconds=0.0), policies=retrying(3, 1.0), timeout=0.9
    ),
    "deadline during the second attempt": Scenario(
        (fail(), HANG),
        Expected(
            ("DEADLINE_EXCEEDED",), 2, ours=True, seconds=0.5, least=0.5, ended=("failed", "cancelled"), remaining=0.5
        ),
        policies=retrying(3, 0.2),
        timeout=0.5,
    ),
    "deadline in a queue": Scenario(
        (OK,), Expected(("DEADLINE_EXCEEDED",), 0, ours=True, seconds=0.3, least=0.3), timeout=0.3, when="queued"
    ),
    "deadline that has passed": Scenario(
        (OK,), Expected(("DEADLINE_EXCEEDED",), 0, ours=True, seconds=0.0), timeout=-1.0, plain=True
    ),
    "deadline that is infinite": Scenario((OK,), Expected(remaining=inf), timeout=inf),
    "deadline that is NaN": Scenario((OK,), Expected(remaining=inf), timeout=nan),
}

_CANCELLATIONS = {
    "cancelled": Scenario((HANG,), cancelled(), action="cancel", plain=True, left_out=NO_HANDLE, core=True),
    "cancelled in mid-stream": Scenario(
        (HANG_AFTER_2,), cancelled(messages=2), action="cancel", plain=True, left_out=NO_HANDLE | NO_MIDDLE
    ),
    "cancelled between two attempts": Scenario(
        (fail(),),
        cancelled(ended=("failed",)),
        policies=retrying(3, 30.0),
        action="cancel",
        when="waiting",
        left_out=NO_HANDLE,
        core=True,
    ),
    "cancelled in the second attempt": Scenario(
        (fail(), HANG),
        cancelled(2, ended=("failed", "cancelled")),
        action="cancel",
        left_out=NO_HANDLE,
    ),
    "cancelled in a queue": Scenario((OK,), cancelled(0, ended=()), action="cancel", when="queued", left_out=NO_HANDLE),
    "task cancelled": Scenario((HANG,), cancelled(), action="cancel task", plain=True, left_out=ONLY_TASKS),
    "task cancelled in mid-stream": Scenario(
        (HANG_AFTER_2,), cancelled(messages=2), action="cancel task", plain=True, left_out=ONLY_TASKS | NO_MIDDLE
    ),
    "task cancelled between two attempts": Scenario(
        (fail(),),
        cancelled(ended=("failed",)),
        policies=retrying(3, 30.0),
        action="cancel task",
        when="waiting",
        left_out=ONLY_TASKS,
    ),
    "channel closed": Scenario((HANG,), cancelled(), action="close", plain=True, core=True),
    "channel closed in mid-stream": Scenario(
        (HANG_AFTER_2,), cancelled(messages=2), action="close", plain=True, left_out=NO_MIDDLE
    ),
    "channel closed between two attempts": Scenario(
        (fail(), OK),
        CLOSED_OR_FAILED,
        policies=LONG_WAIT,
        action="close",
        when="waiting",
        special={way: cancelled(ended=("failed",)) for way in ("aio", "aio_write")},
    ),
    "channel closed in a queue": Scenario((OK,), cancelled(0, ended=()), action="close", when="queued"),
}

_SERVERS = {
    "server killed and restarted": Scenario((HANG, OK), Expected(calls=2), policies=MANY, action="kill", core=True),
    "server killed and restarted, not idempotent": Scenario(
        (HANG, OK), Expected(("UNAVAILABLE",), 1), policies=MANY, action="kill", idempotent=False, plain=True
    ),
    "server killed in mid-stream": Scenario(
        (HANG_AFTER_2, OK),
        Expected(("UNAVAILABLE",), 1, messages=2),
        policies=MANY,
        action="kill",
        plain=True,
        left_out=NO_MIDDLE,
    ),
    "server started during the call": Scenario(
        (OK,), Expected(ended=("ok",)), policies=MANY, action="start", when="waiting"
    ),
    "server drained": Scenario(
        (HANG, OK), Expected(calls=2, ended=("cancelled", "ok")), policies=MANY, action="drain", grace=0.1, core=True
    ),
    "server drained, not idempotent": Scenario(
        (HANG, OK),
        Expected(DRAINED, ended=("cancelled",)),
        policies=MANY,
        action="drain",
        grace=0.1,
        idempotent=False,
        plain=True,
    ),
    "server drained in mid-stream": Scenario(
        (HANG_AFTER_2, OK),
        Expected(DRAINED, messages=2, ended=("cancelled",)),
        policies=MANY,
        action="drain",
        grace=0.1,
        plain=True,
        left_out=NO_MIDDLE,
    ),
    "server drained in time": Scenario(
        (Act(every=0.3),), Expected(ended=("ok",)), policies=MANY, action="drain", grace=5.0, plain=True
    ),
}

SCENARIOS: Mapping[str, Scenario] = _PASSING | _HINTS | _DEADLINES | _CANCELLATIONS | _SERVERS


@dataclass(frozen=True)
class Cell:
    """A cell of the table."""

    name: str
    arity: str
    way: str
    server: str

    @property
    def scenario(self) -> Scenario:
        """Its row."""
        return SCENARIOS[self.name]

    @property
    def streams(self) -> bool:
        """Whether the responses are streamed."""
        return self.arity.endswith("stream")

    @property
    def requests(self) -> tuple[str, ...]:
        """What is sent."""
        return REQUESTS if self.arity.startswith("stream") else REQUESTS[:1]

    @property
    def expected(self) -> Expected:
        """What is expected of it."""
        special = self.scenario.special
        return special.get(self.way) or special.get(STREAM if self.streams else UNARY) or self.scenario.expected

    def __str__(self) -> str:
        return f"{self.name}-{self.arity}-{self.way}-{self.server}"


def why_left_out(cell: Cell) -> str | None:
    """Return the reason for which a cell is left out; None where there is none."""
    if cell.streams and cell.way in ("blocking", "with_call", "future"):
        return "a call with a response stream returns the stream"
    if not cell.streams and cell.way == "iterate":
        return "a unary response is not iterated over"
    if cell.arity == "unary_unary" and cell.way == "aio_write":
        return "there is nothing to write or to read"
    reasons = cell.scenario.left_out
    if reason := reasons.get(cell.way) or reasons.get(STREAM if cell.streams else UNARY):
        return reason
    if not cell.scenario.core:
        if cell.way in ("with_call", "aio_write"):
            return (
                "this way of calling differs from the others only in how the call is made; see the rows that are core"
            )
        if cell.server != ("aio" if cell.way == "aio" else "sync"):
            return "the other kind of server sends the same; see the rows that are core"
    return None


def all_cells() -> Iterator[Cell]:
    """Yield all cells, those that are left out included."""
    for name, arity, way, server in product(SCENARIOS, ARITIES, WAYS, SERVERS):
        yield Cell(name, arity, way, server)


CELLS = [cell for cell in all_cells() if why_left_out(cell) is None]
LEFT_OUT = {str(cell): reason for cell in all_cells() if (reason := why_left_out(cell))}
PLAIN_CELLS = [cell for cell in CELLS if cell.scenario.plain]
