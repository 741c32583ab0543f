"""No secret of a request or a response gets into what the library writes, however a call ends: see SECURITY.md."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from resilience import (
    AdaptiveLimit,
    Allowlist,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Cooldown,
    Fallback,
    Hedge,
    Mode,
    Partition,
    Pipeline,
    Policy,
    RateLimit,
    ResilienceWarning,
    Retry,
    StaleCache,
    Timeout,
    deadline_after,
    logs,
    standard,
    subscribe,
)
from resilience._call.retry_marks import PREFIX
from resilience.events import (
    AttemptEnded,
    BreakerChanged,
    CooldownStarted,
    FallbackUsed,
    FaultInjected,
    HedgeStarted,
    RetryScheduled,
    TimedOut,
)
from resilience.httpx import HTTP_FAILURES, IdempotencyKey, attach, install
from resilience.testing import VirtualClock
from tests.httpx.helpers import NOW, Script, Stream, everywhere, retrying
from tests.httpx.planted import HOST, PLACES, Calls, Plan, Secrets, numbers


@pytest.fixture(autouse=True)
def everything_is_logged(nothing_logged_yet: None, log_interval: None) -> None:
    logs.configure(interval=0.0)


class Slow(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Takes so many seconds, and then ends as httpx does when it has waited for too long."""

    def __init__(self, clock: VirtualClock, seconds: float, end: Callable[[], httpx.Response]) -> None:
        self.clock = clock
        self.seconds = seconds
        self.end = end

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.clock.advance(self.seconds)
        return self.end()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(self.seconds)
        return self.end()


