"""The demo as a whole: it ends in time, its numbers add up, and it leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from resilience._demo import command, remote
from resilience._demo.command import main, parser, plan_of
from resilience._demo.run import Plan, Result
from resilience._demo.script import Arm, ServiceName
from tests.demo import made

SOON = 30.0
"""Seconds within which a process that is ended has to end, on a busy machine."""


def plan_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        plan_of(parser().parse_args(arguments), parser())
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "--seconds must be greater than 0"),
        (["--rate", "5"], "--rate and --arm are for a service of yours"),
        (["--attempt-timeout", "0"], "--attempt-timeout must be greater than 0"),
        (["--attempt-timeout", "1"], "--attempt-timeout is for a service of yours"),
        (["--url", "http://a.test"], "give --rate"),
        (["--url", "http://a.test", "--rate", "-1", "--seconds", "1"], "give --rate"),
        (["--grpc-target", "a.test:1", "--quick", "--rate", "1", "--seconds", "1"], "--verify and --quick are for"),
    ],
)
def test_options_that_contradict_each_other(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in plan_error(capsys, *arguments)


def test_the_plan_of_the_options() -> None:
    def plan(*arguments: str) -> Plan:
        return plan_of(parser().parse_args(arguments), parser())

    assert (plan().seconds, plan().timeouts.attempt) == (34.0, 1.0)
    assert (round(plan("--quick").seconds, 6), plan("--quick").timeouts.attempt) == (10.0, 0.5)
    assert plan("--seconds", "17", "--seed", "5").day[-1].start == 13.5
    own = plan("--url", "http://a.test", "--grpc-target", "b.test:1", "--rate", "2", "--seconds", "3", "--arm", "bare")
    assert (own.services, own.arms, own.rate, own.seconds) == (list(ServiceName), [Arm.BARE], 2.0, 3.0)
    assert own.own[1].method == "/grpc.health.v1.Health/Check"


def test_verify_runs_five_seeds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seeds: list[int] = []

    async def run(plan: Plan, view: object) -> Result:
        seeds.append(plan.seed)
        result = made.result()
        for report in result.seen.values():
            report[Arm.STANDARD]["doubled"] = doubled
        return result

    monkeypatch.setattr(command, "run", run)
    doubled = 0
    assert main(["--verify", "--seed", "3"]) == 0
    assert seeds == [3, 4, 5, 6, 7]
    doubled = 1
    assert main(["--verify", "--plain"]) == 1
    assert "standard doubled 2 orders" in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "plots.svg"

    assert main(["--quick", "--seconds", "4", "--report", str(page), "--svg", str(picture)]) == 0

    lines = capsys.readouterr().out.splitlines()
    phases = ["healthy", "brownout", "503s", "resets", "dead", "healthy again"]
    entered = [line.split("s  ")[1].split(":")[0] for line in lines if "  s  " not in line and "s  " in line[:10]]
    assert [line for line in entered if line in phases] == phases
    assert sum("by standard" in line for line in lines) == 1
    assert "Orders carried out twice: 0 by standard" in "\n".join(lines)
    totals = [line.split() for line in lines if " all " in line or line.split()[:1] == ["tenacity"]]
    assert totals
    cells = [line.split()[-7:] for line in lines if line.split()[-7:-6] == ["standard"]]
    assert len(cells) == 2 * 7
    for _, calls, served, failed, *_ in cells:
        assert int(calls) == int(served) + int(failed)
    assert picture.read_text("utf-8") in page.read_text("utf-8")


@contextlib.contextmanager
def http_server() -> Generator[str]:
    """A server that is not of the demo; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def grpc_server() -> Generator[str]:
    """A gRPC server that is not of the demo, with the method /own.Service/Ask; yields its target."""

    def ask(request: bytes, context: grpc.ServicerContext) -> bytes:
        assert request == b""
        return b""

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(ask)
    with futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own.Service", {"Ask": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.slow
def test_services_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "own.html"
    with http_server() as url, grpc_server() as target:
        own = ["--url", f"{url}/well", "--grpc-target", target, "--grpc-method", "/own.Service/Ask"]
        assert main([*own, "--rate", "15", "--seconds", "0.7", "--report", str(page)]) == 0

    out = capsys.readouterr().out
    served = [line for line in out.splitlines() if line.startswith("Of ")]
    number = served[0].split()[1]
    assert f"standard served {number}, tenacity served {number} and bare served {number}" in served[0]
    assert "Orders" not in out
    assert f"{url}/well and {target}" in page.read_text("utf-8")


@pytest.mark.slow
def test_a_service_of_the_user_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server() as url:
        own = ["--url", f"{url}/ill", "--rate", "10", "--seconds", "0.5", "--arm", "bare", "--no-report"]
        assert main(own) == 0

    assert "bare served 0." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "demo: the http service has ended, exit code 3"),
        ("import time; time.sleep(60)", "demo: the http service did not answer within 1 s"),
    ],
)
def test_services_that_do_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    monkeypatch.setattr(remote, "COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(remote, "START_TIMEOUT", 5.0 if "Exit" in code else 0.5)
    monkeypatch.setattr(remote, "END_TIMEOUT", 0.1)

    assert main(["--quick", "--no-report"]) == 2
    assert message in capsys.readouterr().err.replace("within 0 s", "within 1 s")


@pytest.mark.slow
def test_a_service_that_goes_away(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.stdin.readline() and print('{}', flush=True)"
    gone = f'print(\'{{"bare": 1, "tenacity": 1, "standard": 1}}\', flush=True); {code}'
    monkeypatch.setattr(remote, "COMMAND", (sys.executable, "-c", gone))

    async def run() -> None:
        async with remote.services(1) as running:
            await running[0].begin()
            with pytest.raises(remote.ServiceError, match="the http service has"):
                await running[0].report()

    asyncio.run(run())


@contextlib.contextmanager
def demo() -> Generator[subprocess.Popen[str]]:
    """Start the demo as the leader of a process group, as a shell would."""
    words = [sys.executable, "-m", "resilience", "demo", "--quick", "--no-report"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), 130, id="Ctrl-C"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGKILL), -9, id="a crash"),
    ],
)
def test_no_process_is_left_when_the_demo_is_ended(end: Callable[[int], None], expected: int) -> None:
    with demo() as process:
        assert process.stdout is not None
        assert any("brownout: " in line for line in process.stdout)

        end(process.pid)
        # The services have inherited stderr, which ends when the last of them has ended.
        _, complaints = process.communicate(timeout=SOON)

    assert (process.returncode, complaints) == (expected, "")
