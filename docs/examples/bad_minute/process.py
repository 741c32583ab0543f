"""A service in a process of its own: both ends of the pipes between it and the demo.

The demo writes a command a line to the service's standard input, and reads an answer a line from its standard output.
When that input ends, for whatever reason, the service ends too: so none is left behind when the demo dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from docs.examples.bad_minute.desk import Desk
from docs.examples.bad_minute.script import SCRIPT, Phase

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"


class ServiceError(Exception):
    """A service process did not start, or has gone."""


class Port:
    """A port of the operating system's choice, kept while nobody listens on it: whoever connects then is refused."""

    def __init__(self) -> None:
        self._keeper = self._bound(0)
        self.number: int = self._keeper.getsockname()[1]
        if not hasattr(socket, "SO_REUSEPORT"):
            self._keeper.close()  # nothing can be kept there, so that another process might take it

    def listener(self) -> socket.socket:
        """Return a socket bound to the port, to listen on."""
        return self._bound(self.number)

    @staticmethod
    def _bound(port: int) -> socket.socket:
        bound = socket.socket(proto=socket.IPPROTO_TCP)  # named, or else asyncio does not switch Nagle's delays off
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((HOST, port))
        return bound


class Service(ABC):
    """A service as its own process sees it."""

    def __init__(self, seed: int) -> None:
        self.desk = Desk(seed)
        self.port = Port()

    @abstractmethod
    def listen(self) -> None:
        """Start to listen; returns when connections are accepted."""

    @abstractmethod
    def die(self) -> None:
        """Stop listening and break all connections; returns when that is so."""

    def run(self) -> None:
        """Obey the demo until it closes the pipe; never returns."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the demo closes the pipe then
        try:
            self.listen()
            _say(self.port.number)
            alive = True
            for line in sys.stdin:
                command = line.strip()
                if command == "report":
                    _say(self.desk.report())
                    continue
                phase = SCRIPT[int(command)]
                self.desk.enter(phase)
                if phase.alive != alive:
                    (self.listen if phase.alive else self.die)()
                    alive = phase.alive
                _say("entered")
        except BrokenPipeError:
            pass
        finally:
            sys.stderr.flush()
            os._exit(1 if isinstance(sys.exception(), Exception) else 0)  # whatever threads are still at work


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


class Remote:
    """A service as the demo sees it: starts its process, and ends it on leaving the `with` block."""

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = ""

    def started(self) -> None:
        """Wait until the service accepts connections."""
        self.address = f"{HOST}:{self._answer()}"

    def enter(self, phase: Phase) -> None:
        """Have the service go into a phase; returns when it has."""
        self._ask(str(SCRIPT.index(phase)))

    def report(self) -> dict[str, Any]:
        """Ask the service what it has seen."""
        report: dict[str, Any] = self._ask("report")
        return report

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise ServiceError(f"the {self.name} service has gone") from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServiceError(f"the {self.name} service has ended: exit code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, and wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
