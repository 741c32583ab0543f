"""Programs that log through structlog get the lines of the library through the standard library."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from resilience import Bulkhead, Pipeline, RejectedError, Retry, backoff, logs
from resilience.testing import virtual_time
from tests.support.functions import down
from tests.support.interpreter import run_python

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.fixture
def written(log_interval: None) -> Iterator[io.StringIO]:
    """What a handler with structlog's formatter has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    level = logs.logger.level
    logs.logger.addHandler(handler)
    logs.logger.setLevel(logging.INFO)
    logs.configure(interval=0.0)
    yield stream
    logs.logger.setLevel(level)
    logs.logger.removeHandler(handler)


def test_lines_and_their_details_are_those_of_the_standard_library(written: io.StringIO) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=backoff.fixed(2)), Bulkhead(1), name="quotes")
    with virtual_time(), pytest.raises(ConnectionError):
        pipeline.bind(target="example.org").call(down)
    with pipeline.get(Bulkhead), pytest.raises(RejectedError):
        pipeline.call(int)

    retry, give_up, rejection = [json.loads(line) for line in written.getvalue().splitlines()]
    assert retry["event"].startswith("quotes/retry: down failed in attempt 1 of 2 with ConnectionError (transient)")
    assert (retry["level"], retry["resilience_wait"], retry["resilience_attempt"]) == ("info", 2.0, 1)
    assert retry["resilience_target"] == "example.org"
    assert (give_up["level"], give_up["resilience_reason"]) == ("warning", "attempts")
    assert rejection["resilience_error_type"] == "BulkheadFullError"


def test_the_library_does_not_import_structlog() -> None:
    code = "import sys, resilience, resilience.opentelemetry\nprint('structlog' in sys.modules)"

    assert run_python(code) == "False\n"
