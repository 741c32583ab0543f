"""The list of metrics is the one that is documented, and what promtool finds nothing wrong with."""

from __future__ import annotations

import re

import pytest

from resilience import standard
from resilience.prometheus._families import FAMILIES
from tests.guards.tree import ROOT
from tests.prometheus.promtool import needs_promtool, promtool
from tests.prometheus.reading import exposed

PAGE = ROOT / "docs" / "observe.md"
ROW = re.compile(r"^\| `(resilience_\w+)` \| (counter|gauge|histogram) \| (.*?) \|", re.MULTILINE)


def documented() -> dict[str, tuple[str, list[str]]]:
    """The metrics of the page: the type, and the labels beside `pipeline`."""
    section = PAGE.read_text("utf-8").partition("\n## What each metric means\n")[2].partition("\n## ")[0]
    rows = ROW.findall(section)
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}


def test_the_page_has_each_metric_with_its_type_and_labels() -> None:
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    expected = {family.name + suffix[family.kind]: (family.kind, list(family.labels)) for family in FAMILIES}

    assert documented() == expected
    assert len(FAMILIES) == 26


def test_labels_have_a_fixed_order() -> None:
    for family in FAMILIES:
        assert family.all_labels(key_labels=False) == ("pipeline", *family.labels)
        assert family.all_labels(key_labels=True) == ("pipeline", *family.labels, *(["key"] if family.by_key else []))
        assert not family.by_key or family.labels[0] == "policy"


@pytest.mark.slow
@needs_promtool
def test_promtool_has_no_objection_to_what_is_exposed() -> None:
    pipeline = standard("checked_by_promtool")
    with exposed() as found:
        pipeline.call(int)
        promtool("check", "metrics", stdin=found.text())
    assert pipeline.name == "checked_by_promtool"


@pytest.mark.slow
@needs_promtool
def test_promtool_objects_to_a_planted_metric() -> None:
    with pytest.raises(AssertionError, match="milliseconds"):
        promtool("check", "metrics", stdin="# HELP x_milliseconds X.\n# TYPE x_milliseconds gauge\nx_milliseconds 1\n")