class Pausing(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body with a pause before its second chunk."""

    def __init__(self, clock: VirtualClock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        self.clock.advance(self.seconds)
        yield b"two"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        await anyio.sleep(self.seconds)
        yield b"two"


def isolated() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.isolate()
    return breaker


def full(**settings: Any) -> tuple[Bulkhead, contextlib.AbstractContextManager[Any]]:
    """A bulkhead without a free permit, and what holds it."""
    bulkhead = Bulkhead(1, **settings)
    return bulkhead, bulkhead.calling()


def raising(error: Exception) -> Callable[[], httpx.Response]:
    def end() -> httpx.Response:
        raise error

    return end


class Plans:
    """The plans, which are the methods without arguments."""

    def __init__(self, secrets: Secrets, clock: VirtualClock, way: str) -> None:
        self.secrets = secrets
        self.clock = clock
        self.way = way

    def _answer(self, status: int, **headers: str) -> Callable[[], httpx.Response]:
        return lambda: self.secrets.answer(status, **headers)

    def _substitute(self) -> httpx.Response:
        """Return a response that is given in place of others: its `repr`, which has the reason, is that of a policy."""
        response = self.secrets.answer(203)
        response.extensions.clear()
        return response

    def _broken(self, kind: type[Exception] = httpx.ReadError) -> Exception:
        return kind(f"{kind.__name__} of {self.secrets['transport']}")

    def ok(self) -> Plan:
        return Plan(retrying(), Script(self._answer(200)), ["200"] * 3)

    def an_answer_that_is_no_failure(self) -> Plan:
        return Plan(retrying(), Script(self._answer(404)), ["404"] * 3)

    def retried(self) -> Plan:
        script = Script(*[self._answer(503), self._answer(200)] * 3)
        return Plan(retrying(), script, ["200"] * 3, events=(RetryScheduled,))

    def given_up(self) -> Plan:
        return Plan(retrying(), Script(self._answer(503)), ["503"] * 3, says="no attempts are left")

    def given_up_as_not_idempotent(self) -> Plan:
        pipeline = retrying().bind(idempotent=False)
        return Plan(pipeline, Script(self._answer(503)), ["503"] * 3, says="the call is not idempotent")

    def a_hint_that_is_too_long(self) -> Plan:
        script = Script(self._answer(503, retry_after="3600"))
        return Plan(retrying(), script, ["503"] * 3, says="a longer wait than max_retry_after")

    def an_empty_budget(self) -> Plan:
        script = Script(self._answer(503))
        return Plan(retrying(attempts=20), script, ["503"] * 3, says="the retry budget is empty")

    def a_body_that_cannot_be_sent_again(self) -> Plan:
        def chunks() -> Iterator[bytes]:
            yield self.secrets["bytes"].encode()

        async def achunks() -> AsyncIterator[bytes]:
            yield self.secrets["bytes"].encode()

        content = chunks() if self.way == "sync" else achunks()
        requests = [("PUT", self.secrets.url, {"headers": self.secrets.headers, "content": content})]
        script = Script(self._answer(503))
        return Plan(retrying(), script, ["503"], requests=requests, says="the request body cannot be sent again")

    def a_broken_upload(self) -> Plan:
        return Plan(retrying(), Script(self._broken(httpx.WriteError)), ["WriteError"] * 3)

    def refused(self) -> Plan:
        return Plan(retrying(), Script(self._broken(httpx.ConnectError)), ["ConnectError"] * 3)

    def broken_connection(self) -> Plan:
        return Plan(retrying(), Script(self._broken()), ["ReadError"] * 3, events=(RetryScheduled,))

    def an_error_that_nobody_has_listed(self) -> Plan:
        script = Script(self._broken(RuntimeError))
        return Plan(retrying(), script, ["RuntimeError"] * 3, says="let builtins.RuntimeError through")

    def the_standard_pipeline(self) -> Plan:
        script = Script(*[self._answer(503), self._broken(httpx.ConnectError), self._answer(200)] * 3)
        pipeline = standard(f"secretive {next(numbers)}", timeout=20.0).bind(idempotent=True)
        return Plan(pipeline, script, ["200"] * 3, events=(RetryScheduled,))

    def an_adaptive_limit(self) -> Plan:
        limit = AdaptiveLimit(1)
        return Plan(retrying(limit), Script(200), ["BulkheadFullError"] * 3, around=limit.calling())

    def an_injected_fault(self) -> Plan:
        chaos = Chaos(1.0, error=lambda call: self._broken(httpx.ConnectError), enabled=True)
        return Plan(retrying(chaos), Script(200), ["ConnectError"] * 3, events=(FaultInjected,))

    def an_isolated_breaker(self) -> Plan:
        return Plan(retrying(isolated()), Script(200), ["CircuitOpenError"] * 3)

    def a_breaker_that_opens(self) -> Plan:
        breaker = CircuitBreaker(consecutive_failures=1)
        ends = ["ReadError or CircuitOpenError", "CircuitOpenError", "CircuitOpenError"]
        return Plan(Pipeline(Retry(2), breaker), Script(self._broken()), ends, events=(BreakerChanged,))

    def a_full_bulkhead(self) -> Plan:
        bulkhead, held = full()
        return Plan(Pipeline(bulkhead), Script(200), ["BulkheadFullError"] * 3, around=held)

    def a_long_queue(self) -> Plan:
        bulkhead, held = full(queue=5, max_wait=1.0)
        return Plan(Pipeline(bulkhead), Script(200), ["BulkheadFullError"] * 3, around=held)

    def a_rate_limit(self) -> Plan:
        limit = RateLimit(1, per=60.0, max_wait=0.0)
        return Plan(Pipeline(limit), Script(self._answer(200)), ["200", "RateLimitedError", "RateLimitedError"])

    def a_cooldown(self) -> Plan:
        script = Script(self._answer(429, retry_after="30"))
        pipeline = Pipeline(Timeout(5.0), Retry(2, wait=NOW), Cooldown())
        return Plan(pipeline, script, ["429"] + ["RateLimitedError"] * 2, events=(CooldownStarted,))

    def a_drained_pipeline(self) -> Plan:
        pipeline = retrying()
        pipeline.drain(0.0)
        return Plan(pipeline, Script(200), ["RejectedError"] * 3)

    def a_deadline_that_has_passed(self) -> Plan:
        return Plan(retrying(), Script(200), ["DeadlineExceededError"] * 3, around=deadline_after(0.0))

    def a_deadline_that_cuts(self) -> Plan:
        slow = Slow(self.clock, 9.0, raising(self._broken(httpx.ReadTimeout)))
        ends = ["DeadlineExceededError"] * 3
        return Plan(Pipeline(Timeout(2.0), retrying(), Timeout(1.0)), slow, ends, events=(TimedOut,))

    def a_late_answer(self) -> Plan:
        slow = Slow(self.clock, 1.5, self._answer(200))
        return Plan(Pipeline(Timeout(1.0)), slow, ["200, or DeadlineExceededError"] * 3, events=(TimedOut,))

    def the_timeout_of_a_request(self) -> Plan:
        slow = Slow(self.clock, 1.5, raising(self._broken(httpx.ConnectTimeout)))
        return Plan(retrying(), slow, ["ConnectTimeout"] * 3)

    def a_body_that_is_cut(self) -> Plan:
        def cut() -> httpx.Response:
            return httpx.Response(200, stream=Stream(b"one", self._broken()), headers=self.secrets.answer(200).headers)

        return Plan(retrying(), Script(cut), ["ReadError"] * 3)

    def a_body_that_is_silent(self) -> Plan:
        def silent() -> httpx.Response:
            return httpx.Response(200, stream=Pausing(self.clock, 9.0), headers=self.secrets.answer(200).headers)

        ends = ["DeadlineExceededError"] * 3
        return Plan(Pipeline(retrying(), Timeout(5.0, idle=1.0)), Script(silent), ends, events=(TimedOut,))

    def a_redirect(self) -> Plan:
        location = f"http://{HOST}/{self.secrets['location']}?token={self.secrets['location']}"
        script = Script(*[self._answer(307, location=location), self._answer(503), self._answer(200)] * 3)
        return Plan(retrying(), script, ["200"] * 3, {"follow_redirects": True}, events=(RetryScheduled,))

    def redirects_without_end(self) -> Plan:
        script = Script(self._answer(307, location=self.secrets.url))
        return Plan(retrying(), script, ["TooManyRedirects"] * 3, {"follow_redirects": True})

    def a_hedge(self) -> Plan:
        pipeline = Pipeline(Hedge(0.0, budget=None)).bind(idempotent=True)
        return Plan(pipeline, Slow(self.clock, 9.0, self._answer(200)), ["200"] * 3, events=(HedgeStarted,))

    def a_hedge_that_fails(self) -> Plan:
        pipeline = Pipeline(Hedge(0.0, budget=None)).bind(idempotent=True)
        slow = Slow(self.clock, 9.0, raising(self._broken()))
        return Plan(pipeline, slow, ["ReadError"] * 3, events=(HedgeStarted,))

    def a_fallback(self) -> Plan:
        pipeline = Pipeline(Fallback(value=self._substitute()), retrying())
        return Plan(pipeline, Script(self._broken()), ["203"] * 3, events=(FallbackUsed,))

    def a_computed_fallback(self) -> Plan:
        pipeline = Pipeline(Fallback(lambda error: self._substitute()), isolated())
        return Plan(pipeline, Script(self._answer(503)), ["203"] * 3, events=(FallbackUsed,))

    def a_fallback_of_the_wrong_type(self) -> Plan:
        pipeline = Pipeline(Fallback(lambda error: self.secrets["transport"]), retrying())
        return Plan(pipeline, Script(self._broken()), ["TypeError"] * 3)

    def an_answer_of_earlier(self) -> Plan:
        def key(call: Any) -> str:
            return str(call.args[0].request.headers["x-api-key"])

        script = Script(self._answer(200), self._broken())
        return Plan(Pipeline(StaleCache(key), Retry(1)), script, ["200"] * 3, events=(FallbackUsed,))

    def shadow(self) -> Plan:
        bulkhead, held = full()
        policies = [Timeout(1.0), Retry(3), Cooldown(), RateLimit(1, per=60.0, max_wait=0.0), isolated(), bulkhead]
        script = Script(self._answer(503, retry_after="5"), self._answer(429, retry_after="9"), self._broken())
        return Plan(Pipeline(*policies, mode=Mode.SHADOW), script, ["503", "429", "ReadError"], around=held)

    def shadow_of_one_policy(self) -> Plan:
        pipeline = Pipeline(Fallback(value=self._substitute(), mode="shadow"), retrying())
        return Plan(pipeline, Script(self._broken()), ["ReadError"] * 3, events=(FallbackUsed,))

    def a_rejection_as_a_response(self) -> Plan:
        return Plan(retrying(isolated()), Script(200), ["503"] * 3, settings={"reject_with": "response"})

    def a_deadline_as_a_response(self) -> Plan:
        slow = Slow(self.clock, 9.0, raising(self._broken(httpx.ReadTimeout)))
        settings = {"reject_with": "response"}
        return Plan(Pipeline(Timeout(2.0)), slow, ["504"] * 3, settings=settings, events=(TimedOut,))

    def keys_that_are_made(self) -> Plan:
        key = IdempotencyKey(HOST, header="X-Key", make=lambda: self.secrets["made key"])
        settings = {"idempotency_key": key, "propagate_to": HOST}
        return Plan(retrying(), Script(self._answer(409)), ["409"] * 3, settings=settings)

    def keys_that_cannot_be_sent(self) -> Plan:
        key = IdempotencyKey(
            HOST, header="X-Key", methods=["PUT", "POST"], make=lambda: f"{self.secrets['made key']}\n"
        )
        return Plan(retrying(), Script(200), ["TypeError"] * 3, settings={"idempotency_key": key})

    def a_repetition_of_an_sdk(self) -> Plan:
        client = {"headers": {"x-stainless-retry-count": "1"}}
        return Plan(retrying(), Script(self._answer(503)), ["503"] * 3, client, says="max_retries=0")

    def a_hook_that_fails(self) -> Plan:
        """What it was asked about is in the context of what it raises."""

        nothing: dict[str, Any] = {}

        def judge(error: Exception) -> Any:
            try:
                raise error
            except Exception:
                return nothing["unknown"]

        failures = HTTP_FAILURES | Allowlist(when=judge)
        pipeline = Pipeline(Retry(2, wait=NOW), failures=failures)
        return Plan(pipeline, Script(self._broken(RuntimeError)), ["RuntimeError"] * 3, says="KeyError: 'unknown'")


NAMES = sorted(
    name for name in vars(Plans) if not name.startswith("_") and name not in ("answer", "broken", "substitute")
)


@everywhere
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_leaked(way: str, name: str, virtual_clock: VirtualClock, capfd: pytest.CaptureFixture[str]) -> None:
    secrets = Secrets()
    calls = Calls(way, getattr(Plans(secrets, virtual_clock, way), name)(), secrets, virtual_clock)
    calls()
    calls.output.texts += capfd.readouterr()

    calls.check()


@pytest.fixture
def calls(virtual_clock: VirtualClock) -> Calls:
    """Calls on which a Retry gives up, and of which nothing is leaked."""
    secrets = Secrets()
    plan = Plans(secrets, virtual_clock, "sync").given_up()
    return Calls("sync", plan, secrets, virtual_clock)


def test_a_listener_that_logs_the_url_is_found_out(calls: Calls) -> None:
    audit = logging.getLogger("resilience.audit")
    with subscribe(lambda event: audit.warning("%s of %s", type(event).__name__, calls.secrets.url)):
        calls()

    with pytest.raises(AssertionError, match=calls.secrets["query"]):
        calls.check()
    assert {leak.partition(":")[0] for leak in calls.secrets.leaks(calls.output.texts)} == {"path", "query", "fragment"}


@pytest.mark.parametrize("channel", ["line", "detail", "traceback", "event", "warning", "name", "note"])
def test_every_secret_is_found_in_all_that_is_written(calls: Calls, channel: str) -> None:
    leak = " and ".join(calls.secrets[place].upper() for place in PLACES)
    breaker = CircuitBreaker(name=leak if channel == "name" else None)
    pipeline = Pipeline(Retry(2, wait=NOW), breaker)

    def write(event: object) -> None:
        if channel == "line":
            logs.logger.debug(leak)
        elif channel == "detail":
            logs.logger.error("no", extra={"resilience_detail": leak})
        elif channel == "traceback":
            raise ValueError(leak)
        elif channel == "warning":
            warnings.warn(leak, ResilienceWarning, stacklevel=1)

    with pipeline.subscribe(write, events=(AttemptEnded,)):
        calls.plan.pipeline = pipeline.bind(target=leak) if channel == "event" else pipeline
        calls()
    if channel == "note":
        error = httpx.ReadError("down")
        error.add_note(f"{PREFIX}{leak}")
        calls.output.add_error(error)

    assert {found.partition(":")[0] for found in calls.secrets.leaks(calls.output.texts)} == set(PLACES)


def test_the_header_that_is_made_of_a_user_and_a_password_is_found() -> None:
    secrets = Secrets()
    request = httpx.Client(transport=Script(200)).build_request("GET", secrets.with_user(secrets.url))
    flow = httpx.BasicAuth(secrets["user"], secrets["password"]).auth_flow(request)

    assert secrets.leaks([next(flow).headers["Authorization"]])


@everywhere
def test_what_an_exception_of_the_transport_says_itself_is_passed_on(way: str, virtual_clock: VirtualClock) -> None:
    """It is not ours, and its user wants to read it: only our lines, events and notes do not repeat it."""
    secrets = Secrets()
    plan = Plans(secrets, virtual_clock, way).broken_connection()
    calls = Calls(way, plan, secrets, virtual_clock)
    calls()

    (raised,) = plan.transport.answers
    assert secrets["transport"] in str(raised)
    assert "gave up after 3 attempts" in "".join(raised.__notes__)
    calls.check()


@everywhere
def test_a_key_of_a_partition_is_in_events_and_snapshots_only(way: str, virtual_clock: VirtualClock) -> None:
    """There it is what the user has asked for; see the events and `partition_key`."""
    secrets = Secrets()

    def by(call: Any) -> str:
        return str(call.args[0].request.headers["x-api-key"])

    limits = Partition(lambda: RateLimit(1, per=60.0, max_wait=0.0), by=by)
    plan = Plan(Pipeline(limits), Script(200), ["200", "RateLimitedError", "RateLimitedError"])
    calls = Calls(way, plan, secrets, virtual_clock)
    calls()

    written = calls.output.texts
    assert secrets.leaks(text for text in written if text.startswith("event"))
    assert secrets.leaks(text for text in written if not text.startswith(("event", "policy"))) == []


def guard(**settings: Any) -> httpx.Client:
    return attach(httpx.Client(transport=Script(200)), Pipeline(), **settings)


URL = "https://ada:{}@api.test/path"
MISTAKES: dict[str, Callable[[str], object]] = {
    "install": lambda secret: install({URL.format(secret): Pipeline()}),
    "propagate_to": lambda secret: guard(propagate_to=URL.format(secret)),
    "idempotent": lambda secret: guard(idempotent=f"POST {URL.format(secret)}"),
    "hosts": lambda secret: IdempotencyKey(URL.format(secret)),
    "header": lambda secret: IdempotencyKey("api.test", header=f"x-api-key: {secret}"),
}
"""What is given in place of a host, a pattern or a name, such as the URL with which the client is made."""


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_message_about_a_mistake_has_no_password(mistake: Callable[[str], object]) -> None:
    secret = Secrets()["password"]
    with pytest.raises(ValueError, match=r"must be|no URL pattern") as caught:
        mistake(secret)

    assert secret not in str(caught.value)


def test_the_message_about_wrong_options_has_no_secret() -> None:
    secret = Secrets()["argument"]
    with pytest.raises(TypeError, match=r"made by resilience\.httpx\.options") as caught:
        guard().get("http://api.test", extensions={"resilience": {"token": secret}})

    assert secret not in str(caught.value)


def called(secret: str, *arguments: object) -> Any:
    """A function of the user's that is told a secret beforehand, such as the key of another service."""


SHOWN: dict[str, Callable[[Any], Policy[Any]]] = {
    "Fallback": lambda function: Fallback(function),
    "StaleCache": lambda function: StaleCache(function),
    "Partition": lambda function: Partition(CircuitBreaker, by=function),
    "Chaos": lambda function: Chaos(1.0, error=function),
    "Retry": lambda function: Retry(wait=function),
}


def test_an_allowlist_shows_the_name_of_a_function() -> None:
    secret = Secrets()["argument"]
    policy = Retry(on=Allowlist(when=partial(called, secret)))

    assert secret not in f"{policy!r} {policy.describe()}"


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_a_policy_shows_the_name_of_a_function(make: Callable[[Any], Policy[Any]]) -> None:
    secret = Secrets()["argument"]
    policy = make(partial(called, secret))

    assert secret not in f"{policy!r} {policy.describe()}"
