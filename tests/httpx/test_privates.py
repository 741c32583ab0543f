"""The private attributes of httpx and httpcore: they are there in the installed versions, and named in one file."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import resilience.httpx
from resilience.httpx import _privates as privates
from tests.httpx.helpers import both_modules
from tests.httpx.http2_server import Http2Server
from tests.httpx.server import Server

ROOM = Path(resilience.httpx.__file__).parent
OWN = {"self", "cls", "other", "super()"}
"""Whose private attributes a module may name: those of objects of its own class."""


def foreign(source: str) -> Iterator[str]:
    """Yield each private attribute of something else that a module names, or reads by its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if ast.unparse(node.value) not in OWN:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("getattr", "hasattr", "setattr", ".get")):
            for argument in node.args:
                name: Any = getattr(argument, "value", None)
                if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                    yield name


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.stem)
def test_only_one_module_names_private_attributes_of_others(path: Path) -> None:
    found = set(foreign(path.read_text("utf-8")))

    assert bool(found) == (path.stem == "_privates"), found


@pytest.mark.parametrize(
    "line", ["pool._connections", "getattr(pool, '_http2', None)", "vars(error).get('_request')", "x._y = 1"]
)
def test_the_check_finds_each_way_to_name_one(line: str) -> None:
    assert list(foreign(line))


@both_modules
def test_clients_have_what_is_needed(module: Any) -> None:
    client = module.Client(http2=True, mounts={"http://a.test": module.HTTPTransport()})
    transport, mounts = privates.transports_of(client)

    assert isinstance(transport, module.HTTPTransport)
    assert any(isinstance(one, module.HTTPTransport) for one in mounts.values())
    privates.set_transports(client, transport, {})
    assert privates.transports_of(client) == (transport, {})
    assert privates.url_pattern(module, "all://a.test").matches(module.URL("http://a.test"))
    pool = privates.pool_of(transport)
    assert privates.is_repairable(pool)
    assert privates.may_use_http2(pool)
    assert privates.connections_in(pool) == privates.requests_in(pool) == []
    assert privates.set_connections(pool, []) == []
    backend = privates.backend_of(pool)
    privates.set_backend(pool, backend)
    assert privates.backend_of(pool) is backend is not None
    with privates.lock_of(pool):
        assert list(pool.connections) == []


@both_modules
def test_requests_and_errors_have_it(module: Any) -> None:
    file = io.BytesIO(b"body")
    request = module.Request("PUT", "http://a.test", content=file)

    assert privates.request_content_of(request.stream) is file
    assert privates.was_read(request.stream) is False
    request.read()
    assert privates.was_read(module.Request("PUT", "http://a.test", content=b"body").stream) is None
    assert privates.request_content_of(module.ByteStream(b"body")) == b"body"
    assert privates.request_of(module.ReadError("")) is None
    assert privates.request_of(module.ReadError("", request=request)) is request
    error = module.ReadError("", request=request)
    privates.set_request(error.__dict__, None)
    with pytest.raises(RuntimeError):
        error.request  # noqa: B018 - a property


@pytest.mark.slow
@both_modules
def test_connections_have_it(module: Any) -> None:
    with Http2Server() as server, module.Client(http1=False, http2=True) as client:
        pool = privates.pool_of(privates.transports_of(client)[0])
        with client.stream("GET", f"{server.url}/busy/100") as response:
            (connection,) = privates.connections_in(pool)
            (http2,) = privates.http2_connections(connection)
            state, events, stream = privates.http2_state_of(http2)
            assert privates.network_stream_of(connection) is stream is not None
            assert len(events) == len(privates.requests_in(pool)) == 1
            assert privates.unacknowledged(state) >= 0
            assert response.status_code == 503
        assert list(privates.http2_connections(object())) == []


@pytest.mark.slow
@both_modules
def test_bodies_over_http1_have_it(module: Any) -> None:
    with Server() as server, module.HTTPTransport() as transport:
        found: list[bool] = []
        for path, method in [("good", "GET"), ("chunked", "GET"), ("big", "GET"), ("big", "HEAD")]:
            response = transport.handle_request(module.Request(method, f"{server.url}/{path}"))
            found.append(privates.has_arrived(response.stream))
            response.close()

    assert found == [True, False, False, True]


def test_what_is_missing_is_not_there() -> None:
    other = object()

    assert privates.pool_of(other) is privates.backend_of(other) is privates.network_stream_of(other) is None
    assert privates.pool_request_of(other) is privates.request_content_of(other) is privates.was_read(other) is None
    assert not privates.is_repairable(other)
    assert not privates.may_use_http2(other)
    assert not privates.has_arrived(other)
