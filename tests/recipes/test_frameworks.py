"""The recipes for Flask and Django: errors and deadlines of the pages' middleware, in plain and in coroutine views."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import httpx
import pytest

from resilience import RateLimit, remaining
from resilience.asgi import ResilienceMiddleware
from tests.recipes.pages import definitions

DEADLINE = "x-envoy-expected-rq-timeout-ms"


def of_django(module: str, name: str) -> Any:
    """Return something of Django, which has no types."""
    return getattr(importlib.import_module(f"django{module}"), name)


override_settings = of_django(".test", "override_settings")


@pytest.fixture
def empty() -> RateLimit:
    """A limit that has nothing left for the next 90 s."""
    limit = RateLimit(1, per=90.0, max_wait=0.0)
    with limit.calling():
        return limit


def test_the_handlers_of_flask_answer_with_a_time_to_come_back(empty: RateLimit) -> None:
    app = definitions("flask.md", "@app.errorhandler", until="client = app.test_client()").app

    def limited() -> str:
        with empty.calling():
            return "never"

    app.add_url_rule("/limited", view_func=limited)
    response = app.test_client().get("/limited")
    assert response.status_code == 503
    assert 89 <= int(response.headers["Retry-After"]) <= 90


@pytest.fixture
def django_page(monkeypatch: pytest.MonkeyPatch, empty: RateLimit) -> Any:
    """A project with the middleware of the page, and views that tell what is left to them, or are rejected."""

    settings, path = of_django(".conf", "settings"), of_django(".urls", "path")
    answer, answer_json = of_django(".http", "HttpResponse"), of_django(".http", "JsonResponse")

    def left(request: Any) -> Any:
        return answer_json({"left": remaining()})

    async def left_async(request: Any) -> Any:
        return answer_json({"left": remaining()})

    def limited(request: Any) -> Any:
        with empty.calling():
            return answer()

    async def limited_async(request: Any) -> Any:
        async with empty.calling():
            return answer()

    if not settings.configured:
        settings.configure()
        of_django("", "setup")()
    blocks = ("urlpatterns =", "class AnswerForDependencies", "def inbound_deadline")
    page = definitions("django.md", *blocks, until="if not settings.configured")
    monkeypatch.setitem(sys.modules, "page_of_django", page)
    views = {"left": left, "left-async": left_async, "limited": limited, "limited-async": limited_async}
    vars(page)["urlpatterns"] = [path(name, view) for name, view in views.items()]
    return page


def test_django_under_asgi_has_the_deadline_in_both_kinds_of_views(django_page: Any) -> None:
    async def ask(name: str, **headers: str) -> httpx.Response:
        app = ResilienceMiddleware(of_django(".core.asgi", "get_asgi_application")(), trust=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            return await client.get(f"/{name}", headers=headers)

    middleware = ["page_of_django.AnswerForDependencies"]
    with override_settings(ROOT_URLCONF=django_page, MIDDLEWARE=middleware, ALLOWED_HOSTS=["testserver"]):
        for name in ("left", "left-async"):
            response = asyncio.run(ask(name, **{DEADLINE: "20000"}))
            assert 0 < response.json()["left"] <= 20
        for name in ("limited", "limited-async"):
            response = asyncio.run(ask(name))
            assert response.status_code == 503
            assert 80 <= int(response.headers["Retry-After"]) <= 90


def test_django_under_wsgi_has_the_deadline_in_plain_views(django_page: Any) -> None:
    middleware = [f"page_of_django.{name}" for name in ("inbound_deadline", "AnswerForDependencies")]
    with override_settings(ROOT_URLCONF=django_page, MIDDLEWARE=middleware, ALLOWED_HOSTS=["testserver"]):
        client = of_django(".test", "Client")()
        assert 0 < client.get("/left", headers={DEADLINE: "20000"}).json()["left"] <= 20
        assert 20 < client.get("/left", headers={DEADLINE: "many"}).json()["left"] <= 30
        assert client.get("/limited").status_code == 503
