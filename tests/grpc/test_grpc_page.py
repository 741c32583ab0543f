"""The page on gRPC, in real time, with its async part."""

import gc
import inspect

import pytest

from tests.guards.docs_code import fences
from tests.guards.tree import ROOT

pytestmark = pytest.mark.slow


def test_the_page_holds_in_real_time_and_its_async_part_too() -> None:
    program: dict[str, object] = {"__name__": "__main__"}
    pieces = [fence.code for fence in fences((ROOT / "docs" / "grpc.md").read_text("utf-8")) if fence.runs]
    source = "\n".join([*pieces[:-1], "import asyncio\nasyncio.run(main())\n", pieces[-1]])
    exec(compile(source, "docs/grpc.md", "exec", dont_inherit=True), program)

    assert inspect.iscoroutinefunction(program["main"])
    program.clear()
    gc.collect()  # the page is run elsewhere too, and two pipelines of one name are warned of
