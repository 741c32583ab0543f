"""Mutation testing of modules with cosmic-ray; see `python3 dev.py mutate --help`.

A mutant is the code with one small change, such as `<` for `<=`. A mutant that all tests of its module pass is a
survivor: the tests let the change pass, or it changes nothing. `equivalent.toml` lists those that change nothing, with
the reason. Changes of annotations are left out, since they are not evaluated, and so are changes that make no Python,
such as that of the `*` before keyword parameters: no test is needed to notice them.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("src/resilience")
TESTS: dict[str, tuple[str, ...]] = {
    "_policies/breaker/breaker.py": ("tests/policies/breaker", "tests/property/test_breaker_model.py"),
    "_policies/breaker/machine.py": ("tests/policies/breaker", "tests/property/test_breaker_model.py"),
    "_policies/breaker/settings.py": (
        "tests/policies/breaker",
        "tests/policies/test_base_updates.py",
        "tests/property/test_breaker_model.py",
    ),
    "_policies/breaker/state.py": ("tests/policies/breaker", "tests/property/test_breaker_model.py"),
    "_policies/breaker/window.py": (
        "tests/policies/breaker/test_window.py",
        "tests/policies/breaker",
        "tests/property/test_breaker_model.py",
    ),
    "_policies/retry/retry.py": (
        "tests/policies/retry",
        "tests/call/test_retry_marks.py",
        "tests/policies/test_base_copies.py",
        "tests/outcome/test_unlisted.py",
    ),
    "_policies/retry/settings.py": ("tests/policies/retry", "tests/policies/test_base_updates.py"),
    "_policies/bulkhead.py": ("tests/policies/test_bulkhead*.py", "tests/policies/test_*.py"),
    "_policies/permits.py": (
        "tests/policies/test_bulkhead*.py",
        "tests/policies/test_*.py",
        "tests/property/test_bulkhead_model.py",
    ),
    "_policies/timeout.py": (
        "tests/policies/test_timeout.py",
        "tests/policies/test_base_copies.py",
        "tests/policies/test_base_updates.py",
        "tests/runtime",
        "tests/drivers/test_thread.py",
    ),
    "_policies/adaptive_limit.py": ("tests/policies/test_adaptive_limit.py",),
    "_policies/cooldown/cooldown.py": ("tests/policies/cooldown", "tests/property/test_cooldown_model.py"),
    "_policies/cooldown/pause.py": ("tests/policies/cooldown", "tests/property/test_cooldown_model.py"),
    "_policies/hedge.py": ("tests/policies/test_hedge.py", "tests/drivers/test_async_race.py"),
    "_policies/stale_cache.py": ("tests/policies/test_stale_cache.py",),
    "_policies/chaos.py": ("tests/policies/test_chaos.py",),
    "_policies/rate_limit/meter.py": ("tests/policies/rate_limit", "tests/property/test_rate_limit_model.py"),
    "_policies/partition.py": ("tests/policies/test_partition*.py", "tests/property/test_partition_model.py"),
    "_call/budget.py": ("tests/call/test_budget.py", "tests/policies/retry"),
    "_call/wait_queue.py": ("tests/call/test_wait_queue.py", "tests/policies/test_bulkhead.py"),
    "backoff.py": ("tests/test_backoff.py", "tests/test_backoff_tenacity.py"),
    "_outcome/allowlist.py": ("tests/outcome/test_allowlist.py", "tests/outcome"),
}
"""The modules that are mutated by default, and the tests that must notice: the likeliest first, since one is enough."""
SECONDS = 120.0
"""The longest time for the tests of one mutant, in seconds; a mutant that hangs is noticed, too."""


@dataclass(frozen=True)
class Mutant:
    """One change of one module, as cosmic-ray numbers it."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        change = self.operator.removeprefix("core/")
        return f"{self.module}:{self.line}:{self.column}: {change}: {self.source}"


def main(arguments: Sequence[str]) -> int:
    """Run a sample of mutants, and print the survivors; returns 1 if too many survive."""
    parser = argparse.ArgumentParser(prog="dev.py mutate", description=__doc__, allow_abbrev=False)
    parser.add_argument("modules", nargs="*", metavar="PATH", help="below src/resilience; without any, the policies")
    parser.add_argument("--sample", type=int, default=300, metavar="N", help="so many mutants, at random; default 300")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--at-least", type=float, default=0.95, metavar="SHARE", help="the share to catch; default 0.95"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="so many mutants at once; default 2")
    options = parser.parse_args(arguments)
    modules: list[str] = [one.removeprefix(f"{PACKAGE}/") for one in options.modules] or list(TESTS)
    if unknown := [one for one in modules if one not in TESTS]:
        parser.error(f"there are no tests listed for {', '.join(unknown)}; add them to {Path(__file__).name}")
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    sample = sorted(
        random.Random(options.seed).sample(mutants, min(options.sample, len(mutants))), key=lambda one: str(one)
    )
    known = equivalents()
    judged = [one for one in sample if (one.module, one.operator, one.source) not in known]
    print(
        f"{len(sample)} of {len(mutants)} mutants of {len(modules)} modules; "
        f"{len(sample) - len(judged)} of them are known to change nothing",
        flush=True,
    )
    verdicts = [(mutant, caught) for mutant, caught in results(judged, options.workers) if caught is not None]
    survivors = [mutant for mutant, caught in verdicts if not caught]
    share = 1 - len(survivors) / max(1, len(verdicts))
    print(f"{len(judged) - len(verdicts)} are not Python")
    print(f"caught: {len(verdicts) - len(survivors)} of {len(verdicts)}, {share:.1%}; survivors:")
    for survivor in survivors:
        print(f"  {survivor}")
    return 0 if share >= options.at_least else 1


