"""The report: one HTML file with the sentences, the plots and the table, without any external resource."""

from __future__ import annotations

import platform
from html import escape
from importlib.metadata import PackageNotFoundError, version

from resilience._demo.plots import picture
from resilience._demo.run import Result
from resilience._demo.words import HEAD, LEGEND, caution, rows, sentences

PACKAGES = ("resilience-client", "httpx", "grpcio", "uvicorn", "tenacity")
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.1rem; margin-top: 2rem }
li { margin: .3rem 0 }
.picture { overflow-x: auto } .picture svg { max-width: 100%; height: auto; min-width: 700px }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
.table { overflow-x: auto }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8883 }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left }
tr.ours td { font-weight: 600 } tr.first td { border-top: 2px solid #8886 }
small, .note { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #16181c } small, .note { color: #999 } }
"""


def versions() -> str:
    """Return the versions of Python and of the packages that were at work."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # such as the library itself, on the path without being installed
            continue
    return ", ".join(found)


def report(result: Result) -> str:
    """Return the report of a run as HTML."""
    plan = result.plan
    heading = "A service of yours, called in several ways" if plan.own else "A bad day, called in three ways"
    phases = "".join(
        f"<li><b>{escape(span.phase.name)}</b>, {span.start:g} to {span.end:g} s: {escape(span.phase.words)}</li>"
        for span in plan.day
    )
    busy = caution(result)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>resilience: {heading}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{heading}</h1>",
        f"<p>{escape(_introduction(result))}</p>",
        f"<ul>{''.join(f'<li><b>{arm}</b>: {escape(plan.timeouts.words(arm))}</li>' for arm in plan.arms)}</ul>",
        "<h2>What came out</h2>",
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in sentences(result))}</ul>",
        f'<p class="note">{escape(busy)}</p>' if busy else "",
        f'<div class="picture">{picture(result)}</div>',
        "" if plan.own else f"<h2>The day</h2><ul>{phases}</ul>",
        f'<h2>In numbers</h2><div class="table"><table>{_table(result)}</table></div>',
        f'<p class="note">{escape(LEGEND)}</p>',
        f"<p><small>Seed {plan.seed}. {escape(versions())}. The greatest delay of a call behind its time was "
        f"{result.records.lag:.2f} s.</small></p>",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _introduction(result: Result) -> str:
    plan = result.plan
    if plan.own:
        where = " and ".join(target.address for target in plan.own)
        return f"Each arm made {plan.rate:g} calls a second of {where} for {plan.seconds:g} s, at the same times."
    return (
        "An HTTP service and a gRPC service on this machine went through the same bad day. "
        f"Each arm made {plan.rate:g} calls a second of each, at the same times, whatever came back, and had its own "
        "share of the services, so that no arm was in the way "
        "of another. A quarter of the calls are orders, which are not safe to repeat."
    )


def _table(result: Result) -> str:
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for row in rows(result):
        kinds = ("ours" if row[2] == "standard" else "", "first" if before[:2] != row[:2] else "")
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{" ".join(kinds).strip()}">{cells}</tr>')
        before = row
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
