"""The report as HTML."""

from __future__ import annotations

import importlib.metadata
import re
from html.parser import HTMLParser

import pytest

from resilience._demo.arms import Target
from resilience._demo.report import report, versions
from resilience._demo.run import Plan, Result, own_day
from resilience._demo.script import ServiceName
from resilience._demo.words import sentences
from tests.demo import made

VOID = {"meta", "line", "rect", "polyline"}


class Balanced(HTMLParser):
    """Fails where a tag is not closed, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> str:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return "".join(parser.text)


def test_the_report_has_the_sentences_the_plots_and_the_table() -> None:
    page = report(made.result())
    text = read(page)

    assert all(sentence in text for sentence in sentences(made.result()))
    assert page.count("<svg") == 1
    assert page.count("<tr") == 1 + 2 * 3 * 3
    assert "can do 10 of 25 calls a second, the rest waits" in text
    assert "busy" not in text


def test_the_report_loads_nothing() -> None:
    page = report(made.result()).replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert re.findall(r"\b(?:src|href|url)\b|@import|<script|<link|https?://", page) == []


def test_a_service_of_the_user_is_named_and_escaped() -> None:
    target = Target(ServiceName.HTTP, "http://shop.test/?a=1&b=<2>", own=True)
    result = Result(Plan(day=own_day(2.0), own=[target]), made.result(own=True).records)
    result.records.lag = 2.0

    text = read(report(result))

    assert "http://shop.test/?a=1&b=<2>" in text
    assert "The day" not in text
    assert "This machine was busy" in text


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "httpx":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("resilience._demo.report.version", version)

    assert re.fullmatch(r"Python [\d.]+\w*, httpx 1\.0", versions())
