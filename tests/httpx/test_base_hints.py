"""What good responses say about a quota: a Cooldown obeys it before the server has to refuse anything."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from resilience import Cooldown, Partition, Pipeline, RateLimitedError
from resilience.httpx import attach
from resilience.testing import VirtualClock
from tests.httpx.helpers import Script, Stream

EXHAUSTED = [
    {"ratelimit": '"default";r=0;t=30'},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"},
    {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"},
    {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30000ms"},
]


def cooldown_after(headers: dict[str, str]) -> Cooldown:
    """Return a Cooldown through which a good response with these headers has passed."""
    cooldown = Cooldown(spread=0.0, max_wait=0.0)
    script = Script(lambda: httpx.Response(200, headers=headers, content=b"fine"))
    client = attach(httpx.Client(transport=script), Pipeline(cooldown))
    assert client.get("http://a.test").text == "fine"
    return cooldown


@pytest.mark.parametrize("headers", EXHAUSTED)
def test_nothing_remaining_closes_the_gate(headers: dict[str, str], virtual_clock: VirtualClock) -> None:
    cooldown = cooldown_after(headers)

    with pytest.raises(RateLimitedError) as caught:
        cooldown.call(int)
    assert caught.value.retry_after == pytest.approx(30.0)
    virtual_clock.advance(31.0)
    assert cooldown.call(int) == 0


@pytest.mark.parametrize(
    "headers", [{}, {"ratelimit": '"default";r=1;t=30'}, {"ratelimit": "garbage"}, {"x-ratelimit-remaining": "0"}]
)
def test_other_headers_do_not(headers: dict[str, str], virtual_clock: VirtualClock) -> None:
    assert cooldown_after(headers).call(int) == 0


def test_so_does_a_streamed_response_of_an_async_client_once_it_has_ended(virtual_clock: VirtualClock) -> None:
    cooldowns = Partition(lambda: Cooldown(spread=0.0, max_wait=0.0))
    pipeline: Pipeline[Any] = Pipeline(cooldowns)

    async def main() -> None:
        response = httpx.Response(200, headers=EXHAUSTED[0], stream=Stream(b"a", b"b"))
        client = attach(httpx.AsyncClient(transport=Script(response)), pipeline)
        async with client.stream("GET", "http://a.test") as streamed:
            await streamed.aread()

    asyncio.run(main())
    with pytest.raises(RateLimitedError):
        pipeline.bind(target="a.test").call(int)
    assert pipeline.bind(target="b.test").call(int) == 0
