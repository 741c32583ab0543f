"""The documentation site: every page is in its navigation and in llms.txt, every public name in its reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.site import pages, reference

INDEX = """# Title

All about it.

## First

- [One](one.md): a page
- [Two](more/two.md) and [three](three.md)

## Second

<!-- also: more/*, f* -->

## Third
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "index.md").write_text(INDEX)
    for name in ("one", "more/two", "more/x", "five", "four", "six"):
        (tmp_path / f"{name}.md").write_text(f"# Page {name}\n\nIt is [here](six.md). Really.\n")
    return tmp_path


def test_every_page_is_in_the_navigation() -> None:
    assert pages.unlisted() == []


def test_llms_txt_names_every_page() -> None:
    text = pages.llms_txt()

    every = {path.relative_to(pages.PAGES).as_posix() for path in pages.PAGES.rglob("*.md")} - {pages.INDEX}
    assert [page for page in sorted(every) if f"](_sources/{page})" not in text] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(map(reference.page, reference.public_modules()))

    assert [name for name in reference.documented_names() if f":: {name}\n" not in text] == []
    lost = [name for name in reference.public_names() if name not in reference.documented_names()]
    assert [name for name in lost if f":py:obj:`resilience.{name.rpartition('.')[2]}`" not in text] == []
    assert len(reference.documented_names()) > 100


def test_the_reference_has_what_users_look_for_and_nothing_private() -> None:
    text = "\n".join(map(reference.page, reference.public_modules()))

    for name in ("Retry", "events.RetryScheduled", "grpc.aio.insecure_channel", "httpx.attach", "errors.LateResult"):
        assert f":: resilience.{name}\n" in text
    assert "._" not in text


def test_pages_are_written_once_and_old_ones_removed(tmp_path: Path) -> None:
    reference.write(tmp_path / "api")
    (tmp_path / "api" / "gone.rst").write_text("x")
    before = (tmp_path / "api" / "resilience.rst").stat().st_mtime_ns
    reference.write(tmp_path / "api")

    assert not (tmp_path / "api" / "gone.rst").exists()
    assert (tmp_path / "api" / "resilience.rst").stat().st_mtime_ns == before
    assert "resilience.events\n" in (tmp_path / "api" / "index.rst").read_text("utf-8")


def test_sections_have_listed_pages_and_those_that_match(folder: Path) -> None:
    assert pages.sections(folder) == [
        pages.Section("First", ["one.md", "more/two.md"], {"one.md": "One", "more/two.md": "Two"}),
        pages.Section("Second", ["more/x.md", "five.md", "four.md"]),
    ]
    assert pages.unlisted(folder) == ["six.md"]


@pytest.mark.parametrize("line", ["- [One](one.md)", "- [No](no.md)"])
def test_a_page_that_is_listed_twice_or_missing_is_refused(folder: Path, line: str) -> None:
    (folder / "index.md").write_text(f"{INDEX}{line}\n")

    with pytest.raises(ValueError, match=r"twice, or ones that do not exist: (one|no)\.md"):
        pages.sections(folder)


def test_llms_txt_has_titles_and_summaries(folder: Path) -> None:
    assert pages.llms_txt(folder).splitlines()[:7] == [
        "# Title",
        "",
        "> All about it.",
        "",
        "## First",
        "",
        "- [Page one](_sources/one.md): It is here.",
    ]
