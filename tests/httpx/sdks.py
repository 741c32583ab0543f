"""Clients of real SDKs, guarded by a pipeline, that a test asks in one way: plain and async ones, of several makers.

They are imported when they are used, and without their types: the quick tests run where not all of them are installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import httpx
import httpx2
import pytest

from resilience._call.caller import Caller
from resilience.httpx import attach
from tests.httpx.model_server import Answer, End, ModelServer, answer, stream

Part: TypeAlias = "str | float | End"
"""Of a stream: a piece of text, a pause in seconds, or where it breaks off."""
TEXT = "of the model"
SSE = "text/event-stream"
MESSAGES = [{"role": "user", "content": "hello"}]
POSTS = ["POST */chat/completions", "POST */messages", "POST */api/chat"]
"""What says, as `idempotent` of `attach`, that these requests may be repeated."""


def load(name: str) -> Any:
    """Import an SDK, and give back their names to the classes of httpx that it exports as its own.

    With another name than httpx's, they would not be known in tests that come later in the same process.
    """
    module: Any = importlib.import_module(name)
    for theirs in (httpx, httpx2):
        for kind in (theirs.BaseTransport, theirs.Timeout):
            kind.__module__ = theirs.__name__
    return module


@dataclass(frozen=True)
class Maker:
    """What the SDKs of different makers do differently.

    Attributes:
        module: the name of its module.
        plain: the name of the class of plain clients.
        asynchronous: that of async clients.
        create: returns the method that asks the model.
        text_of: returns the text in what that method returns.
        part_of: returns the text in an item of what it yields; empty for an item without.
        good: an answer with a text.
        stream: an answer with a text in parts.
        more: arguments of that method.
        repeats: whether it repeats requests by itself.
        settings: the arguments of a client, given the URL and the number of repetitions.
    """

    module: str
    plain: str
    asynchronous: str
    create: Callable[[Any], Any]
    text_of: Callable[[Any], str]
    part_of: Callable[[Any], str]
    good: Callable[[str], Answer]
    stream: Callable[[Iterable[Part]], Answer]
    more: dict[str, Any] = field(default_factory=dict)
    repeats: bool = True
    settings: Callable[[str, int], dict[str, Any]] = lambda url, max_retries: {
        "base_url": url,
        "api_key": "key",
        "max_retries": max_retries,
    }


def _stream(
    parts: Iterable[Part],
    *,
    of_text: Callable[[str], bytes],
    kind: str = SSE,
    before: tuple[bytes, ...] = (),
    after: tuple[bytes, ...] = (),
) -> Answer:
    """Return an answer with a text in parts, what comes before the text, and after it."""
    pieces = [of_text(part) if isinstance(part, str) else part for part in parts]
    return stream(kind, (*before, *pieces, *after))


def _event(payload: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(payload)}\n\n".encode()


def _completion(text: str) -> Answer:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return answer({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def _completion_part(text: str) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


_MESSAGE: dict[str, Any] = {
    "id": "msg",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def _message_event(kind: str, **more: Any) -> bytes:
    return _event({"type": kind, **more}, kind)


def _message_part(text: str) -> bytes:
    return _message_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def _ollama_payload(text: str, *, done: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": "m", "created_at": "2026-10-21T07:28:00Z", "message": message, "done": done}


def _ollama_line(text: str, *, done: bool = False) -> bytes:
    return f"{json.dumps(_ollama_payload(text, done=done))}\n".encode()


OPENAI = Maker(
    *("openai", "OpenAI", "AsyncOpenAI"),
    create=lambda client: client.chat.completions.create,
    text_of=lambda completion: completion.choices[0].message.content,
    part_of=lambda chunk: chunk.choices[0].delta.content,
    good=_completion,
    stream=partial(_stream, of_text=_completion_part, after=(b"data: [DONE]\n\n",)),
)
GROQ = Maker(
    *("groq", "Groq", "AsyncGroq"),
    create=lambda client: client.chat.completions.create,
    text_of=lambda completion: completion.choices[0].message.content,
    part_of=lambda chunk: chunk.choices[0].delta.content,
    good=_completion,
    stream=OPENAI.stream,
)
ANTHROPIC = Maker(
    *("anthropic", "Anthropic", "AsyncAnthropic"),
    create=lambda client: client.messages.create,
    text_of=lambda message: message.content[0].text,
    part_of=lambda event: event.delta.text if event.type == "content_block_delta" else "",
    good=lambda text: answer({**_MESSAGE, "stop_reason": "end_turn", "content": [{"type": "text", "text": text}]}),
    stream=partial(
        _stream,
        of_text=_message_part,
        before=(
            _message_event("message_start", message={**_MESSAGE, "content": []}),
            _message_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ),
        after=(_message_event("message_stop"),),
    ),
    more={"max_tokens": 1},
)
OLLAMA = Maker(
    *("ollama", "Client", "AsyncClient"),
    create=lambda client: client.chat,
    text_of=lambda response: response["message"]["content"],
    part_of=lambda response: response["message"]["content"],
    good=lambda text: answer(_ollama_payload(text, done=True)),
    stream=partial(_stream, of_text=_ollama_line, kind="application/x-ndjson", after=(_ollama_line("", done=True),)),
    repeats=False,
    settings=lambda url, max_retries: {"host": url},
)


@dataclass(frozen=True)
class Chat:
    """A conversation with a model through a guarded client.

    Attributes:
        ask: asks for an answer, and returns its text.
        listen: asks for a stream, calls the given function with each piece of its text as it comes, and closes the
            stream when that returns True; raises what iterating over the stream raises.
    """

    ask: Callable[[], str]
    listen: Callable[[Callable[[str], object]], None]


@dataclass(frozen=True)
class Sdk:
    """An SDK of a maker, of which the plain or the async client is used."""

    maker: Maker
    asynchronous: bool

    def __str__(self) -> str:
        return f"{self.maker.module}{'-async' if self.asynchronous else ''}"

    def good(self, text: str = TEXT) -> Answer:
        """Return a good answer."""
        return self.maker.good(text)

    def stream(self, *parts: Part) -> Answer:
        """Return a streamed answer."""
        return self.maker.stream(parts)

    def error(self, name: str) -> Any:
        """Return the class of its errors of that name."""
        return getattr(load(self.maker.module), name)

    def cause(self, error: BaseException) -> BaseException:
        """Return what an error of the SDK was made of; itself, if it is of the transport.

        Where a stream breaks, openai wraps what it finds, and the others do not.
        """
        theirs = type(error).__module__.partition(".")[0] == self.maker.module
        return error.__cause__ if theirs and error.__cause__ is not None else error

    @contextlib.contextmanager
    def open(self, url: str, pipeline: Caller[Any] | None, *, max_retries: int = 2, **settings: Any) -> Generator[Chat]:
        """Make a client for a server, and guard it with a pipeline and the settings of `attach`.

        With None for the pipeline, it stays as it is.
        """
        self._warm_up()
        with self._client(url, max_retries) as (client, chat):
            if pipeline is not None:
                attach(client._client, pipeline, **settings)
            yield chat

    def _warm_up(self) -> None:
        """Have it import what it imports at the first call, which may take longer than a test allows for."""
        if str(self) in _warm:
            return
        with ModelServer() as server, self._client(server.url, 0) as (_, chat):
            server.script(self.good(), self.stream(TEXT))
            assert chat.ask() == TEXT
            chat.listen(lambda text: False)
        _warm.add(str(self))

    @contextlib.contextmanager
    def _client(self, url: str, max_retries: int) -> Generator[tuple[Any, Chat]]:
        maker = self.maker
        module = load(maker.module)
        client = getattr(module, maker.asynchronous if self.asynchronous else maker.plain)(
            **maker.settings(url, max_retries)
        )
        create = partial(maker.create(client), model="m", messages=MESSAGES, **maker.more)
        if not self.asynchronous:
            with contextlib.closing(client._client):
                yield client, Chat(lambda: maker.text_of(create()), partial(_listen, create, maker.part_of))
            return
        with asyncio.Runner() as runner:
            runner.get_loop()  # made here, its time is real: in virtual time only the waits of the library are not

            async def ask() -> str:
                return maker.text_of(await create())

            def listen(each: Callable[[str], object]) -> None:
                runner.run(_alisten(create, maker.part_of, each))

            try:
                yield client, Chat(lambda: runner.run(ask()), listen)
            finally:
                runner.run(client._client.aclose())


_warm: set[str] = set()


def _listen(create: Any, part_of: Callable[[Any], str], each: Callable[[str], object]) -> None:
    with contextlib.closing(create(stream=True)) as items:
        for text in map(part_of, items):
            if text and each(text):
                return


async def _alisten(create: Any, part_of: Callable[[Any], str], each: Callable[[str], object]) -> None:
    items = await create(stream=True)
    try:
        async for item in items:
            text = part_of(item)
            if text and each(text):
                return
    finally:
        await (items.aclose() if hasattr(items, "aclose") else items.close())


SDKS = [Sdk(maker, asynchronous) for maker in (OPENAI, ANTHROPIC, GROQ, OLLAMA) for asynchronous in (False, True)]
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=str)
each_that_repeats = pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.maker.repeats], ids=str)
