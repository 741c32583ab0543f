"""The page on gRPC servers, in real time, with its async part."""

import gc

import pytest

from tests.guards.docs_code import fences
from tests.guards.tree import ROOT

pytestmark = pytest.mark.slow


def test_the_page_holds_in_real_time_and_its_async_part_too() -> None:
    program: dict[str, object] = {"__name__": "__main__"}
    pieces = [fence.code for fence in fences((ROOT / "docs" / "grpc-servers.md").read_text("utf-8")) if fence.runs]
    pieces.insert(-1, "import asyncio\nasyncio.run(main())\nran = True\n")
    exec(compile("\n".join(pieces), "docs/grpc-servers.md", "exec", dont_inherit=True), program)

    assert program["ran"]
    program.clear()
    gc.collect()  # the page is run elsewhere too, and two pipelines of one name are warned of
