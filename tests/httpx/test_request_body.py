"""The bodies of requests: sent again right, or not at all, and never empty."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resilience import Hedge, Pipeline, Timeout
from resilience.events import HedgeStarted, RetryGivenUp
from resilience.httpx import attach, options
from resilience.testing import FaultyServer, Recorder
from tests.httpx.helpers import Ask, Script, both_modules, retrying


class Lines:
    """An iterable of a user's own, which begins anew."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"by"
        yield b"tes"


class AsyncLines:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"by"
        yield b"tes"


class Resource(Lines):
    """What can be closed can be at its end."""

    def close(self) -> None:
        pass


class AsyncFile(AsyncLines):
    """As the files of anyio: its position moves."""

    async def read(self) -> bytes:
        return b"bytes"


class Pipe(io.RawIOBase):
    """A file that is not seekable."""

    def __init__(self) -> None:
        self.left = b"bytes"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = len(self.left)
        buffer[:count], self.left = self.left, b""
        return count


class LyingPipe(Pipe):
    """Says that it is seekable, and is not."""

    def seekable(self) -> bool:
        return True


def spooled() -> Any:
    file: Any = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(b"bytes")
    file.seek(0)
    return file


def part_read(content: bytes = b"--bytes") -> io.BytesIO:
    file = io.BytesIO(content)
    file.seek(2)
    return file


REPLAYED: list[Callable[[], Any]] = [Lines, lambda: [b"by", b"tes"], lambda: io.BytesIO(b"bytes"), part_read, spooled]
REPLAYED_IDS = ["iterable", "list", "file", "file-read-in-part", "spooled"]
ONCE: list[Callable[[], Any]] = [
    Resource,
    Pipe,
    LyingPipe,
    lambda: iter([b"bytes"]),
    lambda: map(bytes, [list(b"bytes")]),
]


@pytest.mark.parametrize("make", REPLAYED, ids=REPLAYED_IDS)
def test_what_can_be_read_again_is_sent_again(make: Callable[[], Any]) -> None:
    script = Script(503, 503, 200)
    # A length would be that of the whole file, for which httpx has no way to begin in its middle.
    headers = {"transfer-encoding": "chunked"}

    content = make()
    assert Ask("sync")(retrying(), script, "PUT", content=content, headers=headers).status_code == 200
    if hasattr(content, "close"):
        content.close()

    assert script.bodies == [b"bytes"] * 3


@pytest.mark.parametrize("make", ONCE)
def test_what_cannot_be_is_sent_once(make: Callable[[], Any]) -> None:
    script = Script(503, 200)
    pipeline = retrying()

    with Recorder(pipeline, events=[RetryGivenUp]) as recorder:
        assert Ask("sync")(pipeline, script, "PUT", content=make()).status_code == 503

    assert script.bodies == [b"bytes"]
    assert [event.reason for event in recorder.of(RetryGivenUp)] == ["body_not_replayable"]


@pytest.mark.parametrize("way", ["asyncio", "trio"])
@pytest.mark.parametrize(("make", "times"), [(AsyncLines, 2), (AsyncFile, 1)])
def test_async_bodies(make: Callable[[], Any], times: int, way: str) -> None:
    script = Script(503, 200)

    Ask(way)(retrying(), script, "PUT", content=make())

    assert script.bodies == [b"bytes"] * times


def test_a_closed_file_fails_as_without_the_library() -> None:
    file = io.BytesIO(b"bytes")
    file.close()

    with pytest.raises(ValueError, match="closed file"):
        Ask("sync")(retrying(), Script(200), "PUT", content=file, headers={"transfer-encoding": "chunked"})


@both_modules
def test_a_file_is_sent_again_after_a_redirect(module: Any) -> None:
    bodies: list[bytes] = []

    def serve(request: Any) -> Any:
        bodies.append(request.read())
        if request.url.path == "/old":
            return module.Response(307, headers={"location": "/new"})
        return module.Response(200)

    client = attach(module.Client(transport=module.MockTransport(serve), follow_redirects=True), retrying())
    headers = {"transfer-encoding": "chunked"}

    assert client.put("http://a.test/old", content=part_read(), headers=headers).status_code == 200
    assert bodies == [b"bytes", b"bytes"]
    with pytest.raises(module.StreamConsumed):
        client.put("http://a.test/old", content=Pipe(), headers=headers)
    assert bodies == [b"bytes"] * 3


@pytest.mark.parametrize(
    ("arguments", "hedged"),
    [
        ({"content": b"bytes"}, True),
        ({"content": Lines()}, True),
        ({"files": {"a": b"bytes"}}, True),
        ({"content": io.BytesIO(b"bytes")}, False),
        ({"files": {"a": io.BytesIO(b"bytes")}}, False),
    ],
)
def test_two_attempts_never_read_one_file_at_the_same_time(arguments: dict[str, Any], hedged: bool) -> None:
    pipeline: Pipeline[Any] = Pipeline(Hedge(after=0))
    client = attach(httpx.Client(transport=Script(200)), pipeline)

    with Recorder(pipeline, events=[HedgeStarted]) as recorder:
        client.put("http://a.test", extensions=options(idempotent=True), **arguments)

    assert len(recorder.of(HedgeStarted)) == (1 if hedged else 0)


@pytest.mark.parametrize("content", [io.BytesIO(b"bytes"), Lines()])
def test_a_file_that_an_abandoned_thread_may_still_read_is_not_sent_again(content: Any) -> None:
    script = Script(503, 200)
    pipeline = retrying(Timeout(5.0, thread=True))
    headers = {"transfer-encoding": "chunked"}

    Ask("sync")(pipeline, script, "PUT", content=content, headers=headers)

    assert script.bodies == [b"bytes"] * (2 if isinstance(content, Lines) else 1)


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_upload_reaches_a_server_whole_each_time(module: Any, way: str, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"0123456789" * 20_000)

    class Upload:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield path.read_bytes()

    async def main(url: str) -> Any:
        async with attach(module.AsyncClient(), retrying()) as client:
            return await client.put(url, content=Upload())

    with FaultyServer() as server:
        url = f"{server.url}/fail-then-ok?failures=2&fault=503"
        if way == "async":
            response = asyncio.run(main(url))
        else:
            with path.open("rb") as file, attach(module.Client(), retrying()) as client:
                response = client.put(url, content=file)
        received = [(request.body_length, request.complete) for request in server.requests]

    assert response.status_code == 200
    assert received == [(200_000, True)] * 3
