"""A poll of a long-running job, through an outage of the service.

    python docs/examples/poll_job.py      needs the extra httpx; takes about four seconds

A service renders a report: POST begins it, and GET says how far it is and when to ask again. In between, the service
fails for a while, so that the circuit breaker of the client opens. One sees each answer; that the poll waits as long as
the service or the breaker says; and that it ends when the job is done, or with its deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

import resilience.httpx
from resilience import CircuitBreaker, Pipeline, Timeout, backoff
from resilience.events import BreakerChanged, Event, Rejected
from resilience.jobs import PollTimeoutError, apoll

STEPS = [(202, "10 %"), (202, "40 %"), (503, "down"), (503, "down"), (503, "down"), (202, "80 %"), (200, "done")]
begun = time.monotonic()


def say(text: str) -> None:
    """Print a line with the time since the start."""
    print(f"  {time.monotonic() - begun:5.2f} s  {text}", flush=True)


class Reports(BaseHTTPRequestHandler):
    """The service: the n-th question is answered by the n-th step."""

    steps = itertools.chain(STEPS, itertools.repeat((200, "done")))

    def do_POST(self) -> None:
        """Begin a job."""
        self.answer(202, "accepted")

    def do_GET(self) -> None:
        """Tell how far the job is. The job "never" is never done."""
        status, text = (202, "1 %") if self.path.endswith("never") else next(self.steps)
        say(f"the service answers {status}: {text}")
        self.answer(status, text)

    def answer(self, status: int, text: str) -> None:
        """Send a response, which says when to ask again."""
        self.send_response(status)
        self.send_header("location", "/reports/1")
        self.send_header("content-length", str(len(text)))
        if status == 202:
            self.send_header("retry-after-ms", "100")  # `retry-after` has whole seconds only
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """The server of the service."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a client that was cut at its deadline and has closed its connection."""


@contextmanager
def service() -> Generator[str]:
    """Run the service on a thread; yields its URL."""
    with Server(("127.0.0.1", 0), Reports) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def listen(event: Event) -> None:
    """Print what the policies do."""
    if isinstance(event, BreakerChanged):
        say(f"the circuit breaker is {event.state}")
    elif isinstance(event, Rejected):
        say(f"not asked: the circuit is {event.reason}, for another {event.retry_after or 0:.2f} s")


async def main() -> None:
    """Begin a job, and poll until it is done; then poll one that is never done."""
    breaker = CircuitBreaker(consecutive_failures=4, open_for=0.4)
    reports = Pipeline(breaker, Timeout(5.0), name="reports")
    reports.subscribe(listen, events=(BreakerChanged, Rejected))
    wait = backoff.proportional(0.1, cap=0.2)
    with service() as url:
        async with resilience.httpx.attach(httpx.AsyncClient(base_url=url), reports) as client:
            global begun
            begun = time.monotonic()
            print("a job that is done in a while:")
            accepted = await client.post("/reports")
            location = accepted.headers["location"]
            done = await apoll(
                lambda: client.get(location),
                until=lambda answer: answer.status_code != 202,
                timeout=30.0,
                pipeline=Pipeline(failures=resilience.httpx.HTTP_FAILURES),  # a 503 is no state, but a failure
                wait=wait,
            )
            print(f"  the job is {done.text}")

            print("a job that is never done:")
            try:
                await apoll(
                    lambda: client.get("/reports/never"),
                    until=lambda answer: answer.status_code != 202,
                    timeout=1.5,
                    wait=wait,
                )
            except PollTimeoutError as error:
                print(f"  PollTimeoutError: {error.polls} polls; the last state was {error.last_state.text!r}")


if __name__ == "__main__":
    asyncio.run(main())
