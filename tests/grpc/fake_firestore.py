"""A Firestore on loopback, and clients of google-cloud-firestore that are guarded by a pipeline: plain and async ones.

The package is imported when it is used, and without its types: the quick tests run where it is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

import resilience.grpc
from resilience import Pipeline
from resilience._call.caller import Caller
from tests.grpc.servers import Abort, hold

_PACKAGE = "google.cloud.firestore_v1"
_TRANSPORTS = f"{_PACKAGE}.services.firestore.transports"
SERVICE = "google.firestore.v1.Firestore"
READS = (f"/{SERVICE}/Get*", f"/{SERVICE}/RunQuery")
"""What says, as `idempotent`, that these RPCs may be repeated."""
DATABASE = "projects/p/databases/d/documents"
NAMED = {"name": f"{DATABASE}/quotes/ada"}
LEFT_TO_THE_SDK: Any = object()
"""In place of the arguments `retry` and `timeout` of a method: its default, by which the SDK retries."""
RETRY_INFO = "grpc-status-details-bin"

Step: TypeAlias = "str | float | Abort | Callable[[Any], Any]"
"""Of an answer: the name of a document, a pause in seconds, how the RPC fails, or a function of the context."""


def services() -> Any:
    """Return the module of the clients."""
    return importlib.import_module(f"{_PACKAGE}.services.firestore")


def transport_class() -> Any:
    """Return the class of the transports of plain clients."""
    return importlib.import_module(f"{_TRANSPORTS}.grpc").FirestoreGrpcTransport


def aio_transport_class() -> Any:
    """Return the class of the transports of async clients."""
    return importlib.import_module(f"{_TRANSPORTS}.grpc_asyncio").FirestoreGrpcAsyncIOTransport


def anonymous() -> Any:
    """Return credentials that are none."""
    return importlib.import_module("google.auth.credentials").AnonymousCredentials()


def errors() -> Any:
    """Return the module of the errors that the SDK raises."""
    return importlib.import_module("google.api_core.exceptions")


def types() -> Any:
    """Return the module of the requests and responses."""
    return importlib.import_module(f"{_PACKAGE}.types")


def retry_info(seconds: float, code: grpc.StatusCode, details: str = "on purpose") -> Any:
    """Return a step that fails with a google.rpc.RetryInfo in the status details."""
    duration: Any = importlib.import_module("google.protobuf.duration_pb2").Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    info = importlib.import_module("google.rpc.error_details_pb2").RetryInfo(retry_delay=duration)
    status: Any = importlib.import_module("google.rpc.status_pb2").Status(code=code.value[0], message=details)
    status.details.add().Pack(info)

    def fail(context: Any) -> None:
        context.set_trailing_metadata(((RETRY_INFO, status.SerializeToString()),))
        context.abort(code, details)

    return fail


@dataclass
class Seen:
    """An RPC that has arrived.

    Attributes:
        method: the name of its method.
        request: its request, or the list of all of them.
        at: when it arrived.
        left: the seconds that it has; a huge number without a deadline.
    """

    method: str
    request: Any
    at: float
    left: float


class Firestore:
    """A server that answers RPCs as it is told. By default it has one document of each name.

    Args:
        credentials: those of a server with TLS.

    Attributes:
        seen: the RPCs that have arrived.
        target: the address.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.seen: list[Seen] = []
        self._answers: list[tuple[Step, ...]] = []
        self._lock = threading.Lock()
        kinds = types()
        document, query = kinds.Document, kinds.RunQueryResponse
        handlers = {
            "GetDocument": grpc.unary_unary_rpc_method_handler(
                lambda request, context: next(self._answer("GetDocument", _document, request, context)),
                kinds.GetDocumentRequest.deserialize,
                document.serialize,
            ),
            "CreateDocument": grpc.unary_unary_rpc_method_handler(
                lambda request, context: next(self._answer("CreateDocument", _document, request, context)),
                kinds.CreateDocumentRequest.deserialize,
                document.serialize,
            ),
            "RunQuery": grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._answer("RunQuery", _found, request, context),
                kinds.RunQueryRequest.deserialize,
                query.serialize,
            ),
            "Write": grpc.stream_stream_rpc_method_handler(
                lambda requests, context: self._answer("Write", _written, list(requests), context),
                kinds.WriteRequest.deserialize,
                kinds.WriteResponse.serialize,
            ),
        }
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def script(self, *answers: Step | tuple[Step, ...]) -> None:
        """Say what the next RPCs are answered with, one after the other."""
        self._answers = [answer if isinstance(answer, tuple) else (answer,) for answer in answers]

    def stop(self) -> None:
        """End all RPCs."""
        self._server.stop(0).wait()

    def _answer(self, method: str, response: Callable[[str], Any], request: Any, context: Any) -> Iterator[Any]:
        with self._lock:
            self.seen.append(Seen(method, request, time.monotonic(), context.time_remaining()))
            answer = self._answers.pop(0) if self._answers else ("a",)
        for step in answer:
            if isinstance(step, str):
                yield response(step)
            elif isinstance(step, Abort):
                if step.pushback is not None:
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", step.pushback),))
                context.abort(step.code, step.details)
            elif callable(step):
                step(context)
            else:
                hold(context, step)


