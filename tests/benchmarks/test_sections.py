"""The sections of the benchmarks, and the report that they are written into."""

import subprocess
import sys

import pytest

from benchmarks import report
from benchmarks.bars import BARS, Bar, Status, Verdict
from benchmarks.calls import crowds, failure, refused, success, windows
from benchmarks.peers import ASYNCIO, SYNC, TRIO
from benchmarks.rounds import Found
from benchmarks.sections import SECTIONS, chosen
from tests.guards.tree import ROOT

CONTENDERS = {
    "sync": success(SYNC),
    "asyncio": success(ASYNCIO),
    "trio": success(TRIO),
    "failure-sync": failure(SYNC),
    "open-sync": refused(SYNC),
    "threads": crowds(SYNC),
    "window": windows(SYNC),
}


def test_every_bar_is_about_contenders_that_exist() -> None:
    names = {f"{section}/{one.name}" for section, contenders in CONTENDERS.items() for one in contenders}

    for bar in BARS:
        if bar.section in CONTENDERS:
            assert {bar.of, *bar.to} <= names
        else:
            assert bar.section in {section.name for section in SECTIONS}


def test_a_whole_run_takes_less_than_four_minutes() -> None:
    assert sum(section.seconds for section in SECTIONS) < 220


def test_sections_are_chosen_by_name_in_their_own_order() -> None:
    assert [section.name for section in chosen(["trio", "sync"])] == ["sync", "trio"]
    assert list(chosen([])) == list(SECTIONS)


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section nonsense; there are asyncio, "):
        list(chosen(["sync", "nonsense"]))


def test_verdicts_become_a_table() -> None:
    met = Verdict(Bar("speed", "part/ours", ("part/one", "part/two"), 0.4, 0.6), Status.MET, 0.5, 0.01, "part/two")
    size = Verdict(Bar("memory", "part/size", (), None, 3072, unit="bytes"), Status.MISSED, 4000.0, 0.0)
    gone = Verdict(Bar("crowd", "part/a", ("part/b",), 0.99, 0.9, at_most=False), Status.NOT_MEASURED, why="part/b: no")

    assert report.verdicts([met, size, gone]).splitlines()[2:] == [
        "| speed (two) | 0.50 | ± 1.0% | 0.40 | <= 0.60 | met |",
        "| memory | 4,000 bytes | ± 0.0% |  | <= 3,072 bytes | MISSED |",
        "| crowd | part/b: no |  | 0.99 | >= 0.90 | NOT MEASURED |",
    ]


def test_numbers_of_a_section_are_sorted_and_compared_with_a_bare_call() -> None:
    found = Found({"peer": [300.0, 310.0], "bare call": [10.0, 10.0]})

    assert report.section(SECTIONS[0], found).splitlines()[2:] == [
        "| what | median, ns per call | least | spread | rounds | to a bare call |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bare call | 10 | 10 | 0.0% | 2 | 1.0 |",
        "| peer | 305 | 300 | 1.6% | 2 | 30.5 |",
    ]


def test_the_script_starts_by_itself() -> None:
    command = [sys.executable, "benchmarks/run.py", "--help"]

    assert "--check" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
