"""What becomes of an RPC, for each arity and way of calling, whatever the server does; see `table`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from tests.grpc.processes import server_process
from tests.grpc.table import ARITIES, CELLS, LEFT_OUT, PLAIN_CELLS, SCENARIOS, SERVERS, WAYS, Cell
from tests.grpc.table_calls import Outcome, Run
from tests.grpc.table_checks import differences

pytestmark = pytest.mark.slow

Runner = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    """What runs a cell; the cells share a process for each kind of server, until one of them kills it."""
    numbers = count()
    with ExitStack() as stack:
        servers = {kind: [stack.enter_context(server_process(kind))] for kind in SERVERS}

        def run_cell(cell: Cell, *, plain: bool = False) -> Outcome:
            run = Run(cell, servers[cell.server][-1], f"{cell} {next(numbers)}", plain=plain)
            try:
                return run.run()
            finally:
                for another in run.servers[1:]:
                    stack.callback(another.kill)
                    servers[cell.server].append(another)

        yield run_cell


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_guarded_channel_does_as_the_table_says(run: Runner, cell: Cell) -> None:
    assert differences(cell, run(cell)) == []


@pytest.mark.parametrize("cell", PLAIN_CELLS, ids=str)
def test_a_plain_channel_does_the_same(run: Runner, cell: Cell) -> None:
    assert differences(cell, run(cell, plain=True), plain=True) == []


def test_every_cell_is_in_the_table_or_left_out_for_a_reason() -> None:
    print(f"{len(CELLS)} cells, {len(PLAIN_CELLS)} of them also without a pipeline; left out:")
    for reason, number in Counter(LEFT_OUT.values()).most_common():
        print(f"{number}: {reason}")
    assert len(CELLS) + len(LEFT_OUT) == len(SCENARIOS) * len(ARITIES) * len(WAYS) * len(SERVERS)
    assert {(cell.name, cell.arity) for cell in CELLS} >= {
        (name, arity)
        for name, scenario in SCENARIOS.items()
        for arity in ARITIES
        if not {"unary", "stream"} & scenario.left_out.keys()
    }
    known = {*WAYS, "unary", "stream"}
    assert [name for name, scenario in SCENARIOS.items() if not known >= {*scenario.left_out, *scenario.special}] == []
