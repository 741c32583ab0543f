"""SDKs that retry by themselves, around a guarded client: they are told not to, and hear no at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.httpx import attach
from resilience.testing import FaultyServer

pytestmark = pytest.mark.slow
SECONDS = 0.4
SLACK = 0.25
Sdk = Callable[[str, Pipeline[Any]], AbstractContextManager[Callable[[], object]]]
"""Makes a guarded client, and gives what asks the model."""


@pytest.fixture(scope="module")
def server() -> Generator[FaultyServer]:
    with FaultyServer() as server:
        for sdk in (of_openai, of_openai_async, of_anthropic):
            isolated = CircuitBreaker()
            isolated.isolate()
            with sdk(server.url, Pipeline(isolated)) as ask, pytest.raises(Exception, match=r"503|isolated"):
                ask()  # the first call imports much, which takes long
        yield server


@contextmanager
def of_openai(url: str, pipeline: Pipeline[Any]) -> Generator[Callable[[], object]]:
    with openai.OpenAI(api_key="key", base_url=url, max_retries=2) as client:
        attach(client._client, pipeline, reject_with="response")
        yield lambda: client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])


@contextmanager
def of_openai_async(url: str, pipeline: Pipeline[Any]) -> Generator[Callable[[], object]]:
    client = openai.AsyncOpenAI(api_key="key", base_url=url, max_retries=2)
    attach(client._client, pipeline, reject_with="response")

    async def main() -> None:
        async with client:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])

    yield lambda: asyncio.run(main())


@contextmanager
def of_anthropic(url: str, pipeline: Pipeline[Any]) -> Generator[Callable[[], object]]:
    with anthropic.Anthropic(api_key="key", base_url=url, max_retries=2) as client:
        attach(client._client, pipeline, reject_with="response")
        yield lambda: client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hello"}])


each_sdk = pytest.mark.parametrize("sdk", [of_openai, of_openai_async, of_anthropic])


@each_sdk
def test_a_total_deadline_holds(server: FaultyServer, sdk: Sdk) -> None:
    with sdk(server.silent_url, Pipeline(Timeout(SECONDS), Retry(3, wait=backoff.none()))) as ask:
        started = clock.monotonic()
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught:
            ask()

    assert getattr(caught.value, "status_code", None) == 504
    assert clock.monotonic() - started < SECONDS + SLACK


@each_sdk
def test_an_open_breaker_answers_at_once(server: FaultyServer, sdk: Sdk) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    pipeline = Pipeline(breaker)
    server.clear()
    with (
        sdk(server.url, pipeline) as ask,
        pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught,
    ):
        ask()

    assert getattr(caught.value, "status_code", None) == 503
    assert server.connections == 0
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_sdk
def test_a_status_on_which_the_pipeline_has_given_up_is_not_repeated(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    for module in (httpx, httpx2):

        def busy(request: Any, module: Any = module) -> Any:
            sent.append(request.method)
            return module.Response(429, json={})

        monkeypatch.setattr(module.HTTPTransport, "handle_request", lambda self, request, busy=busy: busy(request))

        async def abusy(self: Any, request: Any, busy: Any = busy) -> Any:
            return busy(request)

        monkeypatch.setattr(module.AsyncHTTPTransport, "handle_async_request", abusy)
    pipeline = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    with (
        sdk("http://llm.test", pipeline) as ask,
        pytest.raises((openai.RateLimitError, anthropic.RateLimitError)),
    ):
        ask()

    assert sent == ["POST", "POST"]
    assert pipeline.snapshot()["foreign_retries"] == 0
