"""The alerts that are published: each has a runbook and tests, and names metrics that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.prometheus.promtool import needs_promtool, promtool
from tests.prometheus.published import RULES, RULES_TEST, RUNBOOKS, SAMPLES, Alert, alerts, metrics_in

PARTS = ["What it means", "What users see", "First checks", "What to do", "What not to do"]
NAMES = [alert.name for alert in alerts()]


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_is_complete(alert: Alert) -> None:
    assert re.search(r"^        for: \d+m$", alert.text, re.MULTILINE)
    assert re.search(r"^          severity: (page|ticket)$", alert.text, re.MULTILINE)
    assert re.search(r"^          summary: .+\n          description: .+$", alert.text, re.MULTILINE)
    assert f"          runbook_url: docs/runbooks.md#{alert.name.lower()}\n" in alert.text


def test_there_is_an_alert_for_each_trouble() -> None:
    assert len(NAMES) == len(set(NAMES)) == 9


def test_the_runbooks_have_a_section_for_each_alert_with_the_same_parts() -> None:
    _, *sections = re.split(r"^## (Resilience.+)$", RUNBOOKS.read_text("utf-8"), flags=re.MULTILINE)

    assert sections[::2] == NAMES
    for text in sections[1::2]:
        assert re.findall(r"^\*\*(.+)\.\*\*", text, re.MULTILINE) == PARTS


def test_the_severity_in_a_runbook_is_that_of_the_alert() -> None:
    text = RUNBOOKS.read_text("utf-8")
    for alert in alerts():
        severity = re.search(r"severity: (\w+)", alert.text)
        assert severity
        assert re.search(rf"^\| \[{alert.name}\]\(#{alert.name.lower()}\) \| {severity[1]} \|", text, re.MULTILINE)


def test_each_alert_is_tested_to_fire_and_to_be_silent() -> None:
    cases = RULES_TEST.read_text("utf-8").split("      - alertname: ")[1:]
    fired = [case.split()[0] for case in cases if "exp_alerts:" in case.partition("\n  - name")[0]]
    silent = [case.split()[0] for case in cases if "exp_alerts:" not in case.partition("\n  - name")[0]]

    assert set(fired) == set(silent) == set(NAMES)


@pytest.mark.parametrize("page", [RULES, RULES_TEST, RUNBOOKS], ids=lambda page: page.name)
def test_all_metrics_that_are_named_exist(page: Path) -> None:
    assert metrics_in(page.read_text("utf-8")) - SAMPLES.keys() == set()


@pytest.mark.slow
@needs_promtool
def test_promtool_finds_the_rules_valid_and_the_tests_hold() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(RULES_TEST))


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize(("written", "planted"), [(" > 0.05\n", " > 0.0005\n"), ('state!="closed"', 'state="open"')])
def test_the_tests_of_the_rules_notice_a_change(tmp_path: Path, written: str, planted: str) -> None:
    text = RULES.read_text("utf-8")
    assert written in text
    (tmp_path / RULES.name).write_text(text.replace(written, planted), "utf-8")
    shutil.copy(RULES_TEST, tmp_path)

    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", str(tmp_path / RULES_TEST.name))
