"""A Prometheus server, from the Debian package `prometheus`, and what is asked of it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

Series = dict[str, list[tuple[float, float]]]
"""The points of lines by their legends."""


class Server:
    """A running server.

    Args:
        client: sends requests to it.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of the API, which must be without an error and without a warning."""
        answer = self._client.get(f"/api/v1/{path}", params={name: str(value) for name, value in parameters.items()})
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body}"
        assert not body.get("warnings"), f"{parameters}: {body}"
        return body["data"]

    def now(self, query: str, **parameters: object) -> list[tuple[dict[str, str], float]]:
        """Evaluate a query; return the labels and values that are numbers."""
        result = self.ask("query", query=query, **parameters)["result"]
        values = [(one["metric"], float(one["value"][1])) for one in result]
        return [(labels, value) for labels, value in values if value == value]

    def number(self, query: str) -> float:
        """Evaluate a query that has one value; 0 if it has none yet."""
        return sum(value for _, value in self.now(query))

    def over(self, query: str, start: float, end: float, step: float, legend: str = "") -> Series:
        """Evaluate a query for each step of a time; return the points that are numbers."""
        found: Series = {}
        for one in self.ask("query_range", query=query, start=start, end=end, step=step)["result"]:
            points = [(at, float(value)) for at, value in one["values"]]
            found[legend_of(one["metric"], legend)] = [point for point in points if point[1] == point[1]]
        return found

    def is_ready(self) -> bool:
        """Return whether it answers queries."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(folder: Path, configuration: str = "") -> Generator[Server]:
    """Run a server on the loopback interface.

    Args:
        folder: where its files are; the blocks in its folder `data` are served.
        configuration: the contents of its configuration file.
    """
    (folder / "prometheus.yml").write_text(configuration, "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",  # what is served may be from any day
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            server = Server(client)
            for _ in range(600):
                if server.is_ready():
                    break
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                    raise RuntimeError((folder / "log").read_text("utf-8"))
            yield server
    finally:
        process.terminate()
        process.wait(30)


def backfill(folder: Path, samples: Iterable[str]) -> None:
    """Write samples of the past into the folder of a server that is not running yet.

    Args:
        folder: that of the server.
        samples: lines with a sample and the time of it, in seconds.
    """
    text = folder / "samples.txt"
    text.write_text("\n".join(samples) + "\n# EOF\n", "utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def is_installed() -> bool:
    """Return whether there are Prometheus and promtool here."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


def legend_of(labels: dict[str, str], legend: str) -> str:
    """Return what Grafana writes beside a line, by a format such as "{{pipeline}} {{reason}}"."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
