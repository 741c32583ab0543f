"""The pages on gRPC channels, in real time, with their async parts."""

import gc

import pytest

from tests.guards.docs_code import fences
from tests.guards.tree import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["grpc", "grpc-streams", "grpc-clients-of-others"])
def test_a_page_holds_in_real_time_and_its_async_part_too(name: str) -> None:
    program: dict[str, object] = {"__name__": "__main__"}
    path = f"docs/{name}.md"
    pieces = [fence.code for fence in fences((ROOT / path).read_text("utf-8")) if fence.runs]
    pieces.insert(-1, "import asyncio\nasyncio.run(main())\nran = True\n")
    exec(compile("\n".join(pieces), path, "exec", dont_inherit=True), program)

    assert program["ran"]
    program.clear()
    gc.collect()  # the page is run elsewhere too, and two pipelines of one name are warned of
