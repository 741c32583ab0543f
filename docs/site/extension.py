"""The Sphinx extension of this site: navigation from index.md, the API reference and a check of it, llms.txt."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

from docs.site import pages, reference

logger = logging.getLogger(__name__)
SHORT = {name.rpartition(".")[2]: name for name in reversed(reference.documented_names())}
"""Public names by their last part; those of `resilience` itself before those of other modules."""
QUOTED = re.compile(r"(?<![`:\w])`([^`\n]+)`(?![`_])")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what follows to the events of a build."""
    _read_private_modules()
    # Napoleon would take "The name: ..." of an attribute for its type.
    _replace(GoogleDocstring, "_parse_attribute_docstring", lambda self: list(self._lines))
    app.connect("builder-inited", lambda app: reference.write(Path(app.srcdir) / "api"))
    app.connect("source-read", _add_navigation)
    app.connect("autodoc-skip-member", _is_internal)
    app.connect("autodoc-process-docstring", _format_docstring, priority=400)  # before napoleon
    app.connect("env-check-consistency", _check_names)
    app.connect("build-finished", _write_llms_txt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Append the navigation to index.md, and fill in the lists that a comment in it describes."""
    if f"{name}.md" != pages.INDEX:
        return
    folder = Path(app.srcdir)
    trees: list[str] = []
    for section in pages.sections(folder):
        more = [page for page in section.pages if f"]({page})" not in source[0]]
        items = [f"- [{pages.title_of((folder / page).read_text('utf-8'))}]({page})" for page in more]
        heading = f"## {section.title}\n"
        before, _, after = source[0].partition(heading)
        source[0] = before + heading + pages.ALSO.sub("\n".join(items) or " ", after, count=1) if items else source[0]
        entries = [f"{section.labels[page]} <{page}>" if page in section.labels else page for page in section.pages]
        trees.append(_toctree(section.title, entries))
    trees.append(_toctree("API", ["api/index"]))
    source[0] = "\n".join([source[0], *trees])


def _toctree(caption: str, entries: list[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""])


def _is_internal(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out members whose docstring says that they are internal, though their names have no underscore."""
    return True if (getattr(obj, "__doc__", None) or "").rstrip().endswith("Internal.") else None


def _format_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, which is plain text with names in backticks, blocks and Markdown tables."""
    found: list[str] = []
    block = False
    for line in lines:
        indented = line.startswith("    ")
        if line and not indented:
            block = False
        elif indented and found and not found[-1] and not block and not _is_section(found):
            found += ["::", ""]
            block = True
        if line.startswith("|"):
            found += _table_row(line, is_first=not (found and found[-1].startswith("   ")))
        else:
            found.append(line if block else _format_text(line))
    lines[:] = found


def _is_section(found: list[str]) -> bool:
    """Whether the last line at the margin is a heading such as "Args:"."""
    return next((line for line in reversed(found) if line and not line.startswith(" ")), "").endswith(":")


def _table_row(line: str, *, is_first: bool) -> list[str]:
    """A row of a Markdown table as one of a list-table, below its directive if it is the first one."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if set("".join(cells)) <= set("-: "):
        return []
    head = ["", ".. list-table::", "   :header-rows: 1", ""] if is_first else []
    marks = ["   * -", *["     -"] * (len(cells) - 1)]
    return [*head, *(f"{mark} {_format_text(cell)}" for mark, cell in zip(marks, cells, strict=True))]


def _format_text(line: str) -> str:
    """Escape what only reStructuredText gives a meaning, and turn names in backticks into links."""
    indent = line[: -len(line.lstrip())]
    parts = QUOTED.split(line.lstrip())  # text and quoted in turns
    parts[::2] = [re.sub(r"(?<!\*)(?<!^)\*(?!\*)|\|", r"\\\g<0>", part) for part in parts[::2]]
    after = [part[:1].isalpha() for part in parts[2::2]]  # as in "`Ending`s"
    parts[1::2] = [_link(part) + ("\\ " if joined else "") for part, joined in zip(parts[1::2], after, strict=True)]
    return indent + "".join(parts)


def _link(text: str) -> str:
    """A link to a public name, or the text as code."""
    name = text.removesuffix("()")
    target = name if name in SHORT.values() else SHORT.get(name)
    return f":py:obj:`{text} <{target}>`" if target else f"``{text}``"


def _read_private_modules() -> None:
    """Have autodoc find what stands below constants and members of enumerations in the private modules.

    Public names say that they are of a public module, which is true for users, but their source is elsewhere.
    """
    original = cast(Callable[[str], ModuleAnalyzer], ModuleAnalyzer.for_module)
    merged_modules: set[str] = set()

    def for_module(name: str) -> ModuleAnalyzer:
        analyzer = original(name)
        if name.partition(".")[0] == "resilience" and name not in merged_modules:
            merged_modules.add(name)
            analyzer.analyze()
            for path in sorted(reference.SOURCE.rglob("*.py")):
                parts = path.relative_to(reference.SOURCE.parent).with_suffix("").parts
                private = original(".".join(part for part in parts if part != "__init__"))
                private.analyze()
                for attribute in ("attr_docs", "tagorder", "overloads", "annotations"):
                    merged: dict[Any, Any] = getattr(analyzer, attribute)
                    setattr(analyzer, attribute, {**getattr(private, attribute), **merged})
        return analyzer

    _replace(ModuleAnalyzer, "for_module", staticmethod(for_module))


def _replace(owner: type, name: str, value: object) -> None:
    """Replace a method of Sphinx, which has no setting for what is wanted."""
    setattr(owner, name, value)


def _check_names(app: Sphinx, env: Any) -> None:
    """Complain of public names and modules that the reference does not have."""
    domain = cast(PythonDomain, env.get_domain("py"))
    wanted = {*reference.documented_names(), *reference.public_modules()}
    for name in sorted(wanted - domain.objects.keys()):
        logger.warning("the API reference lacks %s", name)


def _write_llms_txt(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        text = pages.llms_txt(Path(app.srcdir))
        (Path(app.outdir) / "llms.txt").write_text(text, "utf-8")
