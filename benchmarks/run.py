"""Measure this library against its peers; see `python3 dev.py bench --help`."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import machine, report
from benchmarks.bars import ACCEPTED_ABSENCES, BARS, Missing, Verdict, judge
from benchmarks.rounds import Found
from benchmarks.sections import QUICK, SECTIONS, Section, chosen
from resilience import ResilienceWarning


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write RESULTS.md if everything was measured at full length; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed, or was not measured")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time; writes no file")
    parser.add_argument("names", nargs="*", help=f"sections ({', '.join(one.name for one in SECTIONS)}); none: all")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", ResilienceWarning)  # of many pipelines around functions of one name
    try:
        sections = list(chosen(options.names))
    except ValueError as error:
        parser.error(str(error))
    parts = [(section, measured(section, options.quick)) for section in sections]
    judged = verdicts(parts)
    if options.quick or options.names:
        print("\n".join(report.section(section, found) for section, found in parts))
    else:
        machine.RESULTS.write_text(report.document(parts, judged), "utf-8")
    print(report.verdicts(judged))
    failed = [one for one in judged if not one.good]
    for one in failed:
        print(f"bench: {one.bar.name}: {one.status}", file=sys.stderr)
    return 1 if failed and options.check else 0


def measured(section: Section, quick: bool) -> Found:
    """Measure one section, and say how long that took."""
    start = time.monotonic()
    found = section.run(section.seconds * (QUICK if quick else 1), quick)
    print(f"bench: {section.name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    for name, one in found.missing.items():
        print(f"bench: {section.name}: {name} is missing: {one.why}", file=sys.stderr, flush=True)
    return found


def verdicts(parts: Sequence[tuple[Section, Found]]) -> list[Verdict]:
    """Judge the bars of these sections."""
    found = {f"{part.name}/{name}": values for part, one in parts for name, values in one.series.items()}
    missing: dict[str, Missing] = {
        f"{part.name}/{name}": why for part, one in parts for name, why in one.missing.items()
    }
    names = {part.name for part, _ in parts}
    return [judge(bar, found, missing, ACCEPTED_ABSENCES) for bar in BARS if bar.section in names]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
