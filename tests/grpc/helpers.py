"""How the tests of gRPC call a server: plainly, with the call, as a future, on `grpc.aio`; and its errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import backoff
from resilience._call.caller import Caller
from tests.grpc.servers import OPTIONS, Abort, Service, stub_of, wait_until

Code = grpc.StatusCode
SOON = backoff.fixed(0.001)
UNAVAILABLE = Abort(Code.UNAVAILABLE)
Rpc = Callable[..., Any]


def failed(code: Code, details: str = "", pushback: str | None = None) -> grpc.aio.AioRpcError:
    """An error with this status, and perhaps with a pushback in its metadata."""
    trailing = grpc.aio.Metadata() if pushback is None else grpc.aio.Metadata(("grpc-retry-pushback-ms", pushback))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


def plain(stub: Any, *args: Any, **kwargs: Any) -> Any:
    return stub(*args, **kwargs)


def with_call(stub: Any, *args: Any, **kwargs: Any) -> Any:
    response, call = stub.with_call(*args, **kwargs)
    assert call.code() is Code.OK
    return response


def future(stub: Any, *args: Any, **kwargs: Any) -> Any:
    return stub.future(*args, **kwargs).result()


def failed_with(code: Code, *trailing: tuple[str, Any]) -> grpc.aio.AioRpcError:
    """An error with this status and trailing metadata."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), "")


ways = pytest.mark.parametrize("way", [plain, with_call, future])


def stub(service: Service, pipeline: Caller[Any], method: str = "Get", **kwargs: Any) -> Any:
    """What calls a method through a guarded channel; "Get" is idempotent unless `idempotent` says otherwise."""
    kwargs = {"idempotent": "*/Get", "options": OPTIONS, **kwargs}
    return stub_of(resilience.grpc.insecure_channel(service.target, pipeline, **kwargs), method)


def run(
    service: Service,
    pipeline: Caller[Any] | None,
    body: Callable[[Any], Any],
    method: str = "Get",
    **kwargs: Any,
) -> Any:
    """Run a coroutine function with what calls a method through a guarded channel of `grpc.aio`."""
    kwargs = {"idempotent": "*/Get", "options": OPTIONS, **kwargs}

    async def main() -> Any:
        async with resilience.grpc.aio.insecure_channel(service.target, pipeline, **kwargs) as channel:
            return await body(stub_of(channel, method))

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> bool:
    """Wait for something to come true; returns whether it did."""
    return await asyncio.to_thread(wait_until, condition)
