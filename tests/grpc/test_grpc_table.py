"""What becomes of an RPC, for each arity and way of calling, whatever the server does; see `table`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import pytest

from tests.grpc.table import ARITIES, CELLS, LEFT_OUT, PLAIN_CELLS, SCENARIOS, SERVERS, WAYS, Cell
from tests.grpc.table_calls import RunCell, plain_channel
from tests.grpc.table_checks import differences

pytestmark = pytest.mark.slow

OLD = pytest.mark.skipif(
    [int(part) for part in version("grpcio").split(".")[:2]] < [1, 84],
    reason="grpc.aio before 1.84 does not end all RPCs that stream when their channel is closed",
)


def params(cells: Iterable[Cell]) -> list[Any]:
    """Return the parameters of tests."""
    return [pytest.param(cell, marks=[OLD] if _does_not_end(cell) else [], id=str(cell)) for cell in cells]


def _does_not_end(cell: Cell) -> bool:
    """Return whether an old grpc.aio does not end the RPC of a cell."""
    closed_while_waiting = cell.scenario.action == "close" and cell.name != "channel closed"
    return closed_while_waiting and cell.way.startswith("aio") and cell.arity != "unary_unary"


@pytest.mark.parametrize("cell", params(CELLS))
def test_a_guarded_channel_does_as_the_table_says(run_cell: RunCell, cell: Cell) -> None:
    assert differences(cell, run_cell(cell)) == []


@pytest.mark.parametrize("cell", params(PLAIN_CELLS))
def test_a_plain_channel_does_the_same(run_cell: RunCell, cell: Cell) -> None:
    assert differences(cell, run_cell(cell, plain_channel), plain=True) == []


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
