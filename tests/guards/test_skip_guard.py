"""The guard that fails a run for a skip that is not allowed."""

from pathlib import Path

import pytest

from tests.guards import skip_guard
from tests.guards.tree import ROOT

GUARDED = ["-p", "tests.guards.skip_guard", "-p", "no:cacheprovider"]

SKIPS = """
import unittest
import pytest

def test_passes(): pass
def test_allowed(): pytest.skip("needs a feature that only Plan 9 has")
@pytest.mark.skip
def test_without_a_reason(): pass
@pytest.mark.skipif(True, reason="it is Monday")
def test_with_a_reason(): pass
def test_import(): pytest.importorskip("a_module_that_is_not_there")
@pytest.mark.xfail(reason="known to be wrong", strict=False)
def test_expected_failure(): assert False
@pytest.mark.xfail(reason="thought to be wrong", strict=False)
def test_unexpected_pass(): pass
class TestUnit(unittest.TestCase):
    @unittest.skip("not today")
    def test_unit(self): pass
"""


@pytest.fixture
def planted(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\n")
    pytester.mkdir("tests").joinpath("allowed_skips.txt").write_text("# why not\nneeds a feature that only * has\n")
    return pytester


@pytest.mark.parametrize("processes", [[], ["--numprocesses=2"]], ids=["one process", "several"])
def test_skips_that_are_not_allowed_fail_the_run_and_are_named(planted: pytest.Pytester, processes: list[str]) -> None:
    planted.makepyfile(test_planted=SKIPS, test_module="import pytest\npytest.skip('all', allow_module_level=True)")

    result = planted.runpytest_subprocess(*GUARDED, *processes)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    complaints = sorted(line for line in result.outlines if line.startswith("FORBIDDEN SKIP"))
    assert complaints == [
        "FORBIDDEN SKIP test_module.py: all",
        "FORBIDDEN SKIP test_planted.py::TestUnit::test_unit: not today",
        "FORBIDDEN SKIP test_planted.py::test_expected_failure: xfail: known to be wrong",
        "FORBIDDEN SKIP test_planted.py::test_import: "
        "could not import 'a_module_that_is_not_there': No module named 'a_module_that_is_not_there'",
        "FORBIDDEN SKIP test_planted.py::test_unexpected_pass: xfail: thought to be wrong",
        "FORBIDDEN SKIP test_planted.py::test_with_a_reason: it is Monday",
        "FORBIDDEN SKIP test_planted.py::test_without_a_reason: unconditional skip",
    ]
    assert result.outlines[-1].startswith("=")


def test_a_run_with_allowed_skips_only_passes(planted: pytest.Pytester) -> None:
    planted.makepyfile("import pytest\ndef test_it(): pytest.skip('needs a feature that only Plan 9 has')")

    result = planted.runpytest_subprocess(*GUARDED)

    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK


def test_without_a_list_nothing_is_allowed(tmp_path: Path) -> None:
    assert skip_guard.read_allowed(tmp_path / "missing.txt") == []


def test_this_run_is_guarded(request: pytest.FixtureRequest) -> None:
    assert any(isinstance(plugin, skip_guard.SkipGuard) for plugin in request.config.pluginmanager.get_plugins())
