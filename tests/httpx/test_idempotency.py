"""What may be repeated beyond the method: patterns, and keys."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilience import CircuitBreaker, Hedge, Pipeline, Timeout
from resilience.httpx import IdempotencyKey, attach
from tests.httpx.helpers import Script, retrying


def requests_of(method: str, url: str, headers: dict[str, str] | None = None, **settings: Any) -> list[httpx.Request]:
    """Return what is sent for one request to a server that always fails."""
    script = Script(500)
    attach(httpx.Client(transport=script), retrying(), **settings).request(method, url, headers=headers)
    return script.requests


@pytest.mark.parametrize(
    ("method", "url", "attempts"),
    [
        ("POST", "http://a.test/logs/_search?q=1", 3),
        ("POST", "http://a.test/logs/_doc", 1),
        ("PATCH", "http://a.test/logs/_search", 1),
        ("PATCH", "http://a.test/any/thing", 3),
        ("POST", "http://a.test/points/query", 3),
        ("POST", "http://a.test/points/query/more", 1),
    ],
)
def test_patterns_of_method_and_path(method: str, url: str, attempts: int) -> None:
    patterns = ["POST */_search", "POST */points/query", "* /any/*"]

    assert len(requests_of(method, url, idempotent=patterns)) == attempts


def test_one_pattern_may_be_given_alone() -> None:
    assert len(requests_of("POST", "http://a.test/_search", idempotent="POST */_search")) == 3


@pytest.mark.parametrize("method", ["QUERY", "PROPFIND", "REPORT", "SEARCH", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_methods(method: str) -> None:
    assert len(requests_of(method, "http://a.test")) == 3


@pytest.mark.parametrize(("key", "attempts"), [("abc", 3), ("", 1)])
def test_a_key_of_the_caller_permits_repetitions_unless_it_is_empty(key: str, attempts: int) -> None:
    assert len(requests_of("POST", "http://a.test", {"Idempotency-Key": key})) == attempts


def test_all_attempts_of_a_call_send_one_key_and_each_call_has_its_own() -> None:
    keys = IdempotencyKey("a.test")
    first = [
        request.headers["idempotency-key"] for request in requests_of("POST", "http://a.test", idempotency_key=keys)
    ]
    second = [
        request.headers["idempotency-key"] for request in requests_of("POST", "http://a.test", idempotency_key=keys)
    ]

    assert (len(first), len(set(first)), len(second), len(set(second))) == (3, 1, 3, 1)
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("POST", "http://other.test", {}),
        ("POST", "http://a.test:8080", {}),
        ("GET", "http://a.test:8000", {}),
    ],
)
def test_no_key_goes_elsewhere(method: str, url: str, headers: dict[str, str]) -> None:
    sent = requests_of(method, url, headers, idempotency_key=IdempotencyKey(["a.test:8000"]))

    assert all("idempotency-key" not in request.headers for request in sent)


def test_a_key_of_the_caller_is_kept() -> None:
    sent = requests_of("POST", "http://a.test", {"Idempotency-Key": "mine"}, idempotency_key=IdempotencyKey("a.test"))

    assert [request.headers["idempotency-key"] for request in sent] == ["mine"] * 3


def test_the_request_of_the_caller_stays_unchanged() -> None:
    client = attach(httpx.Client(transport=Script(200)), retrying(), idempotency_key=IdempotencyKey("a.test:443"))
    request = client.build_request("POST", "https://a.test")
    client.send(request)

    assert "idempotency-key" not in request.headers


def test_header_methods_and_form_can_be_chosen() -> None:
    keys = IdempotencyKey("a.test", header="X-Request-Key", methods=["POST"], make=lambda: '"k1"')
    assert [one.headers["x-request-key"] for one in requests_of("POST", "http://a.test", idempotency_key=keys)] == [
        '"k1"'
    ] * 3
    assert "x-request-key" not in requests_of("PATCH", "http://a.test", idempotency_key=keys)[0].headers


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"methods": []}, ValueError, "methods must be one or more"),
        ({"methods": ["post"]}, ValueError, "in capital letters"),
        ({"methods": 3}, TypeError, "methods must be methods"),
        ({"header": "a b"}, ValueError, "name of a header"),
        ({"header": "x:y"}, ValueError, "name of a header"),
        ({"header": ""}, ValueError, "header"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        IdempotencyKey("a.test", **settings)


@pytest.mark.parametrize("made", ["", " ", "a\r\nX: y", "\u00e9", 5, None])
def test_a_bad_key_is_refused_and_nothing_is_sent(made: Any) -> None:
    script = Script(500)
    client = attach(
        httpx.Client(transport=script), retrying(), idempotency_key=IdempotencyKey("a.test", make=lambda: made)
    )

    with pytest.raises(TypeError, match="visible ASCII"):
        client.post("http://a.test")
    assert script.requests == []


def test_one_method_may_be_given_alone() -> None:
    assert len(requests_of("POST", "http://a.test", idempotency_key=IdempotencyKey("a.test", methods="POST"))) == 3


def test_a_key_of_the_caller_in_another_header_counts() -> None:
    keys = IdempotencyKey("a.test", header="X-Key")
    sent = requests_of("POST", "http://a.test", {"X-Key": "mine"}, idempotency_key=keys)

    assert [request.headers["x-key"] for request in sent] == ["mine"] * 3


def test_a_redirect_has_the_same_key_and_other_hosts_have_none() -> None:
    def move(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("idempotency-key")))
        target = {"/1": "http://a.test/2", "/2": "http://b.test/3"}.get(request.url.path)
        return httpx.Response(200) if target is None else httpx.Response(307, headers={"location": target})

    seen: list[tuple[str, str | None]] = []
    client = httpx.Client(transport=httpx.MockTransport(move), follow_redirects=True)
    attach(client, retrying(), idempotency_key=IdempotencyKey("a.test"))
    client.post("http://a.test/1", content=b"order")

    assert seen[0] == seen[1]
    assert seen[2] == ("b.test", None)


def test_a_request_that_is_sent_again_is_another_call() -> None:
    script = Script(200)
    client = attach(httpx.Client(transport=script), retrying(), idempotency_key=IdempotencyKey("a.test"))
    request = client.build_request("POST", "http://a.test")
    client.send(request)
    client.send(request)

    assert len({sent.headers["idempotency-key"] for sent in script.requests}) == 2


def test_a_key_is_made_once_for_each_call() -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return f"key-{len(made)}"

    pipeline = Pipeline(Timeout(5.0, thread=True), Hedge(0), budget=None).bind(idempotent=True)
    client = attach(httpx.Client(transport=Script(200)), pipeline, idempotency_key=IdempotencyKey("a.test", make=make))
    client.post("http://a.test")

    assert len(made) == 1


def test_a_maker_that_is_no_callable_is_refused() -> None:
    make: Any = "k"
    with pytest.raises(TypeError, match="make must be a callable"):
        IdempotencyKey("a.test", make=make)
    assert repr(IdempotencyKey("a.test")) == "IdempotencyKey(['a.test'], header='Idempotency-Key')"


@pytest.mark.parametrize(("keys", "attempts"), [(IdempotencyKey("a.test"), 3), (None, 1)])
def test_a_conflict_with_a_key_of_ours_is_repeated_since_the_first_request_may_still_run(
    keys: IdempotencyKey | None, attempts: int
) -> None:
    script = Script(409)
    breaker = CircuitBreaker()
    client = attach(httpx.Client(transport=script), retrying(breaker), idempotency_key=keys)

    own = {"Idempotency-Key": "mine"} if keys is None else {}
    assert client.post("http://a.test", headers=own).status_code == 409
    assert len(script.requests) == attempts
    assert breaker.snapshot()["failures"] == 0
