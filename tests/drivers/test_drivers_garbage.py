"""Calls leave no garbage behind, and keep no arguments alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

from resilience import Pipeline, RejectedError, Retry, backoff
from resilience.testing import virtual_time
from tests.support.garbage import no_collection
from tests.support.turnstile import Turnstile


class Argument:
    pass


def test_a_refusal_keeps_no_arguments_alive() -> None:
    gate = Turnstile(patience=0.001)
    assert gate.take()
    drained = Pipeline(Retry())
    drained.drain(0)
    with no_collection():
        for pipeline in (Pipeline(gate), drained):
            argument = Argument()
            alive = weakref.ref(argument)
            with suppress(RejectedError):
                pipeline.call(print, argument)
            del argument
            assert alive() is None


def test_a_retry_that_slept_leaves_no_garbage() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(0.001)))

    async def main() -> int:
        attempts = 0

        async def flaky(_: Argument) -> str:
            nonlocal attempts
            attempts += 1
            if attempts % 2:
                raise ConnectionError("down")
            return "fine"

        await pipeline.acall(flaky, Argument())
        with no_collection():
            for _ in range(5):
                await pipeline.acall(flaky, Argument())
            return gc.collect()

    with virtual_time():
        assert asyncio.run(main()) == 0
