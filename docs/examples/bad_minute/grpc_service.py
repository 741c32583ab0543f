"""The gRPC service: generic handlers that take and give bytes, so that nothing is generated."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from docs.examples.bad_minute.process import HOST, Service
from docs.examples.bad_minute.script import CLIENTS, GET, GRPC_SERVICE, ORDER, SCRIPT

THREADS = len(CLIENTS) * max(phase.workers + phase.queue for phase in SCRIPT) + 10  # the queue is the desk's, not ours


class GrpcService(Service):
    """Answers "UNAVAILABLE" where the HTTP service answers 503, or resets a connection."""

    def __init__(self) -> None:
        super().__init__(seed=2)
        self._threads = ThreadPoolExecutor(THREADS)
        self._deaths = 0

    def listen(self) -> None:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._handle)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(GRPC_SERVICE, {GET: handler, ORDER: handler}),)
        )
        if self._server.add_insecure_port(f"{HOST}:{self.port.number}") != self.port.number:
            raise OSError(f"port {self.port.number} is taken")
        self._server.start()

    def die(self) -> None:
        self._deaths += 1
        self._server.stop(None).wait()

    def _handle(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        attempt = request.decode()
        verdict = self.desk.arrive(attempt)
        if verdict.busy:
            context.abort(grpc.StatusCode.UNAVAILABLE, "service: no worker is free")
        deaths = self._deaths
        time.sleep(verdict.wait)
        if deaths != self._deaths:
            context.abort(grpc.StatusCode.UNAVAILABLE, "service: died meanwhile")
        self.desk.done(attempt)
        if verdict.reset:
            context.abort(grpc.StatusCode.UNAVAILABLE, "service: the answer got lost")
        return b"101.5"


if __name__ == "__main__":
    GrpcService().run()
