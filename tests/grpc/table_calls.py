"""Makes the call of a cell of the table, lets happen to it what the scenario says, and tells what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc

import resilience.grpc
from resilience import Bulkhead, Pipeline
from resilience.events import RetryScheduled
from tests.grpc.processes import ServerProcess
from tests.grpc.server_process import ATTEMPT, ID, PLAN, SERVICE, Attempt
from tests.grpc.servers import OPTIONS, wait_until
from tests.grpc.table import Cell
from tests.support.timing import Stalls

LIMIT = 10.0
"""Seconds after which a call is taken for one that hangs for ever."""
SHARED = "_poll_wrapper"
"""In the name of the thread that all channels of `grpc.aio` share."""


@dataclass
class Outcome:
    """What became of a call.

    Args:
        code: the name of the code that the caller sees: that of the error, or CANCELLED for a cancellation.
        error: what was raised.
        messages: what was received.
        reported: what `code()` of the call returns; empty where the call is not to be had.
        attempt: the attempt that the initial metadata is of; empty where the call is not to be had.
        cancelled: what `cancelled()` of the call returns.
        started: when the call was made.
        ended: when it ended.
        acted: when the action of the scenario began; when the call was made, if there is none.
        attempts: what the servers have seen before the channel was closed.
        left: the threads and tasks that are left after the channel was closed.
        stalled: the longest time for which the machine let a thread wait that was due.
    """

    code: str = ""
    error: BaseException | None = None
    messages: list[str] = field(default_factory=list[str])
    reported: str = ""
    attempt: str = ""
    cancelled: bool = False
    started: float = 0.0
    ended: float = 0.0
    acted: float = 0.0
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    left: list[str] = field(default_factory=list[str])
    stalled: float = 0.0


RunCell = Callable[..., Outcome]
"""Runs a cell; takes the cell and perhaps an opener."""
Opener = Callable[[Cell, str, Pipeline[Any]], Any]
"""Returns the channel of a cell to a target, whose RPCs pass through a pipeline."""


def guarded_channel(cell: Cell, target: str, pipeline: Pipeline[Any]) -> Any:
    """Return a channel as this library makes them."""
    module: Any = resilience.grpc.aio if cell.way.startswith("aio") else resilience.grpc
    return module.insecure_channel(target, pipeline, idempotent=cell.scenario.idempotent, options=OPTIONS)


def plain_channel(cell: Cell, target: str, pipeline: Pipeline[Any]) -> Any:
    """Return a channel as grpc makes them."""
    del pipeline
    module: Any = grpc.aio if cell.way.startswith("aio") else grpc
    return module.insecure_channel(target, options=OPTIONS)


class Run:
    """One cell, as it runs.

    Args:
        cell: the cell.
        server: the process of the server, which the scenario may kill.
        name: what the server knows the call by.
        opener: makes the channel.
    """

    def __init__(self, cell: Cell, server: ServerProcess, name: str, opener: Opener = guarded_channel) -> None:
        self.cell = cell
        self.outcome = Outcome()
        self.port = server.listen()
        self.servers = [server]
        self._opener = opener
        self._name = name
        self._gone: list[Attempt] = []
        self._waiting = threading.Event()
        self._queue = Bulkhead(1, queue=5, max_wait=30.0)
        scenario = cell.scenario
        policies = scenario.policies()
        self._pipeline: Pipeline[Any] = Pipeline(*policies, self._queue)
        self._unsubscribe = self._pipeline.subscribe(lambda event: self._waiting.set(), events=[RetryScheduled])
        self._handle: Any = None
        self._task: asyncio.Task[None] | None = None
        self._close: Callable[[], Any] = lambda: None

    def run(self) -> Outcome:
        """Make the call and return what became of it."""
        stalls = Stalls()
        try:
            self._run_bounded()
        finally:
            stalls.stop()
        self.outcome.stalled = stalls.worst
        return self.outcome

    def _run_bounded(self) -> None:
        """Make the call, and give up if it hangs."""
        before = set(threading.enumerate())
        work = self._arun if self.cell.way.startswith("aio") else self._run
        with contextlib.ExitStack() as stack:
            if self.cell.scenario.when == "queued":
                stack.enter_context(self._queue)
            if self.cell.scenario.action == "start":
                self.servers[-1].drain(self.port, 0.0)
            worker = threading.Thread(target=self._guarded, args=(work, stack.close), name="table-cell", daemon=True)
            worker.start()
            worker.join(LIMIT)
        self._unsubscribe()
        if worker.is_alive():
            self._close_for_good()
            raise AssertionError(f"the call has not ended after {LIMIT} s; {self.outcome}")
        wait_until(lambda: not self._new_threads(before))
        self.outcome.left += self._new_threads(before)

    def _guarded(self, work: Callable[[Callable[[], None]], None], release: Callable[[], None]) -> None:
        """Run the cell on a thread of its own, since what is tested may hang."""
        try:
            work(release)
        except BaseException as error:
            self.outcome.error = error
            self.outcome.code = f"the test failed: {error!r}"

    @staticmethod
    def _new_threads(before: set[threading.Thread]) -> list[str]:
        new = sorted(thread.name for thread in threading.enumerate() if thread not in before)
        return [name for name in new if SHARED not in name]

    def _look(self) -> None:
        """Write down what the servers have seen when it is over: before the channel is closed, which would end it."""
        wait_until(lambda: all(attempt.ended for attempt in self.servers[-1].attempts(self._name)), 2.0)
        self.outcome.attempts = self._attempts()

    def _attempts(self) -> list[Attempt]:
        return [*self._gone, *self.servers[-1].attempts(self._name)]

    # What happens during the call

    def _act(self, release: Callable[[], None]) -> Callable[[], Any]:
        """Wait for the moment of the action and return it."""
        scenario = self.cell.scenario
        if not scenario.action:
            return lambda: None
        assert wait_until(self._moment), f"the moment of the {scenario.action} has not come"
        self.outcome.acted = time.monotonic()
        match scenario.action:
            case "cancel":
                return lambda: self._handle.cancel()
            case "cancel task":
                assert self._task is not None
                return self._task.cancel
            case "close":
                return self._close
            case "kill":
                self._kill()
            case "drain":
                self.servers[-1].drain(self.port, scenario.grace)
                assert wait_until(self._listen_again)
            case "start":
                assert wait_until(self._listen_again)
            case action:
                raise AssertionError(action)
        return lambda: None

    def _moment(self) -> bool:
        """Return whether the moment for the action has come."""
        scenario = self.cell.scenario
        if scenario.action == "cancel" and self._handle is None:
            return False
        if scenario.when == "waiting":
            return self._waiting.is_set()
        if scenario.when == "queued":
            return self._queue.queued == 1
        attempts = self._attempts()
        wanted = next(number for number, act in enumerate(scenario.plan, 1) if act.hang or act.every)
        if len(attempts) < wanted or len(attempts[-1].requests) < len(self.cell.requests):
            return False
        return len(self.outcome.messages) >= (scenario.plan[wanted - 1].send or 0)

    def _kill(self) -> None:
        """Kill the server, and start another one at the same port."""
        dead = self.servers[-1]
        self._gone = dead.attempts(self._name)
        self.servers.append(ServerProcess(self.cell.server))
        dead.kill()
        assert wait_until(self._listen_again)

    def _listen_again(self) -> bool:
        """Start a server at the same port, if that is free."""
        try:
            self.servers[-1].listen(self.port, {self._name: len(self._gone)})
        except RuntimeError:
            return False
        return True

    # Channels and calls

    def _new_channel(self) -> Any:
        return self._opener(self.cell, f"127.0.0.1:{self.port}", self._pipeline)

    def _stub(self, channel: Any) -> Any:
        arity = self.cell.arity
        return getattr(channel, arity)(f"{SERVICE}{arity}")

    def _options(self) -> dict[str, Any]:
        plan = json.dumps([asdict(act) for act in self.cell.scenario.plan])
        return {"metadata": [(ID, self._name), (PLAN, plan)], "timeout": self.cell.scenario.timeout}

    def _request(self) -> Any:
        """Return the request, or an iterator of requests."""
        requests = [request.encode() for request in self.cell.requests]
        return iter(requests) if self.cell.arity.startswith("stream") else requests[0]

    def _receive(self, message: Any) -> None:
        assert isinstance(message, bytes)
        self.outcome.messages.append(message.decode())

    def _end(self, error: BaseException | None) -> None:
        """Write down how the call ended."""
        self.outcome.ended = time.monotonic()
        self.outcome.error = error
        if error is None:
            self.outcome.code = "OK"
        elif isinstance(error, grpc.FutureCancelledError | asyncio.CancelledError):
            self.outcome.code = "CANCELLED"
        elif isinstance(error, grpc.RpcError):
            code: Any = error
            self.outcome.code = code.code().name
        else:
            self.outcome.code = f"no RpcError: {error!r}"

    def _run(self, release: Callable[[], None]) -> None:
        """Make a call of the synchronous API."""
        channel = self._new_channel()
        self._close = channel.close
        with ThreadPoolExecutor(1) as pool:
            acting = pool.submit(self._act_now, release)
            self.outcome.started = self.outcome.acted = time.monotonic()
            try:
                self._call(self._stub(channel))
            except BaseException as error:
                self._end(error)
            else:
                self._end(None)
            release()
            acting.result()
        call = self._handle
        if isinstance(call, grpc.Call):  # not so where another interceptor returns something of its own
            self.outcome.reported = call.code().name
            self.outcome.attempt = str(dict(tuple(call.initial_metadata() or ())).get(ATTEMPT, ""))
            self.outcome.cancelled = isinstance(call, grpc.Future) and call.cancelled()
        self._look()
        channel.close()

    def _act_now(self, release: Callable[[], None]) -> None:
        self._act(release)()
        if self.cell.scenario.action == "close":
            release()

    def _call(self, stub: Any) -> None:
        request, options = self._request(), self._options()
        match self.cell.way:
            case "blocking":
                self._receive(stub(request, **options))
            case "with_call":
                response, self._handle = stub.with_call(request, **options)
                self._receive(response)
            case "future":
                self._handle = stub.future(request, **options)
                self._receive(self._handle.result())
            case way:
                assert way == "iterate"
                self._handle = stub(request, **options)
                for message in self._handle:
                    self._receive(message)

    def _arun(self, release: Callable[[], None]) -> None:
        """Make a call of `grpc.aio`."""
        asyncio.run(self._amain(release))

    async def _amain(self, release: Callable[[], None]) -> None:
        channel = self._new_channel()
        self._close = lambda: asyncio.ensure_future(channel.close())
        before = asyncio.all_tasks()

        async def act() -> None:
            action = await asyncio.to_thread(self._act, release)
            closing = action()
            if isinstance(closing, asyncio.Task):
                await closing
                release()

        self.outcome.started = self.outcome.acted = time.monotonic()
        acting = asyncio.create_task(act())
        self._task = asyncio.create_task(self._acall(self._stub(channel)))
        try:
            await self._task
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)
        release()
        await acting
        await self._inspect(self._handle)
        self._handle = self._task = None
        await asyncio.to_thread(self._look)
        await channel.close()
        for _ in range(500):
            left = asyncio.all_tasks() - before
            if not left:
                break
            await asyncio.sleep(0.01)
        self.outcome.left = [repr(task) for task in asyncio.all_tasks() - before]

    async def _inspect(self, call: Any) -> None:
        """Ask a call of `grpc.aio` that has ended for its code and metadata."""
        async with asyncio.timeout(5.0):
            self.outcome.reported = (await call.code()).name
            if self.outcome.code == "OK":
                self.outcome.attempt = str(dict(tuple(await call.initial_metadata())).get(ATTEMPT, ""))
        self.outcome.cancelled = call.cancelled()

    async def _acall(self, stub: Any) -> None:
        options = self._options()
        if self.cell.way == "aio":
            request = self._request()
            self._handle = call = stub(request if isinstance(request, bytes) else _aiter(request), **options)
        elif self.cell.arity.startswith("unary"):
            self._handle = call = stub(self._request(), **options)
        else:
            self._handle = call = stub(**options)
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # it has ended; the end says why
                for request in self._request():
                    await call.write(request)
                await call.done_writing()
        if not self.cell.streams:
            self._receive(await call)
        elif self.cell.way == "aio":
            async for message in call:
                self._receive(message)
        else:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._receive(message)

    def _close_for_good(self) -> None:
        """Close the channel of a call that hangs."""
        with contextlib.suppress(Exception):
            self._close()


async def _aiter(requests: Iterator[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request
