"""The configuration of Sphinx: `python3 dev.py docs` builds the site."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for docs.site

project = "resilience"
author = "The resilience contributors"
project_copyright = author
version = release = version_of("resilience-client")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
    "docs.site.extension",
]
nitpicky = True
# Types of others, type variables and private aliases: only our own public names can be resolved here.
nitpick_ignore_regex = [(r"py:(class|exc|data|obj)", r"(?!resilience\.)[\w. ]+|resilience\.(\w+\.)*_.*")]
# The picture of the dashboard comes with the dashboard.
suppress_warnings = [] if (Path(__file__).parent / "dashboards").is_dir() else ["image.not_readable"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["tasklist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_title = f"resilience {version}"
html_sourcelink_suffix = ""
html_copy_source = True
