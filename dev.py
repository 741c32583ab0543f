#!/usr/bin/env python3
"""Everything a developer does, with one command: the demo, the checks, the tests, the benchmarks, the documentation.

Needs Python 3.11 with its standard library. The tools are installed at the first start, into a virtual environment
beside this file, and again only when pyproject.toml changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MINIMUM_COVERAGE = 97
LOWEST_FLAGS = [
    *("-p", "no:anyio"),  # its plugin is older than our pytest
    # It leaves sockets of connections that are cancelled while they are made to the garbage collector.
    *("-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
PARALLEL = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
NOT_LOWEST = {
    "opentelemetry-api": "FastAPI, which the tests use, needs a newer one",
    "uvicorn": "the tests of the ASGI middleware have a newer one",
}
CHECKS = {
    "ruff format": ["ruff", "format", "--check", "."],
    "ruff check": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "pyright": ["pyright"],
    "docs": ["sphinx", "--quiet", "--fresh-env", "--fail-on-warning", "--keep-going", "docs", "build/docs"],
}


class DevError(Exception):
    """Something the developer has to put right; the message says how."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    options, rest = parse(arguments)
    if rest and options.command in ("check", "docs", "bench"):
        raise DevError(f"dev.py {options.command} does not know {' '.join(rest)}")
    if options.command == "check":
        return check(environment())
    if options.command == "docs":
        return docs(environment())
    if options.command == "test":
        python = environment(options.python, lowest=options.lowest)
        return test(python, [*(LOWEST_FLAGS if options.lowest else []), *(rest or PARALLEL)], everything=options.all)
    if options.command == "bench":
        flags = [flag for flag, given in (("--check", options.check), ("--quick", options.quick)) if given]
        return script("benchmarks/run.py", [*flags, *options.names], environment(group="bench"))
    if options.command == "mutate":
        return script("tests/mutation/run.py", rest, environment(group="mutate"))
    if options.command == "map":
        return script("docs/rooms.py", rest, Path(sys.executable))
    return run([environment(), "-m", "resilience", "demo", *rest])


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into our options and those that are passed on."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser(
        "demo",
        help="see the library at work; arguments go to `python -m resilience demo`, whose --help tells more",
        add_help=False,
        allow_abbrev=False,
    )
    commands.add_parser("check", help="formatting, lint, types, and the documentation", allow_abbrev=False)
    commands.add_parser("docs", help="build the documentation site, and say where it is", allow_abbrev=False)
    commands.add_parser("map", help="the rooms, their lines, and their imports", allow_abbrev=False)
    commands.add_parser(
        "mutate",
        help="change the code at random, and print what the tests let pass; its --help tells more",
        add_help=False,  # that of the script
        allow_abbrev=False,
    )
    tests = commands.add_parser(
        "test",
        help="the quick tests, in several processes; other arguments go to pytest, which then runs in one",
        allow_abbrev=False,
    )
    tests.add_argument("--all", action="store_true", help="the slow tests too, under branch coverage")
    tests.add_argument("--python", metavar="X", help="another interpreter: a path, a command, or a version as 3.13")
    tests.add_argument("--lowest", action="store_true", help="with the lowest versions that pyproject.toml allows")
    bench = commands.add_parser("bench", help="the benchmarks", allow_abbrev=False)
    bench.add_argument("--check", action="store_true", help="fail where a benchmark misses its bound")
    bench.add_argument("--quick", action="store_true", help="a tenth of the time; writes no file")
    bench.add_argument("names", nargs="*", help="sections; without any, all")
    return parser.parse_known_args(arguments)


def check(python: Path) -> int:
    """Run all checks, also after one has failed."""
    failed = [name for name, command in CHECKS.items() if run([python, "-m", *command]) != 0]
    print(f"check: {', '.join(failed)} failed" if failed else "check: all passed", flush=True)
    return 1 if failed else 0


def docs(python: Path) -> int:
    """Build the documentation; a warning is an error."""
    code = run([python, "-m", *CHECKS["docs"]])
    if code == 0:
        print(f"docs: {ROOT / CHECKS['docs'][-1] / 'index.html'}", flush=True)
    return code


def test(python: Path, arguments: Sequence[str], *, everything: bool) -> int:
    """Run the tests; pytest has the last word."""
    coverage = ["--cov", f"--cov-fail-under={MINIMUM_COVERAGE}"]
    return run([python, "-m", "pytest", *(coverage if everything else ["-m", "not slow"]), *arguments])


def script(path: str, arguments: Sequence[str], python: Path) -> int:
    """Run a script of this repository."""
    if not (ROOT / path).is_file():
        raise DevError(f"{path} does not exist")
    return run([python, ROOT / path, *arguments])


