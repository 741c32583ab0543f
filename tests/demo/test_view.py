"""What is shown while the demo runs."""

from __future__ import annotations

import io
import re

from rich.console import Console

from resilience import standard
from resilience._demo.records import BreakerRecord
from resilience._demo.script import ServiceName
from resilience._demo.view import LiveView, PlainView
from resilience.testing import virtual_time
from tests.demo import made


def test_plain_lines_for_phases_and_breakers() -> None:
    lines: list[str] = []
    view = PlainView(lines.append)
    result = made.result()
    view.begin(result, [])
    view.entered(result.plan.day[0])
    view.ended(result.records.calls[0])
    view.changed(BreakerRecord(ServiceName.HTTP, 0.4, "open"), "7 calls in a row failed")
    view.changed(BreakerRecord(ServiceName.GRPC, 1.0, "closed"), "")

    assert lines == [
        "  0.00 s  sick: can do 10 of 25 calls a second, the rest waits",
        "  0.40 s    breaker of http: open, 7 calls in a row failed",
        "  1.00 s    breaker of grpc: closed",
    ]


def shown(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(view.render())
    file = console.file
    assert isinstance(file, io.StringIO)
    return re.sub(r" +", " ", file.getvalue())


def test_the_live_table() -> None:
    result = made.result()
    pipelines = [standard(f"live {service}") for service in result.plan.services]
    pipelines[0]["breaker"].isolate()
    with virtual_time() as time:
        view = LiveView(Console(file=io.StringIO()))
        assert "starting" in shown(view)
        result.records.began = time.monotonic()
        view.begin(result, pipelines)
        assert "0 of 0" in shown(view)
        view.entered(result.plan.day[0])
        for call in result.records.calls:
            view.ended(call)
        time.advance(1.1)
        text = shown(view)
        time.advance(10.0)
        late = shown(view)

    assert "1.1 of 2 s sick: can do 10 of 25 calls a second" in text
    assert "│ bare │ 50% │ 10 │ none │ 50% │ 10 │ none │ 20 of 40 │" in text
    assert "│ standard │ 60% │ 10 │ isolated │ 60% │ 10 │ closed │ 24 of 40 │" in text
    assert "│ standard │ - │ 0 │ isolated │ - │ 0 │ closed │ 24 of 40 │" in late


def test_the_live_table_is_on_the_terminal_until_the_end() -> None:
    file = io.StringIO()
    with LiveView(Console(file=file, force_terminal=True, width=120)) as view:
        result = made.result()
        view.begin(result, [standard(f"shown {service}") for service in result.plan.services])
        view.changed(result.records.breakers[0], "")

    assert "tenacity" in file.getvalue()