def mutants_of(module: str) -> list[Mutant]:
    """Return the mutants of a module, without those of annotations."""
    source = (ROOT / PACKAGE / module).read_text("utf-8")
    lines = source.splitlines()
    ignored = annotations_in(source)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mutated.py").write_text(source, "utf-8")
        config = Path(folder) / "config.toml"
        config.write_text(
            '[cosmic-ray]\nmodule-path = "mutated.py"\ntimeout = 1.0\nexcluded-modules = []\ntest-command = "true"\n'
            '[cosmic-ray.distributor]\nname = "local"\n',
            "utf-8",
        )
        cosmic_ray(folder, "init", config.name, "session.sqlite")
        dumped = cosmic_ray(folder, "dump", "session.sqlite")
    found: list[Mutant] = []
    for record in dumped.splitlines():
        for one in json.loads(record)[0]["mutations"]:
            line, column = one["start_pos"]
            if not any(start <= (line, column) < end for start, end in ignored):
                text = lines[line - 1].strip()
                found.append(Mutant(module, one["operator_name"], one["occurrence"], line, column, text))
    return sorted(found, key=str)


def annotations_in(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where the annotations of a module begin and end, as pairs of line and column."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [
        ((one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or one.col_offset))
        for one in found
        if one is not None
    ]


def equivalents() -> set[tuple[str, str, str]]:
    """Return the changes that are known to change nothing: module, operator, and the line that they change."""
    listed = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text("utf-8"))
    return {
        (group["module"], f"core/{operator}", line)
        for group in listed.get("mutants", [])
        for operator in group["operators"]
        for line in group["lines"]
        if group["reason"]
    }


def results(sample: Sequence[Mutant], workers: int) -> Iterator[tuple[Mutant, bool | None]]:
    """Yield each mutant with whether the tests noticed it; None if it is not Python. Each worker has a copy."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copies.put(copy_project(Path(folder) / str(number)))

        project = copies.get()
        for tests in sorted({TESTS[mutant.module] for mutant in sample}):
            if not pass_in(project, tests, keep_compiled=True):
                raise SystemExit(f"without any change, {' '.join(tests)} fail: a mutant would prove nothing")
        copies.put(project)

        def judge(mutant: Mutant) -> bool | None:
            project = copies.get()
            try:
                return is_caught(mutant, project)
            finally:
                copies.put(project)

        for mutant, caught in zip(sample, pool.map(judge, sample), strict=True):
            if caught is False:
                print(f"  survived: {mutant}", flush=True)
            yield mutant, caught


def copy_project(target: Path) -> Path:
    """Copy what the tests need, without environments and caches."""
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, target, ignore=ignore)
    return target


def is_caught(mutant: Mutant, project: Path) -> bool | None:
    """Apply a mutant to a copy of the project, and return whether a test fails, None if it is not Python."""
    path = project / PACKAGE / mutant.module
    original = path.read_text("utf-8")
    try:
        cosmic_ray(project, "apply", str(path.relative_to(project)), mutant.operator, str(mutant.occurrence))
        compile(path.read_bytes(), path, "exec", dont_inherit=True)
        return not pass_in(project, TESTS[mutant.module])
    except SyntaxError:
        return None
    finally:
        path.write_text(original, "utf-8")


def pass_in(project: Path, tests: Sequence[str], *, keep_compiled: bool = False) -> bool:
    """Return whether tests pass in a copy of the project, in time. What was compiled and kept saves much of it."""
    paths = [str(path) for pattern in tests for path in sorted(project.glob(pattern))]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *paths]
    quiet = subprocess.DEVNULL
    try:
        ended = subprocess.run(
            command,
            cwd=project,
            env=environment(project, keep_compiled=keep_compiled),
            stdout=quiet,
            stderr=quiet,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def environment(project: Path, *, keep_compiled: bool) -> dict[str, str]:
    """Return the variables with which a copy's own sources are imported. Nothing compiled from a mutant is kept."""
    return {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "PYTHONDONTWRITEBYTECODE": "" if keep_compiled else "1",
    }


def cosmic_ray(folder: Path | str, *arguments: str) -> str:
    """Run cosmic-ray in a folder, and return what it prints."""
    command = [str(Path(sys.executable).with_name("cosmic-ray")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
