"""The command line, `python -m resilience`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from resilience import __main__


def test_the_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert __main__.main(["--version"]) == 0
    assert capsys.readouterr().out == f"resilience {version('resilience-client')}\n"

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(__main__, "version", missing)
    assert __main__.main(["-V"]) == 0
    assert capsys.readouterr().out == "resilience (not installed)\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["--quick"], ["--version", "demo"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert __main__.main(arguments) == 2
    assert "usage: python -m resilience demo" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--help"]) == 0
    assert "usage: python -m resilience demo" in capsys.readouterr().out


@pytest.mark.parametrize("package", __main__.NEEDED)
def test_a_package_that_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    assert __main__.main(["demo"]) == 2

    line = f'{package} is not installed; to install it: pip install "resilience-client[demo]"'
    assert capsys.readouterr().err == f"python -m resilience demo: {line}\n"


def test_the_options_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        __main__.main(["demo", "--help"])

    assert ended.value.code == 0
    assert "--verify" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_a_module_that_runs() -> None:
    command = [sys.executable, "-m", "resilience", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stdout.split()[:1], ended.stderr) == (0, ["resilience"], "")
