"""The process of a service: `python -m resilience._demo.child http 7`, with the name of the service and a seed.

The demo writes a command a line to its standard input, and reads an answer a line, as JSON, from its standard output.
When that input ends, for whatever reason, the process ends, too: so none is left when the demo is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from resilience._demo.services import SERVICES


def serve(arguments: Sequence[str], commands: Iterable[str], answers: TextIO) -> None:
    """Run a service, and obey commands, until there are no more.

    Args:
        arguments: the name of the service, and the seed.
        commands: one a line.
        answers: gets one a line: at first the port of each arm.
    """
    name, seed = arguments
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)  # not the main thread, where uvicorn wants signals
    thread.start()

    async def obey(words: list[str]) -> Any:
        return service.command(words)

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    async def make() -> tuple[Any, dict[str, int]]:
        made = SERVICES[name](int(seed))
        return made, await made.start()

    service, ports = asyncio.run_coroutine_threadsafe(make(), loop).result()
    say(ports)
    for line in commands:
        say(asyncio.run_coroutine_threadsafe(obey(line.split()), loop).result())
    asyncio.run_coroutine_threadsafe(service.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def main() -> None:
    """Serve until standard input ends; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too; the demo closes the pipe then
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    code = 1
    try:
        serve(sys.argv[1:], sys.stdin, sys.stdout)
        code = 0
    except BrokenPipeError:
        code = 0
    except BaseException as error:
        print(f"demo: the service {' '.join(sys.argv[1:])} failed: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)  # whatever requests are still under way


if __name__ == "__main__":
    main()
