"""What the documentation shows is run."""

import re
import traceback
from pathlib import Path

import pytest

from tests.guards.docs_code import fences, not_run, run_page
from tests.guards.tree import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOW_OUTPUT = {"docs/start.md"}
"""The pages whose fences of text are what the code above them prints."""
SECONDS = re.compile(r"\d+\.\d+ s\b")


def comparable(text: str) -> list[str]:
    """The lines of an output, with seconds, which are random, made equal."""
    return SECONDS.sub("0.0 s", text).splitlines()


def shown(page: Path) -> list[str]:
    """The lines of output that a page shows."""
    return comparable("".join(fence.code for fence in fences(page.read_text("utf-8")) if fence.opening == "```text"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from resilience.testing import virtual_time

    with virtual_time() as clock:
        clock.patience = 0.25  # pages show functions that hang
        run_page(page)

    if page.relative_to(ROOT).as_posix() in SHOW_OUTPUT:
        assert comparable(capsys.readouterr().out) == shown(page)


def test_output_is_compared_but_for_seconds(tmp_path: Path) -> None:
    page = plant(tmp_path, "```python\n1\n```\n\n```text\nafter 0.53 s, 3 times\n```\n\n```sh\nls\n```\n")

    assert shown(page) == comparable("after 0.7 s, 3 times\n")
    assert shown(page) != comparable("after 0.53 s, 2 times\n")


def test_no_python_of_the_documentation_is_left_out() -> None:
    assert [complaint for page in PAGES for complaint in not_run(page)] == []


def plant(directory: Path, text: str) -> Path:
    page = directory / "page.md"
    page.write_text(text, "utf-8")
    return page


def test_a_fence_that_fails_fails_at_its_own_line(tmp_path: Path) -> None:
    page = plant(tmp_path, "# Title\n\n```python\nx = 1\n```\n\nand\n\n```python\n\nassert x == 2, 'wrong'\n```\n")

    with pytest.raises(AssertionError, match="wrong") as caught:
        run_page(page)

    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.lineno, last.line) == (str(page), 11, "assert x == 2, 'wrong'")


def test_a_syntax_error_is_told_at_its_own_line(tmp_path: Path) -> None:
    page = plant(tmp_path, "# Title\n\n```python\nx =\n```\n")

    with pytest.raises(SyntaxError) as caught:
        run_page(page)

    assert (caught.value.filename, caught.value.lineno) == (str(page), 4)


def test_await_outside_of_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError, match="await"):
        run_page(plant(tmp_path, "```python\nimport asyncio\nawait asyncio.sleep(0)\n```\n"))


def test_every_page_starts_afresh(tmp_path: Path) -> None:
    run_page(plant(tmp_path, "```python\nx = 1\n```\n"))

    with pytest.raises(NameError, match="x"):
        run_page(plant(tmp_path, "```python\nx\n```\n"))


def test_dataclasses_guards_of_main_and_indented_fences_work(tmp_path: Path) -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\nif __name__ == '__main__': y = A(1)"
    indented = "- item\n\n  ```python\n  assert y.x == 1\n  seen = True\n  ```\n"
    run_page(plant(tmp_path, f"```python\n{code}\n```\n\n{indented}\n````python\nno = run\n````\n"))

    with pytest.raises(ZeroDivisionError):
        run_page(plant(tmp_path, "- item\n\n  ```python\n  1 / 0\n  ```\n"))


@pytest.mark.parametrize(
    "opening",
    [
        "```python no-run",
        "```python {.no-run}",
        "```py",
        "```pycon",
        "```Python",
        "``` python",
        "```python3",
        "```ipython",
        "```{python}",
        "```.python",
        "````python",
        "~~~python",
        "  ```py",
        "- ```py",
        "> ```python skip",
    ],
)
def test_a_fence_that_opts_out_is_counted(tmp_path: Path, opening: str) -> None:
    page = plant(tmp_path, f"text\n\n{opening}\n1 / 0\n")

    assert not_run(page) == [f"page.md:3: {opening.lstrip('-> ')}"]


@pytest.mark.parametrize("opening", ["```python", "```", "```text", "```console", "```pyproject", "```toml"])
def test_other_fences_are_not_counted(tmp_path: Path, opening: str) -> None:
    assert not_run(plant(tmp_path, f"{opening}\nx = 1\n```\n")) == []


def test_a_fence_within_a_fence_is_text(tmp_path: Path) -> None:
    page = plant(tmp_path, "````markdown\n```python no-run\n1 / 0\n```\n````\n")

    assert not_run(page) == []
    run_page(page)
