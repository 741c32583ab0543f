"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks import machine
from benchmarks.arithmetic import median, ratio, spread
from benchmarks.bars import ACCEPTED_ABSENCES, Verdict
from benchmarks.rounds import Found
from benchmarks.sections import NANOSECONDS, Section

HEAD = """\
# Benchmarks

Written by `python3 dev.py bench`; not to be edited. The code beside this file says what is measured, and how.

- All contenders are measured in one process, in rounds: each once per round, in an order that changes. A number is
  the median over the rounds; spread is the distance between the quartiles, as a share of it. Rounds go on until all
  ratios that have a bar are certain within 1 % (95 % interval of the median), or the time of the section is over.
- A ratio is the median of the ratios within each round, so that what slows the whole machine drops out.
- Nanoseconds are CPU time of the process, loop included; on 8 threads, and where it says so, they are the clock's.
- The cyclic garbage collector is on, with nothing to do at the start of each slice; what was there before is frozen.
"""
BARE = "bare call"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]
    return "\n".join(lines) + "\n"


def number(value: float, unit: str = "x") -> str:
    if unit == "x":
        return f"{value:.2f}"
    return f"{value:,.1f}" if unit == "ms" else f"{value:,.0f}"


def verdicts(found: Sequence[Verdict]) -> str:
    """The table of bars."""
    rows: list[list[str]] = []
    for one in found:
        bar = one.bar
        unit = "" if bar.unit == "x" else f" {bar.unit}"
        against = one.to.partition("/")[2]
        rows.append(
            [
                bar.name + (f" ({against})" if len(bar.to) > 1 and against else ""),
                one.why or "" if one.value is None else f"{number(one.value, bar.unit)}{unit}",
                "" if one.uncertainty is None else f"± {one.uncertainty:.1%}",
                "" if bar.aim is None else number(bar.aim, bar.unit),
                f"{'<=' if bar.at_most else '>='} {number(bar.bar, bar.unit)}{unit}",
                str(one.status),
            ]
        )
    return table(["what", "measured", "certainty", "aim", "bar", "verdict"], rows)


def section(part: Section, found: Found) -> str:
    """The numbers of a section, the least first where they are times of calls."""
    bare = found.series.get(BARE)
    calls = part.unit == NANOSECONDS
    names = sorted(found.series, key=lambda name: median(found.series[name])) if calls else list(found.series)
    rows: list[list[str]] = []
    for name in names:
        values = found.series[name]
        unit = "ns" if calls else part.unit
        row = [name, number(median(values), unit), number(min(values), unit), f"{spread(values):.1%}", str(len(values))]
        rows.append([*row, f"{ratio(values, bare).value:.1f}" if bare else ""] if calls else row)
    head = ["what", f"median, {part.unit}", "least", "spread", "rounds", *(["to a bare call"] if calls else [])]
    missing = "".join(f"\nMissing: {name} ({one.why})\n" for name, one in found.missing.items())
    return f"## {part.title}\n\n{table(head, rows)}{missing}"


def document(parts: Sequence[tuple[Section, Found]], judged: Sequence[Verdict]) -> str:
    """All of it."""
    packages = ", ".join(f"{package} {version}" for package, version in machine.versions().items())
    facts = (
        f"- Commit: {machine.commit()}\n- Python: {machine.python()}\n- Processor: {machine.processor()}\n"
        f"- Packages: {packages}\n"
    )
    accepted = "".join(f"- {package}: {why}\n" for package, why in ACCEPTED_ABSENCES.items()) or "None.\n"
    texts = [HEAD, facts, f"## Bars\n\n{verdicts(judged)}", *(section(part, found) for part, found in parts)]
    return "\n".join([*texts, f"## Peers that may be missing\n\n{accepted}"])
