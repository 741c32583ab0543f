"""Secrets that a test plants wherever a user of HTTP has them, and all that the library writes, to look for them in.

What is looked through is what can end up in a log, a dashboard or a crash report without the user having put it there:
the lines of our loggers with all their details, the events, our warnings, the standard streams, the pipeline and its
policies as text and as data, our errors with their notes and their pickles, our notes on the errors of others, and what
the responses are given by us.

What is not: the log lines of httpx itself; the text of an exception that is not ours, which is passed on as it came,
also as the cause of one of ours; the text of an exception that a hook of the user raises, with which it is logged;
names that the user has chosen; what an object holds without showing it, such as the request of an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import itertools
import json
import logging
import pickle
import traceback
import uuid
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

import resilience
from resilience import DeadlineExceededError, Pipeline, RejectedError, ResilienceError, Retry, subscribe
from resilience._call.retry_marks import PREFIX
from resilience.events import Event
from resilience.httpx import attach
from resilience.testing import VirtualClock
from tests.httpx.helpers import NOW

HOST = "quotes.test"
PACKAGE = Path(resilience.__file__).parent
PLACES = [
    *("user", "password", "path", "query", "fragment"),
    *("authorization", "cookie", "x-api-key", "proxy-authorization", "idempotency-key", "other header"),
    *("json", "bytes", "form", "argument", "keyword argument", "made key"),
    *("set-cookie", "answered header", "hint", "answered body", "reason", "location", "transport", "proxy password"),
]
"""Where the secrets are. "hint" is a header that the library reads; "transport" is an exception of the transport."""


class Secrets:
    """A secret for each of PLACES: a text that nothing else has, and that no encoding of a URL changes."""

    def __init__(self) -> None:
        self._texts = {place: f"{place.replace(' ', '')}{uuid.uuid4().hex}" for place in PLACES}

    def __getitem__(self, place: str) -> str:
        return self._texts[place]

    def leaks(self, texts: Iterable[str]) -> list[str]:
        """Return which of them are in which of the texts, also as a user and a password are sent."""
        basic = base64.b64encode(f"{self['user']}:{self['password']}".encode()).decode()
        wanted = {**self._texts, "authorization by user and password": basic}
        return [f"{place}: {text}" for text in texts for place, one in wanted.items() if one.lower() in text.lower()]

    @property
    def url(self) -> str:
        """The URL of a request: a path that is a token, as of a webhook, and a key in the query."""
        return f"http://{HOST}/hooks/{self['path']}?api_key={self['query']}#{self['fragment']}"

    def with_user(self, url: str) -> str:
        """Return a URL with a user and a password, of which httpx makes the header Authorization."""
        return url.replace("//", f"//{self['user']}:{self['password']}@", 1)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request."""
        return {
            "Authorization": f"Bearer {self['authorization']}",
            "Cookie": f"session={self['cookie']}",
            "x-api-key": self["x-api-key"],
            "Proxy-Authorization": f"Basic {self['proxy-authorization']}",
            "X-Trace": self["other header"],
        }

    @property
    def key(self) -> dict[str, str]:
        """A key by which the server tells a repetition from a new request."""
        return {"Idempotency-Key": f'"{self["idempotency-key"]}"'}

    def requests(self, url: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """Method, URL and arguments of requests: with each kind of body, and with each kind of credentials."""
        url = self.url if url is None else url
        headers = {**self.headers, **self.key}
        return [
            ("PUT", url, {"headers": headers, "json": {"card": self["json"]}}),
            ("POST", self.with_user(url), {"headers": headers, "content": f"raw {self['bytes']}".encode()}),
            ("POST", url, {"headers": headers, "data": {"field": self["form"]}}),
        ]

    def answer(self, status: int, **headers: str) -> httpx.Response:
        """Return a response that is full of secrets, also where the library looks for hints."""
        given = {
            "set-cookie": f"session={self['set-cookie']}",
            "x-token": self["answered header"],
            "retry-after": self["hint"],
            "ratelimit": f'"{self["hint"]}";r=0;t=x',
            "x-ratelimit-reset": self["hint"],
            "x-should-retry": self["hint"],
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        body = {
            "title": self["answered body"],
            "retryAfter": self["hint"],
            "retryable": self["hint"],
            "error": {"details": [{"@type": "x.RetryInfo", "retryDelay": self["hint"]}]},
        }
        return httpx.Response(status, headers=given, json=body, extensions={"reason_phrase": self["reason"].encode()})


class _Lines(logging.Handler):
    """Keeps each record as text: the line with its traceback, and every detail that it has."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(f"logged {self.format(record)} {vars(record)!r}")


def _is_ours(error: BaseException) -> bool:
    """Return whether an error says what we have written: it is of our types, or our code refuses what it was given."""
    if isinstance(error, ResilienceError):
        return True
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, TypeError | ValueError) and Path(frames[-1]).is_relative_to(PACKAGE)


class Output:
    """All that is written while it listens, as texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.events: list[Event] = []

    @contextmanager
    def listening(self) -> Generator[None]:
        """Take what our loggers, from DEBUG on, the events and the warnings say meanwhile."""
        logger, lines = logging.getLogger("resilience"), _Lines(self.texts)
        level = logger.level
        logger.addHandler(lines)
        logger.setLevel(logging.DEBUG)
        try:
            with warnings.catch_warnings(record=True) as caught, subscribe(self.events.append):
                warnings.simplefilter("always")
                yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(lines)
        self.texts += [f"event {event!r} {event}" for event in self.events]
        self.texts += [f"warning {one.category} {one.message!r} {one.message}" for one in caught]

    def add_pipeline(self, pipeline: Pipeline[Any], client: Any = None) -> None:
        """Take what a pipeline, its policies and its transports say about themselves."""
        for one in (pipeline, *pipeline.policies):
            self.texts.append(f"policy {one!r} {one} {json.dumps(one.describe())} {json.dumps(one.snapshot())}")
        self.texts.append(f"transport {getattr(client, '_transport', None)!r} {getattr(client, '_mounts', None)!r}")

    def add_response(self, response: httpx.Response) -> None:
        """Take what we have added to a response."""
        notes = [value for name, value in response.extensions.items() if name.startswith("resilience")]
        self.texts.append(f"response {notes}")
        error = response.extensions.get("resilience_error")
        if error is not None:
            self.texts.append(f"response in place of an error {response.headers!r} {response.text}")
            self.add_error(error)

    def add_error(self, error: BaseException) -> None:
        """Take our notes on an error; if it is one of ours, all that it says, and so on with its cause."""
        current: BaseException | None = error
        while current is not None:
            notes = getattr(current, "__notes__", [])
            if not _is_ours(current):
                self.texts.append(f"note {[note for note in notes if note.startswith(PREFIX)]}")
                return
            shown = "".join(traceback.format_exception(current, chain=False))
            self.texts.append(f"error {current!r} {current} {current.args!r} {notes} {shown}")
            if isinstance(current, RejectedError | DeadlineExceededError):
                self.texts.append(f"pickled {pickle.dumps(current)!r} copied {copy.copy(current)!r}")
            current = current.__cause__


@dataclass
class Plan:
    """How the calls of a test are to end.

    Attributes:
        pipeline: what the client is attached to.
        transport: what is below; None for what the client makes.
        ends: what each call comes to: a status, or the name of an error; or several of them in one text.
        client: arguments of the client.
        settings: arguments of `attach`.
        around: entered for the time of the calls.
        events: event types of which at least one must have been published: so it ended for the right reason.
        requests: the requests; None for the usual ones.
        says: what must be among what was written, for the same purpose.
    """

    pipeline: Any
    transport: Any
    ends: list[str]
    client: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    around: contextlib.AbstractContextManager[Any] = field(default_factory=contextlib.nullcontext)
    events: tuple[type, ...] = ()
    requests: list[tuple[str, str, dict[str, Any]]] | None = None
    says: str = ""


numbers = itertools.count()


class Calls:
    """Makes the requests of a plan, each inside of a function with arguments and a pipeline around it."""

    def __init__(
        self, way: str, plan: Plan, secrets: Secrets, clock: VirtualClock | None = None, url: str | None = None
    ) -> None:
        self.way = way
        self.plan = plan
        self.secrets = secrets
        self.clock = clock
        self.requests = secrets.requests(url) if plan.requests is None else plan.requests
        self.output = Output()
        self.ends: list[str] = []
        self.client: Any = None

    def __call__(self) -> None:
        """Make them, and take what was written."""
        outer = Pipeline(Retry(2, wait=NOW), name=f"outer {next(numbers)}")
        with self.output.listening(), self.plan.around:
            if self.way == "sync":
                self._plain(outer)
            elif self.way == "asyncio":
                asyncio.run(self._awaited(outer))
            else:
                trio.run(self._awaited, outer, clock=None if self.clock is None else self.clock.trio())
        self.output.add_pipeline(outer)
        pipeline = self.plan.pipeline
        if isinstance(pipeline, Pipeline):
            self.output.add_pipeline(pipeline, self.client)

    def _plain(self, outer: Pipeline[Any]) -> None:
        with httpx.Client(**self._settings()) as client:
            self.client = attach(client, self.plan.pipeline, **self.plan.settings)

            def fetch(argument: str, *, keyword: str, method: str, url: str, arguments: dict[str, Any]) -> Any:
                return self.client.request(method, url, **arguments)

            for method, url, arguments in self.requests:
                with self._end():
                    response = outer.call(
                        partial(fetch, self.secrets["argument"]), **self._more(method, url, arguments)
                    )
                    self._ended(response)

    async def _awaited(self, outer: Pipeline[Any]) -> None:
        async with httpx.AsyncClient(**self._settings()) as client:
            self.client = attach(client, self.plan.pipeline, **self.plan.settings)

            async def fetch(argument: str, *, keyword: str, method: str, url: str, arguments: dict[str, Any]) -> Any:
                return await self.client.request(method, url, **arguments)

            for method, url, arguments in self.requests:
                with self._end():
                    response = await outer.acall(
                        partial(fetch, self.secrets["argument"]), **self._more(method, url, arguments)
                    )
                    self._ended(response)

    def _settings(self) -> dict[str, Any]:
        transport = self.plan.transport
        return self.plan.client if transport is None else {"transport": transport, **self.plan.client}

    def _more(self, method: str, url: str, arguments: dict[str, Any]) -> dict[str, Any]:
        keyword = self.secrets["keyword argument"]
        return {"keyword": keyword, "method": method, "url": url, "arguments": arguments}

    def _ended(self, response: httpx.Response) -> None:
        self.ends.append(str(response.status_code))
        self.output.add_response(response)

    @contextlib.contextmanager
    def _end(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.ends.append(type(error).__name__)
            self.output.add_error(error)

    def check(self) -> None:
        """Check that the calls have ended as planned, and that nothing was leaked."""
        for end, expected in zip(self.ends, self.plan.ends, strict=True):
            assert end in expected, f"{end} in place of {expected}"
        missing = set(self.plan.events) - {type(event) for event in self.output.events}
        assert not missing, f"there was no {missing}"
        assert any(self.plan.says in text for text in self.output.texts), f"nothing says {self.plan.says}"
        leaks = self.secrets.leaks(self.output.texts)
        assert not leaks, "\n".join(leaks)
