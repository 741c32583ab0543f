"""`/metrics` while the demo runs."""

from __future__ import annotations

import re
import urllib.request

import pytest

from resilience import standard
from resilience._demo.metrics import metrics
from resilience._demo.view import PlainView
from tests.demo import made

pytestmark = pytest.mark.slow


def test_the_metrics_are_those_of_the_arms_and_of_the_pipelines() -> None:
    said: list[str] = []
    shown: list[str] = []
    result = made.result()
    with metrics(PlainView(shown.append), 0, said.append) as view:
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", said[0])
        assert found is not None
        before = urllib.request.urlopen(found[0], timeout=5.0).read().decode()
        pipelines = [standard(f"measured {service}") for service in result.plan.services]
        view.begin(result, pipelines)
        view.begin(result, pipelines)  # the next run of several
        pipelines[0].call(abs, -1)
        for call in result.records.calls:
            view.ended(call)
        view.entered(result.plan.day[0])
        view.changed(result.records.breakers[0], "")
        text = urllib.request.urlopen(found[0], timeout=5.0).read().decode()

    assert "demo_calls_total{" not in before
    assert 'demo_calls_total{arm="tenacity",outcome="served",service="http"} 11.0' in sorted_labels(text)
    assert 'demo_attempts_total{arm="bare",service="grpc"} 20.0' in sorted_labels(text)
    assert 'pipeline="measured http"' in text
    assert len(shown) == 2
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(found[0], timeout=5.0)


def sorted_labels(text: str) -> str:
    """The metrics with their labels in alphabetical order."""
    return re.sub(r"\{([^}]*)\}", lambda labels: "{" + ",".join(sorted(labels[1].split(","))) + "}", text)
