"""The plots of the documentation are what the simulations of today draw, and each picture is shown on a page."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from docs.plots.__main__ import PAGES, PLOTS, PLOTS_BY_PROMETHEUS

MEASURED = {"demo.svg"}
"""Pictures of real runs, which no run draws again; their pages say what made them."""

pytestmark = pytest.mark.no_cover  # simulations, which take three times as long with it


@pytest.mark.slow
@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_up_to_date(name: str) -> None:
    assert PLOTS[name]().svg() == (PAGES / name).read_text("utf-8"), "run python3 -m docs.plots"


def test_each_plot_is_an_svg_on_a_page() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in PAGES.glob("*.md"))
    names = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.svg")}

    assert names == {*PLOTS, *PLOTS_BY_PROMETHEUS, *MEASURED}
    for name in names:
        assert f"]({name})" in pages
        assert ElementTree.parse(PAGES / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
