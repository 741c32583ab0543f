"""Servers in processes of their own; see `server_process`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.grpc.server_process import Attempt
from tests.guards.tree import ROOT


class ServerProcess:
    """A process with servers of one kind, "sync" or "aio". May be asked from several threads."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "tests.grpc.server_process", kind]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._mutex = threading.Lock()

    def listen(self, port: int = 0, before: dict[str, int] | None = None) -> int:
        """Start a server; returns its port. `before` has the numbers of attempts that another process has seen."""
        answer: int = self._ask(do="listen", port=port, before=before or {})
        return answer

    def drain(self, port: int, grace: float) -> None:
        """Stop a server: it refuses new calls at once, and cancels the others after `grace` seconds."""
        self._ask(do="stop", port=port, grace=grace)

    def attempts(self, name: str) -> list[Attempt]:
        """Return the attempts of a logical call that have arrived."""
        return [Attempt(**attempt) for attempt in self._ask(do="attempts", id=name)]

    def kill(self) -> None:
        """End the process at once, as the kernel does when there is no memory left."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _ask(self, **command: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._mutex:
            stdin.write(json.dumps(command) + "\n")
            answer = json.loads(stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["reply"]


@contextmanager
def server_process(kind: str) -> Iterator[ServerProcess]:
    """A process with servers for the length of a block."""
    process = ServerProcess(kind)
    try:
        yield process
    finally:
        process.kill()
