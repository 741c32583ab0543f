"""Decorating functions, coroutine functions, methods, partials and other callables."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from resilience import Retry, backoff
from tests.support.functions import Flaky
from tests.support.policies import retrying

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestDecorating:
    def test_functions(self) -> None:
        flaky = Flaky()

        @retrying()
        def double(number: int, *, more: int = 0) -> int:
            """Double it."""
            flaky()
            return 2 * number + more

        assert double(4, more=1) == 9
        assert flaky.calls == 2
        assert double.__doc__ == "Double it."
        assert str(inspect.signature(double)) == "(number: int, *, more: int = 0) -> int"
        assert inspect.unwrap(double) is not double
        assert not inspect.iscoroutinefunction(double)

    def test_coroutine_functions(self) -> None:
        flaky = Flaky()

        @retrying()
        async def double(number: int) -> int:
            flaky()
            await asyncio.sleep(0)
            return 2 * number

        assert inspect.iscoroutinefunction(double)
        assert str(inspect.signature(double)) == "(number: int) -> int"
        assert asyncio.run(double(4)) == 8
        assert flaky.calls == 2

    def test_methods(self) -> None:
        pipeline = retrying()

        class Client:
            def __init__(self) -> None:
                self.flaky = Flaky()

            @pipeline
            def get(self, number: int) -> int:
                self.flaky()
                return number

            @pipeline
            async def aget(self, number: int) -> int:
                self.flaky()
                return number

            @pipeline
            @classmethod
            def outside_class(cls, flaky: Flaky) -> str:
                flaky()
                return cls.__name__

            @classmethod
            @pipeline
            def inside_class(cls, flaky: Flaky) -> str:
                flaky()
                return cls.__name__

            @pipeline
            @staticmethod
            def outside_static(flaky: Flaky) -> str:
                flaky()
                return "static"

            @staticmethod
            @pipeline
            def inside_static(flaky: Flaky) -> str:
                flaky()
                return "static"

        client = Client()
        assert client.get(1) == 1
        assert asyncio.run(client.aget(2)) == 2
        assert client.flaky.calls == 4
        assert pipeline.name == "Client.get"
        for owner in (Client, client):
            for name, value in (("class", "Client"), ("static", "static")):
                for side in ("inside", "outside"):
                    flaky = Flaky()
                    assert getattr(owner, f"{side}_{name}")(flaky) == value
                    assert flaky.calls == 2

    def test_objects_with_an_async_call(self) -> None:
        flaky = Flaky()

        class Fetch:
            async def __call__(self) -> int:
                flaky()
                return 5

        guarded = retrying()(Fetch())
        assert inspect.iscoroutinefunction(guarded)
        assert asyncio.run(guarded()) == 5
        assert flaky.calls == 2

    def test_partials(self) -> None:
        async def add(one: int, two: int) -> int:
            return one + two

        pipeline = retrying()
        divide: Callable[..., Any] = functools.partial(divmod, 7)
        divided: Callable[..., Any] = pipeline(divide)
        assert divided(2) == (3, 1)
        guarded = pipeline(functools.partial(functools.partial(add, 1), 2))
        assert inspect.iscoroutinefunction(guarded)
        assert asyncio.run(guarded()) == 3
        assert pipeline.name == "divmod"

    def test_a_policy_alone(self) -> None:
        flaky = Flaky()
        retry = Retry(wait=backoff.none())
        retry(flaky)()
        retry.call(flaky)
        asyncio.run(retry.acall(flaky))
        retry.bind(operation="x").call(flaky)
        assert flaky.calls == 8

    @pytest.mark.parametrize("thing", [Flaky, 5, None, functools.partial(Flaky)])
    def test_classes_and_other_things_are_refused(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="decorates functions"):
            retrying()(thing)
