"""Decorated functions in frameworks that look at signatures: FastAPI and pytest-asyncio."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from fastapi import FastAPI

from resilience import Pipeline, Retry, backoff


def request(app: Any, path: str, query: str) -> tuple[int, bytes]:
    """Ask an ASGI application, without any client."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_fastapi_route_keeps_its_parameters_and_is_guarded() -> None:
    app = FastAPI()
    pipeline = Pipeline(Retry(3, wait=backoff.none()))
    attempts: list[int] = []

    @app.get("/later")
    @pipeline
    async def later(number: int, name: str = "nobody") -> dict[str, Any]:
        attempts.append(number)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return {"number": number, "name": name}

    @app.get("/plain")
    @pipeline
    def plain(number: int) -> dict[str, Any]:
        return {"number": number}

    assert request(app, "/later", "number=7") == (200, b'{"number":7,"name":"nobody"}')
    assert attempts == [7, 7, 7]
    assert request(app, "/later", "number=x")[0] == 422
    assert request(app, "/plain", "number=8") == (200, b'{"number":8}')
    assert inspect.iscoroutinefunction(later)
    assert not inspect.iscoroutinefunction(plain)


def test_a_decorated_test_runs_under_pytest_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_decorated="""
        import asyncio
        import pytest
        from resilience import Pipeline, Retry, backoff

        calls = []

        @pytest.fixture
        def word():
            return "fine"

        @pytest.mark.asyncio
        @Pipeline(Retry(2, wait=backoff.none()))
        async def test_decorated(word):
            calls.append(word)
            await asyncio.sleep(0)
            if len(calls) < 2:
                raise ConnectionError("down")
            assert calls == ["fine", "fine"]
        """
    )
    result = pytester.runpytest_subprocess(
        "-p", "pytest_asyncio", "-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider"
    )

    result.assert_outcomes(passed=1)
