"""Retries at several levels, which do not multiply."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resilience import Allowlist, Pipeline, Retry
from resilience.events import RetryGivenUp
from resilience.testing import Recorder
from tests.policies.retry.helpers import Down, notes

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class AppError(Exception):
    pass


def layers(function: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    for _ in range(3):
        pipeline = Pipeline[Any](Retry(3, budget=None, **settings), failures=Allowlist(ConnectionError, AppError))
        function = pipeline(function)
    return function


@pytest.mark.usefixtures("clock")
class TestNesting:
    def test_three_layers_make_three_calls(self) -> None:
        down = Down(default=ConnectionError)
        with Recorder(events=[RetryGivenUp]) as recorder, pytest.raises(ConnectionError) as caught:
            layers(down)()
        assert down.calls == 3
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts", "nested", "nested"]
        (note,) = notes(caught.value)
        assert "gave up after 3 attempts" in note
        assert note.count("retries at several levels do not multiply") == 1

    def test_async(self) -> None:
        calls: list[None] = []

        async def down() -> None:
            calls.append(None)
            raise ConnectionError

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await layers(down)()

        asyncio.run(main())
        assert len(calls) == 3

    def test_sync_in_async(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        async def threaded() -> str:
            return await asyncio.to_thread(lambda: inner.call(down))

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await Pipeline(Retry()).acall(threaded)

        asyncio.run(main())
        assert down.calls == 3

    @pytest.mark.filterwarnings("ignore:.*leave one out")
    def test_pipelines_in_a_pipeline(self) -> None:
        down = Down(default=ConnectionError)
        with pytest.raises(ConnectionError):
            Pipeline(Retry(), Pipeline(Retry(), Pipeline(Retry()))).call(down)
        assert down.calls == 3

    @pytest.mark.parametrize("explicitly", [True, False])
    def test_wrapped_in_another_error(self, explicitly: bool) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError as error:
                if explicitly:
                    raise AppError from error
                raise AppError  # noqa: B904 - the context is what this is about

        with pytest.raises(AppError) as caught:
            layers(work)()
        assert down.calls == 3
        assert "an inner Retry had given up on the cause" in notes(caught.value)[0]

    def test_wrapped_from_none_is_another_matter(self) -> None:
        inner = Pipeline(Retry(budget=None))
        down = Down(default=ConnectionError)

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError:
                raise AppError from None

        with pytest.raises(AppError):
            Pipeline(Retry(), failures=AppError).call(work)
        assert down.calls == 9

    def test_in_a_group(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry())

        def work() -> str:
            try:
                return inner.call(down)
            except ConnectionError as error:
                raise ExceptionGroup("several", [error]) from None

        with pytest.raises(ExceptionGroup):
            Pipeline(Retry()).call(work)
        assert down.calls == 3

    def test_bad_results(self) -> None:
        bad = Allowlist.of_results(lambda result: result == {"status": 503})
        made: list[dict[str, int]] = []

        def busy() -> dict[str, int]:
            made.append({"status": 503})
            return made[-1]

        function = busy
        with Recorder(events=[RetryGivenUp]) as recorder:
            for _ in range(3):
                function = Pipeline[Any](Retry(), failures=bad)(function)
            assert function() is made[-1]
        assert len(made) == 3
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts", "nested", "nested"]

    def test_bad_results_in_threads_of_async_code(self) -> None:
        bad = Allowlist.of_results(lambda result: result == [503])
        made: list[list[int]] = []

        def busy() -> list[int]:
            made.append([503])
            return made[-1]

        inner = Pipeline(Retry(), failures=bad)(busy)

        async def main() -> None:
            result = await Pipeline(Retry(), failures=bad).acall(asyncio.to_thread, inner)
            assert result is made[-1]

        asyncio.run(main())
        assert len(made) == 3

    def test_bad_results_async(self) -> None:
        bad = Allowlist.of_results(lambda result: result == [503])
        made: list[list[int]] = []

        async def busy() -> list[int]:
            made.append([503])
            return made[-1]

        async def main() -> None:
            function: Callable[[], Awaitable[list[int]]] = busy
            for _ in range(3):
                pipeline = Pipeline[Any](Retry(), failures=bad)
                function = pipeline.bind()(function)
            assert await function() is made[-1]

        asyncio.run(main())
        assert len(made) == 3

    def test_nested_multiplies(self) -> None:
        down = Down(default=ConnectionError)
        with pytest.raises(ConnectionError):
            layers(down, nested=True)()
        assert down.calls == 27

    def test_one_attempt_leaves_it_to_another_level(self) -> None:
        down = Down(default=ConnectionError)
        inner = Pipeline(Retry(1))
        with pytest.raises(ConnectionError):
            Pipeline(Retry()).call(lambda: inner.call(down))
        assert down.calls == 3

    def test_a_shared_exception_raised_anew_is_retried(self) -> None:
        shared = ConnectionError("always the same")
        pipeline = Pipeline(Retry(), budget=None)
        for _ in range(3):
            down = Down(*[shared] * 5)
            with pytest.raises(ConnectionError) as caught:
                pipeline.call(down)
            assert caught.value is shared
            assert down.calls == 3
            assert len(notes(shared)) == 1
