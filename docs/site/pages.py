"""The pages in the order of index.md, which is the one list of them: navigation and llms.txt are made from it.

index.md is plain Markdown, so that it can be read without a build. Each of its second-level headings is a section of
the navigation, and each link in the list below it is a page. A comment `<!-- also: recipes/*, jobs* -->` in a section
adds the pages that match one of these patterns and are not listed, in alphabetical order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

PAGES = Path(__file__).resolve().parents[1]
INDEX = "index.md"
HEADING = re.compile(r"## (?P<title>.+)")
LISTED = re.compile(r"- \[(?P<label>[^\]]+)\]\((?P<page>[\w./-]+\.md)\)")
ALSO = re.compile(r"<!-- also: (?P<patterns>.+) -->")
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


@dataclass
class Section:
    """A part of the navigation."""

    title: str
    pages: list[str] = field(default_factory=list)
    """The paths of the pages, relative to the folder of index.md."""
    labels: dict[str, str] = field(default_factory=dict)
    """The texts of the links to them, which are short; pages that a pattern has added have none."""


def sections(folder: Path = PAGES) -> list[Section]:
    """The sections of index.md with their pages; a section without pages is left out.

    Raises:
        ValueError: a page is listed twice, or does not exist.
    """
    text = (folder / INDEX).read_text("utf-8")
    listed = [match["page"] for match in map(LISTED.match, text.splitlines()) if match]
    wrong = {page for page in listed if listed.count(page) > 1 or not (folder / page).is_file()}
    if wrong:
        raise ValueError(f"{INDEX} lists pages twice, or ones that do not exist: {', '.join(sorted(wrong))}")
    found: list[Section] = []
    seen = {INDEX, *listed}
    for line in text.splitlines():
        if heading := HEADING.fullmatch(line):
            found.append(Section(heading["title"]))
        elif page := LISTED.match(line):
            found[-1].pages.append(page["page"])
            found[-1].labels[page["page"]] = page["label"]
        elif also := ALSO.fullmatch(line):
            for pattern in also["patterns"].split(", "):
                more = sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"{pattern}.md"))
                found[-1].pages += [name for name in more if name not in seen]
                seen.update(more)
    return [section for section in found if section.pages]


def unlisted(folder: Path = PAGES) -> list[str]:
    """The pages that no section has."""
    listed = {INDEX, *(page for section in sections(folder) for page in section.pages)}
    return sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*.md")} - listed)


def title_of(text: str) -> str:
    """The first heading of a page."""
    return next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")


def summary_of(text: str) -> str:
    """The first sentence below the first heading of a page, without its links; empty if something else stands there."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    first = " ".join(blocks[1].split()) if len(blocks) > 1 else ""
    if not first[:1].isalpha() and not first.startswith(("`", "[")):
        return ""
    return LINK.sub(r"\1", re.split(r"(?<=[.:]) ", first)[0]).rstrip(":.") + "."


def llms_txt(folder: Path = PAGES, *, prefix: str = "_sources/") -> str:
    """The pages as llms.txt (llmstxt.org): the Markdown of each of them, in the order of the navigation."""
    index = (folder / INDEX).read_text("utf-8")
    lines = [f"# {title_of(index)}", "", f"> {summary_of(index)}"]
    for section in sections(folder):
        lines += ["", f"## {section.title}", ""]
        for page in section.pages:
            text = (folder / page).read_text("utf-8")
            summary = summary_of(text)
            lines.append(f"- [{title_of(text)}]({prefix}{page})" + (f": {summary}" if summary else ""))
    return "\n".join(lines) + "\n"
