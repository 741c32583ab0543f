"""The dashboard: what is in it, and that a real Prometheus has an answer to each of its queries."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from docs.plots.dashboard import drawn, filled_in, panels
from resilience.prometheus import PrometheusMetrics
from resilience.prometheus._families import FAMILIES
from tests.prometheus.promtool import needs_prometheus, needs_promtool, promtool
from tests.prometheus.published import DASHBOARD, RULES, RUNBOOKS, SAMPLES, alerts, metrics_in, without_thresholds
from tests.support.observed_day import MINUTE, SCRAPE, SECONDS, START, STORY, observed_day
from tests.support.observed_service import Conditions, ObservedService
from tests.support.prometheus_server import prometheus

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
PANELS = [panel for panel in panels() if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
LEFT_OUT: set[str] = set()
"""The metrics that no panel shows, on purpose: there are none."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HURRY = [
    Conditions(1.0 + second, failing=(0.4, 0.4, 1.0)[second % 3], search=0.6, quota=10, foreign=True)
    for second in range(60)
]
"""All kinds of trouble at once, for as long as it takes; a few seconds."""
CONFIGURATION = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: shop, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


def test_each_metric_is_shown_and_each_that_is_shown_exists() -> None:
    shown = metrics_in("\n".join(QUERIES))

    assert shown - SAMPLES.keys() == set()
    assert {family.name for family in FAMILIES} - {SAMPLES[name].name for name in shown} == LEFT_OUT


def test_the_variables_choose_what_is_shown() -> None:
    assert [one["name"] for one in BOARD["templating"]["list"]] == ["datasource", "job", "pipeline"]
    for query in QUERIES:
        selectors = re.findall(r"resilience_\w+(\{.*?\})", query)
        assert len(selectors) == len(re.findall(r"resilience_\w+", query)), query
        for selector in selectors:
            assert 'job=~"$job"' in selector, query
            assert 'pipeline=~"$pipeline"' in selector or "build_info" in query, query
        assert "rate(" not in query or "[$__rate_interval]" in query, query


def test_panels_are_described_and_use_the_data_source_of_the_variable() -> None:
    assert BOARD["schemaVersion"] >= 41
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"] == DATASOURCE
        assert [target["datasource"] for target in panel["targets"]] == [DATASOURCE] * len(panel["targets"])


def test_the_panels_that_runbooks_name_exist() -> None:
    named = set(re.findall(r'"([A-Z][^"]+)"', RUNBOOKS.read_text("utf-8").replace("\n", " ").replace("   ", "")))

    assert len(named) > 10
    assert named - {panel["title"] for panel in PANELS} == set()


def test_no_two_panels_are_in_one_place() -> None:
    places = [one["gridPos"] for one in panels()]
    ids = [one["id"] for one in panels()]
    assert len(set(ids)) == len(ids)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(place["x"] + place["w"] <= 24 for place in places)


@contextmanager
def exposed_service(service: ObservedService) -> Generator[int]:
    """Expose the metrics of a service; yield the port."""
    registry = CollectorRegistry()
    with PrometheusMetrics(registry, service.pipelines):
        server, thread = start_http_server(0, "127.0.0.1", registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.mark.slow
@needs_prometheus
@needs_promtool
def test_a_server_that_scrapes_a_service_answers_each_query_and_alert_with_data(tmp_path: Path) -> None:
    service = ObservedService(HURRY, rate=6.0, name="hurried")  # some counts are of the process, by name
    running = threading.Thread(target=lambda: asyncio.run(service.run()))
    with exposed_service(service) as port, prometheus(tmp_path, CONFIGURATION.format(rules=RULES, port=port)) as server:
        (group,) = server.ask("rules")["groups"]
        rules = [rule["query"] for rule in group["rules"]]
        expressions = [*map(filled_in, QUERIES), *map(without_thresholds, rules)]
        running.start()
        while running.is_alive() and any(not server.now(one) for one in expressions):
            running.join(0.3)
        without_data = [one for one in expressions if not server.now(one)]
        for rule in rules:
            server.now(rule)
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        service.stop()
        running.join()

    assert without_data == []
    assert [rule["name"] for rule in group["rules"]] == [alert.name for alert in alerts()]
    promtool("check", "metrics", stdin=page)
    assert {SAMPLES[name].name for name in metrics_in(page) & SAMPLES.keys()} == {family.name for family in FAMILIES}


@pytest.mark.slow
@pytest.mark.no_cover  # a simulation, which takes three times as long with it
@needs_prometheus
@needs_promtool
def test_each_alert_holds_in_a_bad_half_hour_and_the_picture_is_of_it() -> None:
    calm = STORY[0].until
    held: dict[str, list[float]] = {}
    with observed_day() as server:
        for alert in alerts():
            expression = alert.text.partition("expr: |\n")[2].partition("        for:")[0].partition("        #")[0]
            found = server.over(expression, START + 7, START + SECONDS - SCRAPE + 7, SCRAPE)
            held[alert.name] = [at - START for points in found.values() for at, _ in points]
        picture = drawn(server).svg()

    assert [name for name, times in held.items() if not times] == []
    del held["ResilienceShadowRejections"]  # which the policies in shadow mode cause all the time
    assert [name for name, times in held.items() if min(times) < calm] == []
    assert max(held["ResilienceBreakerOpen"]) < 15 * MINUTE
    is_up_to_date = picture == DASHBOARD.with_suffix(".svg").read_text("utf-8")
    assert is_up_to_date, "run python3 -m docs.plots"
