"""The recipe for SIGTERM, as its page has it, with real servers: a call that waits between attempts ends at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from resilience import Pipeline
from tests.recipes.pages import code_with, definitions, wait_until

pytestmark = pytest.mark.slow
PAGE = "shutdown.md"
PATIENCE = 30.0
"""How long a response may take, in seconds: half of the wait between two attempts."""

CALLS = """
from pathlib import Path

from resilience import Pipeline, RejectedError, Retry, backoff

waiting = Pipeline(Retry(2, wait=backoff.fixed(60.0)), name="waiting")


def no_answer():
    Path("begun").touch()
    raise ConnectionError("no answer")
"""
ASGI_APP = """
from fastapi.responses import PlainTextResponse


@app.get("/ready")
def ready():
    return "ok"


@app.get("/wait")
async def wait():
    try:
        return await waiting.acall(no_answer)
    except ConnectionError as error:
        await waiting.acall(no_answer) if Path("again").exists() else None
        return PlainTextResponse(error.__notes__[0], 502)
"""
PLAIN_ASGI_APP = """
async def plain(scope, receive, send):
    assert scope["type"] == "http"
    status, answer = 200, "ok"
    if scope["path"] == "/wait":
        try:
            await waiting.acall(no_answer)
        except ConnectionError as error:
            status, answer = 502, error.__notes__[0]
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": answer.encode()})


app = WithShutdown(plain)
"""
WSGI_APP = """
def app(environ, start_response):
    status, answer = "200 OK", "ok"
    if environ["PATH_INFO"] == "/wait":
        try:
            waiting.call(no_answer)
        except ConnectionError as error:
            status, answer = "502 Bad Gateway", error.__notes__[0]
    start_response(status, [("Content-Type", "text/plain")])
    return [answer.encode()]
"""
UVICORN = ("uvicorn", "app:app", "--log-level", "error", "--port")
GUNICORN = ("gunicorn", "app:app", "--config", "gunicorn.conf.py", "--log-level", "error", "--no-control-socket", "-b")


def write(folder: Path) -> None:
    """Write the modules of the page, and applications that use them."""
    (folder / "shutdown.py").write_text(code_with(PAGE, "def drain_on"))
    head = "from shutdown import drain_on\n"
    (folder / "gunicorn.conf.py").write_text(head + code_with(PAGE, "def post_worker_init"))
    (folder / "asgi").mkdir()
    (folder / "asgi" / "app.py").write_text(head + code_with(PAGE, "def lifespan") + CALLS + ASGI_APP)
    (folder / "plain").mkdir()
    (folder / "plain" / "app.py").write_text(head + code_with(PAGE, "class WithShutdown") + CALLS + PLAIN_ASGI_APP)
    (folder / "wsgi").mkdir()
    (folder / "wsgi" / "app.py").write_text(CALLS + WSGI_APP)


@contextmanager
def served(folder: Path, kind: str, command: tuple[str, ...]) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """Serve one of the applications; yield a client and the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    address = str(port) if command[-1] == "--port" else f"127.0.0.1:{port}"
    path = ["--app-dir", kind] if command is UVICORN else ["--pythonpath", kind]
    process = subprocess.Popen([sys.executable, "-m", *command, address, *path], cwd=folder, start_new_session=True)
    once = {"Connection": "close"}
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False, headers=once
        ) as client:
            wait_until(lambda: answers(client))
            yield client, process
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        pytest.param("asgi", UVICORN, id="uvicorn"),
        pytest.param("plain", UVICORN, id="uvicorn, an application without a lifespan"),
        pytest.param("wsgi", (*GUNICORN[:2], "-k", "sync", *GUNICORN[2:]), id="sync"),
        pytest.param("wsgi", (*GUNICORN[:2], "-k", "gthread", "--threads", "2", *GUNICORN[2:]), id="gthread"),
    ],
)
def test_a_wait_between_attempts_ends_with_the_signal(tmp_path: Path, kind: str, command: tuple[str, ...]) -> None:
    write(tmp_path)
    with served(tmp_path, kind, command) as (client, process), ThreadPoolExecutor(1) as pool:
        response = pool.submit(client.get, "/wait")
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)

        assert response.result().status_code == 502
        assert response.result().text == "resilience: attempt 2 not made: draining"
        process.wait(PATIENCE)


def test_a_call_that_begins_after_the_signal_is_rejected(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "again").touch()
    with served(tmp_path, "asgi", UVICORN) as (client, process), ThreadPoolExecutor(1) as pool:
        response = pool.submit(client.get, "/wait")
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)

        assert response.result().status_code == 503
        assert response.result().headers["x-should-retry"] == "false"


def test_nothing_is_installed_where_no_signal_arrives_or_nothing_would_handle_it() -> None:
    drain_on = definitions(PAGE, "def drain_on").drain_on
    before = signal.getsignal(signal.SIGURG)
    thread = threading.Thread(target=drain_on, args=(signal.SIGURG,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGURG) is before

    with pytest.raises(RuntimeError, match="has set its own handler"):
        drain_on(signal.SIGURG)


def test_a_signal_drains_and_does_what_it_did_before() -> None:
    page = definitions(PAGE, "def drain_on")
    pipeline = Pipeline(name="drained-by-a-signal")
    page.pipelines = lambda: {"drained-by-a-signal": pipeline}  # not those of other tests
    slept: list[float] = []
    page.time = SimpleNamespace(sleep=slept.append)
    numbers: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: numbers.append(number))
    try:
        page.drain_on(signal.SIGURG, grace=2.5)
        signal.raise_signal(signal.SIGURG)
        wait_until(lambda: pipeline.snapshot()["draining"])
    finally:
        signal.signal(signal.SIGURG, before)
    assert (numbers, slept) == ([signal.SIGURG], [2.5])