def _document(name: str) -> Any:
    return types().Document(name=name)


def _found(name: str) -> Any:
    return types().RunQueryResponse(document=_document(name))


def _written(name: str) -> Any:
    return types().WriteResponse(stream_id=name)


@dataclass
class Client:
    """A client of Firestore; each method waits for all of its answer.

    Attributes:
        raw: the client of the SDK, for calls that this has no method for.
    """

    raw: Any

    def get(self, **settings: Any) -> str:
        """Get a document, and return its name."""
        found: Any = self._wait(self.raw.get_document(request=NAMED, **_settings(settings)))
        return str(found.name)

    def create(self, **settings: Any) -> str:
        """Create a document, and return its name."""
        request = {"parent": DATABASE, "collection_id": "quotes", "document": {}}
        created: Any = self._wait(self.raw.create_document(request=request, **_settings(settings)))
        return str(created.name)

    def query(self, each: Callable[[str], object] = lambda name: None, **settings: Any) -> list[str]:
        """Read all documents of a query, call `each` with the name of each of them, and return the names."""
        names: list[str] = []
        for response in self.raw.run_query(request={"parent": DATABASE}, **_settings(settings)):
            names.append(response.document.name)
            each(names[-1])
        return names

    def write(self, *stream_ids: str, **settings: Any) -> list[str]:
        """Send these requests on a stream in both directions, and return what comes back."""
        requests = [types().WriteRequest(stream_id=one) for one in stream_ids]
        return [response.stream_id for response in self.raw.write(iter(requests), **_settings(settings))]

    def through(self, pipeline: Pipeline[Any], **settings: Any) -> str:
        """Get a document with a call that passes through another pipeline, and return its name."""
        return pipeline.call(self.get, **settings)

    def _wait(self, answer: Any) -> Any:
        return answer


@dataclass
class AioClient(Client):
    """A client of `grpc.aio`, whose calls run in a loop.

    Attributes:
        runner: has the loop.
    """

    runner: asyncio.Runner

    def query(self, each: Callable[[str], object] = lambda name: None, **settings: Any) -> list[str]:
        """Read all documents of a query, call `each` with the name of each of them, and return the names."""
        names: list[str] = []

        async def read() -> list[str]:
            async for response in await self.raw.run_query(request={"parent": DATABASE}, **_settings(settings)):
                names.append(response.document.name)
                each(names[-1])
            return names

        found: list[str] = self._run(read())
        return found

    def write(self, *stream_ids: str, **settings: Any) -> list[str]:
        """Send these requests on a stream in both directions, and return what comes back."""
        requests = [types().WriteRequest(stream_id=one) for one in stream_ids]

        async def exchange() -> list[str]:
            call = await self.raw.write(iter(requests), **_settings(settings))
            return [response.stream_id async for response in call]

        received: list[str] = self._run(exchange())
        return received

    def through(self, pipeline: Pipeline[Any], **settings: Any) -> str:
        """Get a document with a call that passes through another pipeline, and return its name."""

        async def get() -> Any:
            return await self.raw.get_document(request=NAMED, **_settings(settings))

        return str(self._run(pipeline.acall(get)).name)

    def _wait(self, answer: Any) -> Any:
        return self._run(answer)

    def _run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine, context=copy_context())


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a method: without retries and timeout of the SDK, unless they are given."""
    settings = {"retry": None, "timeout": None, **given}
    return {name: value for name, value in settings.items() if value is not LEFT_TO_THE_SDK}


@contextlib.contextmanager
def plain_client(target: str, pipeline: Caller[Any], **settings: Any) -> Iterator[Client]:
    """A client of the synchronous API on a channel of ours."""
    channel = resilience.grpc.insecure_channel(target, pipeline, **{"idempotent": READS, **settings})
    transport = transport_class()(channel=channel)
    with services().FirestoreClient(transport=transport) as raw:
        yield Client(raw)


@contextlib.contextmanager
def aio_client(target: str, pipeline: Caller[Any], **settings: Any) -> Iterator[AioClient]:
    """A client of `grpc.aio` on a channel of ours."""

    async def make() -> tuple[Any, Any]:
        channel = resilience.grpc.aio.insecure_channel(target, pipeline, **{"idempotent": READS, **settings})
        transport = aio_transport_class()(channel=channel)
        return services().FirestoreAsyncClient(transport=transport), transport

    with asyncio.Runner() as runner:
        raw, transport = runner.run(make())
        try:
            yield AioClient(raw, runner)
        finally:
            runner.run(transport.close())
