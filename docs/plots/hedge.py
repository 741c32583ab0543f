"""Draw docs/hedge.svg: two hedged calls over time, as the library makes them in virtual time.

python docs/hedge_timeline.py
"""

from __future__ import annotations

import asyncio

from resilience import Hedge, Pipeline
from resilience.testing import virtual_time

DELAY = 0.05
CALLS = [("the second attempt wins", [0.24, 0.04]), ("a failure starts the next at once", [-0.03, 0.05])]
"""For each call, the seconds that its attempts take; negative for one that fails."""
SCALE = 1800.0
LEFT, ROW = 150, 26


def run(times: list[float]) -> list[tuple[float, float, str]]:
    """Make a call; returns when each attempt began and ended, and how."""
    attempts: list[tuple[float, float, str]] = []

    async def attempt() -> None:
        number = len(attempts)
        begun = clock.elapsed
        attempts.append((begun, begun, "cancelled"))
        how = "cancelled"
        try:
            await asyncio.sleep(abs(times[number]))
            how = "failed" if times[number] < 0 else "won"
            if how == "failed":
                raise ConnectionError
        finally:
            attempts[number] = begun, clock.elapsed, how

    with virtual_time() as clock:
        asyncio.run(Pipeline(Hedge(DELAY)).bind(idempotent=True).acall(attempt))
    return attempts


COLORS = {"won": "#2e7d32", "failed": "#c62828", "cancelled": "#9e9e9e"}


class Timeline:
    """The attempts of the calls, as bars."""

    def svg(self) -> str:
        """Return the picture."""
        parts: list[str] = []
        y = 24
        for title, times in CALLS:
            parts.append(f'<text x="8" y="{y}" font-weight="bold">{title}</text>')
            y += 12
            for number, (begun, ended, how) in enumerate(run(times), start=1):
                x, width = LEFT + begun * SCALE, (ended - begun) * SCALE
                parts.append(f'<text x="8" y="{y + 14}">attempt {number}</text>')
                parts.append(f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="18" rx="3" fill="{COLORS[how]}"/>')
                parts.append(f'<text x="{x + width + 6:.0f}" y="{y + 14}">{how}, {1000 * ended:.0f} ms</text>')
                y += ROW
            y += 18
        x = LEFT + DELAY * SCALE
        parts.append(f'<line x1="{x:.0f}" y1="30" x2="{x:.0f}" y2="{y - 20}" stroke="#555" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x + 4:.0f}" y="{y - 8}">after {1000 * DELAY:.0f} ms</text>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="620" height="{y}" viewBox="0 0 620 {y}" '
            'font-family="sans-serif" font-size="12">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
        )


def chart() -> Timeline:
    """Return the picture of the page on Hedge."""
    return Timeline()