def environment(interpreter: str | None = None, *, group: str = "dev", lowest: bool = False) -> Path:
    """Make the virtual environment unless it is there and up to date; returns its Python.

    The benchmarks have one of their own, so that the peers which they install are in nobody's way. So have the lowest
    versions that we allow of what the library works with.
    """
    base, suffix = (sys.executable, "") if interpreter is None else (find(interpreter), f"-{slug(interpreter)}")
    suffix += ("" if group == "dev" else f"-{group}") + ("-lowest" if lowest else "")
    version = sys.version if interpreter is None else version_of(base)
    venv = ROOT / f".venv{suffix}"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = venv / "dev-stamp"
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + os.fsencode(ROOT)).hexdigest()
    written = stamp.read_text("utf-8").splitlines() if stamp.is_file() and python.exists() else []
    wanted = [project, *version.splitlines()]
    if written == wanted:
        return python

    print(f"dev.py: installing into {venv.name} (once, and when pyproject.toml changes)", file=sys.stderr, flush=True)
    if written[1:] != wanted[1:]:
        make_venv(base, venv)
    stamp.unlink(missing_ok=True)
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # The pip that comes with Python 3.11 is older than dependency groups.
    packages = ["--group", group, "--editable", "." if group == "bench" else ".[all,demo]"]
    if lowest:
        constraints = venv / "lowest.txt"
        constraints.write_text("\n".join(lowest_versions()), "utf-8")
        packages += ["--constraint", str(constraints)]
    if run([*pip, "--upgrade", "pip>=25.1"]) != 0 or run([*pip, *packages]) != 0:
        if group != "bench" or not install_one_by_one(pip):
            raise DevError("pip could not install what is needed (see above); once that is put right, start me again")
        wanted[0] = "incomplete"  # what is missing is tried again at the next start
    stamp.write_text("\n".join(wanted), "utf-8")
    return python


def lowest_versions() -> list[str]:
    """Pin what the library works with to the lower bounds in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra if "[" not in one]
    pins = [re.match(r"([\w.-]+)>=([\w.]+)", one) for one in (*project["dependencies"], *extras)]
    if None in pins:
        raise DevError("a dependency in pyproject.toml does not begin with its lower bound, such as httpx>=0.27")
    return [f"{pin[1]}=={pin[2]}" for pin in pins if pin and pin[1] not in NOT_LOWEST]


def install_one_by_one(pip: Sequence[str | Path]) -> bool:
    """Install what there is of the peers: the benchmarks say which ones are missing. False: not even the project."""
    if run([*pip, "--editable", "."]) != 0:
        return False
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for package in project["dependency-groups"]["bench"]:
        if run([*pip, package], quiet=True) != 0:
            print(f"dev.py: pip could not install {package}", file=sys.stderr, flush=True)
    return True


def make_venv(base: str, venv: Path) -> None:
    """Make an empty virtual environment."""
    if run([base, "-c", "import ensurepip, venv"], quiet=True) != 0:
        raise DevError(f"{base} lacks the modules venv and ensurepip (on Debian and Ubuntu: apt install python3-venv)")
    if run([base, "-m", "venv", "--clear", venv]) != 0:
        raise DevError(f"could not make the virtual environment {venv}")


def find(interpreter: str) -> str:
    """Find an interpreter by its path, its command, or its version."""
    names = [interpreter, f"python{interpreter}"] if re.fullmatch(r"[\d.]+", interpreter) else [interpreter]
    for name in names:
        if found := shutil.which(name):
            return os.path.abspath(found)
    raise DevError(f"there is no interpreter {' or '.join(names)} on this machine")


def version_of(python: str) -> str:
    """Ask an interpreter for its version, and refuse one that is too old."""
    question = "import sys; print(sys.version_info >= (3, 11)); print(sys.version)"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise DevError(f"{python} does not start: {answer.stderr.strip()}")
    new_enough, version = answer.stdout.strip().split("\n", 1)
    if new_enough != "True":
        raise DevError(f"{python} is Python {version.split()[0]}; 3.11 or newer is needed")
    return version


def slug(text: str) -> str:
    """Make the name of an interpreter fit for a directory."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def run(command: Sequence[str | Path], *, quiet: bool = False) -> int:
    """Run a command in the root of the project; returns its exit code, as a shell would."""
    # A newer pyright is none of the developer's concern: pyproject.toml says which one counts.
    variables = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it got the same signal, and may have something to say
            raise
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    # Not sys.version_info: an old Python has to get as far as this line.
    if sys.hexversion < 0x030B0000:
        sys.exit("dev.py: Python 3.11 or newer is needed; this is " + sys.version.split()[0])
    try:
        sys.exit(main(sys.argv[1:]))
    except DevError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
