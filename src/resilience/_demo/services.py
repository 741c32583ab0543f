"""The services: a real HTTP service, by uvicorn, and a real gRPC service, by grpcio, each behind its gate."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from typing import Any

import grpc
import uvicorn

from resilience._demo.gate import HOST, Gate
from resilience._demo.script import GRPC_SERVICE, ORDER, PHASES, QUOTE, Arm, ServiceName
from resilience._demo.workers import Verdict, Workers
from resilience._util.clock import clock


class Service(ABC):
    """A service of the demo, as its own process has it.

    Args:
        seed: of its random numbers.
    """

    name: ServiceName

    def __init__(self, seed: int) -> None:
        self.workers = Workers(self.name, seed, clock.monotonic)
        self.gate = Gate(self.workers.count)

    async def start(self) -> dict[str, int]:
        """Start to serve; returns the port of each arm."""
        await self.gate.open(await self._serve())
        return {str(arm): port for arm, port in self.gate.ports.items()}

    async def stop(self) -> None:
        """Stop serving."""
        self.gate.close()
        await self._end()

    @abstractmethod
    async def _serve(self) -> int:
        """Start the server; returns its port."""

    @abstractmethod
    async def _end(self) -> None:
        """Stop the server."""

    def command(self, words: list[str]) -> Any:
        """Obey a command of the demo; returns the answer.

        Args:
            words: "begin", "enter" with the number of a phase, or "report".
        """
        match words:
            case ["begin"]:
                self.workers.begin()
            case ["enter", number]:
                phase = PHASES[int(number)]
                self.workers.enter(phase)
                if phase.alive:
                    self.gate.revive()
                else:
                    self.gate.die()
            case ["report"]:
                return self.workers.report()
            case _:
                raise ValueError(f"a service does not know the command {words}")
        return "done"

    async def work(self, call: str, port: int, *, order: bool) -> Verdict | None:
        """Do what a request asks for.

        Args:
            call: the arm and the number of the call, as "bare/12".
            port: the port from which the request came, by which its connection is known.
            order: whether the work is an order.

        Returns:
            None if there will be no answer: the service died, or the connection was reset.
        """
        arm, _, number = call.partition("/")
        verdict = self.workers.arrive(Arm(arm), int(number))
        if verdict.refused:
            return verdict
        await asyncio.sleep(verdict.wait)
        if not self.workers.finish(Arm(arm), int(number), verdict, order=order):
            return None
        if verdict.reset:
            self.gate.reset(port)
            return None
        return verdict


class HttpService(Service):
    """GET /quote and POST /order."""

    name = ServiceName.HTTP

    async def _serve(self) -> int:
        listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, or else asyncio leaves Nagle's algorithm on
        listener.bind((HOST, 0))
        config = uvicorn.Config(
            self._app, interface="asgi3", http="h11", ws="none", lifespan="off", log_level="critical", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise OSError("uvicorn has ended")
            await asyncio.sleep(0.01)
        port: int = listener.getsockname()[1]
        return port

    async def _end(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        await self._serving

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        call = dict(scope["headers"])[b"x-demo-call"].decode()
        verdict = await self.work(call, scope["client"][1], order=scope["path"] == "/order")
        if verdict is None:
            await asyncio.sleep(0)  # the reset first
        status, body = (503, b"no worker is free\n") if verdict is None or verdict.refused else (200, b"101.5\n")
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class GrpcService(Service):
    """The methods Quote and Order. Handlers take and give bytes, so that nothing is generated."""

    name = ServiceName.GRPC

    async def _serve(self) -> int:
        self._server = grpc.aio.server()
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            QUOTE: grpc.unary_unary_rpc_method_handler(self._quote),
            ORDER: grpc.unary_unary_rpc_method_handler(self._order),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GRPC_SERVICE, methods),))
        port = self._server.add_insecure_port(f"{HOST}:0")
        await self._server.start()
        return port

    async def _end(self) -> None:
        await self._server.stop(None)

    async def _quote(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await self._answer(request, context, order=False)

    async def _order(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await self._answer(request, context, order=True)

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes], *, order: bool) -> bytes:
        port = int(context.peer().rpartition(":")[2])
        # A task of its own: work that was taken on is done, also when the client has gone and the handler is cancelled.
        work = asyncio.create_task(self.work(request.decode(), port, order=order))
        _tasks.add(work)
        work.add_done_callback(_tasks.discard)
        verdict = await asyncio.shield(work)
        if verdict is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the service has died")
        elif verdict.refused:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no worker is free")
        return b"101.5"


_tasks: set[asyncio.Task[Any]] = set()
"""The work under way: the event loop alone does not keep tasks alive."""

SERVICES: dict[str, type[Service]] = {str(ServiceName.HTTP): HttpService, str(ServiceName.GRPC): GrpcService}
