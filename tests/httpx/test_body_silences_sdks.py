"""Streams of real SDKs through a pipeline: what cuts them, what does not, and what comes of one that breaks."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from resilience import Bulkhead, DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.events import CallEnded, TimedOut
from resilience.testing import Recorder, virtual_time
from tests.httpx.helpers import NOW, retrying
from tests.httpx.model_server import SILENCE, Answer, End, ModelServer, refusal
from tests.httpx.sdks import OLLAMA, SDKS, Chat, Part, Sdk, each_sdk, each_that_repeats
from tests.support.timing import at_most

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

PAUSE = 0.18
PARTS: list[Part] = ["a", PAUSE, "b", PAUSE, "c", PAUSE, "d"]
SHORT = 0.45
"""Seconds that are more than a pause, and less than three."""
IDLE = 0.4
each_of_lines = pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.maker is OLLAMA], ids=str)


class Heard:
    """Listens to a stream to its end, and keeps its text, what cut it, and how long it took."""

    def __init__(self, sdk: Sdk, chat: Chat, each: Callable[[str], object] = lambda text: False) -> None:
        self.text = ""
        self.error: BaseException | None = None

        def add(text: str) -> object:
            self.text += text
            return each(text)

        started = time.monotonic()
        try:
            chat.listen(add)
        except Exception as error:
            self.error = sdk.cause(error)
        self.seconds = time.monotonic() - started


@each_sdk
def test_a_stream_that_goes_on_is_cut_by_none_of_the_timeouts_of_an_attempt(models: ModelServer, sdk: Sdk) -> None:
    timeout = Timeout(SHORT, first=IDLE, idle=IDLE)
    with sdk.open(models.url, Pipeline(Retry(2, wait=NOW), timeout), reject_with="response") as chat:
        models.script(sdk.stream(*PARTS))
        heard = Heard(sdk, chat)

    assert (heard.text, heard.error) == ("abcd", None)
    assert heard.seconds >= 3 * PAUSE > max(SHORT, IDLE)
    assert len(models.requests) == 1


@each_that_repeats
def test_a_stream_of_events_is_not_cut_by_that_of_the_call_either(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, Pipeline(Timeout(SHORT), Retry(2, wait=NOW))) as chat:
        models.script(sdk.stream(*PARTS))
        heard = Heard(sdk, chat)

    assert (heard.text, heard.error) == ("abcd", None)


@each_of_lines
def test_a_stream_of_lines_is_cut_by_that_of_the_call_unless_it_is_settled_at_its_head(
    models: ModelServer, sdk: Sdk
) -> None:
    """It is no event stream, so that it counts as a body like any other."""
    with sdk.open(models.url, Pipeline(Timeout(SHORT), Retry(2, wait=NOW))) as chat:
        models.script(sdk.stream(*PARTS))
        heard = Heard(sdk, chat)
    assert isinstance(heard.error, DeadlineExceededError)
    assert heard.text in ("a", "ab", "abc")
    assert heard.seconds <= at_most(SHORT)

    with sdk.open(models.url, Pipeline(Timeout(SHORT), Retry(2, wait=NOW)), settle="headers") as chat:
        models.script(sdk.stream(*PARTS))
        heard = Heard(sdk, chat)
    assert (heard.text, heard.error) == ("abcd", None)


@each_sdk
def test_a_silence_in_a_stream_is_cut(models: ModelServer, sdk: Sdk) -> None:
    """What was heard so far stays, and nobody asks again."""
    pipeline = Pipeline(Retry(3, wait=NOW), Timeout(None, idle=IDLE))
    with sdk.open(models.url, pipeline) as chat, Recorder(pipeline) as recorder:
        models.script(sdk.stream("a", PAUSE, "b", *SILENCE), sdk.stream("again"))
        heard = Heard(sdk, chat)

    assert heard.text == "ab"
    assert isinstance(heard.error, DeadlineExceededError)
    assert "TimeoutException" in [kind.__name__ for kind in type(heard.error).__mro__]
    assert PAUSE + IDLE <= heard.seconds <= at_most(PAUSE + IDLE)
    assert [event.timeout for event in recorder.of(TimedOut)] == [IDLE]
    assert len(models.requests) == 1
    assert pipeline.snapshot()["foreign_retries"] == 0


def after_the_head(answer: Answer) -> Answer:
    """Return an answer with a silence in place of what comes after its head."""
    return (answer[0], *SILENCE)


@each_sdk
def test_a_stream_without_a_first_part_is_cut(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, Pipeline(Retry(3, wait=NOW), Timeout(5.0, first=IDLE, idle=5.0))) as chat:
        models.script(after_the_head(sdk.stream("a")), sdk.stream("again"))
        heard = Heard(sdk, chat)

    assert heard.text == ""
    assert isinstance(heard.error, DeadlineExceededError)
    assert IDLE <= heard.seconds <= at_most(IDLE)
    assert len(models.requests) == 1


@each_that_repeats
def test_a_head_that_does_not_come_is_cut_by_first_and_repeated_by_the_sdk_alone(models: ModelServer, sdk: Sdk) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW), Timeout(None, first=IDLE, idle=IDLE))
    with sdk.open(models.url, pipeline, max_retries=1) as chat:
        models.script(SILENCE, sdk.stream("a"))
        heard = Heard(sdk, chat)

    assert (heard.text, heard.error) == ("a", None)
    assert len(models.requests) == 2
    assert pipeline.snapshot()["foreign_retries"] == 1


@each_sdk
@pytest.mark.parametrize("end", End)
def test_a_stream_that_breaks_is_not_asked_for_again(models: ModelServer, sdk: Sdk, end: End) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW), Timeout(5.0, idle=5.0))
    with sdk.open(models.url, pipeline) as chat, Recorder(pipeline) as recorder:
        models.script(sdk.stream("a", "b", 0.05, end), sdk.stream("again"))
        heard = Heard(sdk, chat)

    assert heard.text == "ab"
    assert type(heard.error).__name__ in ("ReadError", "RemoteProtocolError")
    assert len(models.requests) == 1
    assert len(recorder.of(CallEnded)) == 1


@each_sdk
def test_a_stream_is_repeated_while_it_has_no_head(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, retrying()) as chat, virtual_time() as clock:
        models.script(refusal(429, retry_after="7"), refusal(429, retry_after_ms="7"), sdk.stream("a", "b"))
        heard = Heard(sdk, chat)

    assert (heard.text, heard.error) == ("ab", None)
    assert 7.0 <= clock.sleeps[0] <= 8.4
    assert [request.headers.get("x-stainless-retry-count", "0") for request in models.requests] == ["0"] * 3


@each_sdk
def test_the_permit_of_a_stream_of_events_comes_back_with_its_head_that_of_lines_with_its_end(
    models: ModelServer, sdk: Sdk
) -> None:
    bulkhead = Bulkhead(1)
    held: list[int] = []
    with sdk.open(models.url, Pipeline(Retry(2, wait=NOW), bulkhead)) as chat:
        models.script(sdk.stream("a", "b"), sdk.stream("c"))
        heard = Heard(sdk, chat, lambda text: held.append(bulkhead.in_flight))
        assert (heard.text, heard.error) == ("ab", None)
        assert held == ([0, 0] if sdk.maker.repeats else [1, 1])
        assert Heard(sdk, chat).text == "c"

    assert bulkhead.in_flight == 0


@each_sdk
def test_a_stream_that_is_left_early_leaves_nothing_behind(models: ModelServer, sdk: Sdk) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(Retry(2, wait=NOW), bulkhead, Timeout(5.0, idle=IDLE))
    with sdk.open(models.url, pipeline) as chat, Recorder(pipeline) as recorder:
        models.script(sdk.stream("a", *SILENCE), sdk.stream("b"))
        heard = Heard(sdk, chat, lambda text: True)
        assert (heard.text, heard.error) == ("a", None)
        assert heard.seconds < IDLE
        assert Heard(sdk, chat).text == "b"

    assert bulkhead.in_flight == 0
    assert [event.outcome for event in recorder.of(CallEnded)] == ["ok", "ok"]
    assert recorder.of(TimedOut) == []
