"""The site: ``make site`` builds it into ``build/site``, without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import counterpoise

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402

project = "Counterpoise"
author = copyright = "The Counterpoise developers"
version = release = counterpoise.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # the site asks no other host for anything
]

html_theme = "furo"
html_title = f"Counterpoise {version}"
html_show_copyright = html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_in_temp = nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "set_fit_request, set_score_request",  # made by scikit-learn
}
napoleon_use_ivar = True
toc_object_entries = False


def for_the_site(app: Sphinx, name: str, source: list[str]) -> None:
    """What a page needs here and not where the repository is read: its children, and files outside as downloads."""

    def outside(link: re.Match[str]) -> str:
        file = (HERE / name).parent / link[1]
        away = "://" not in link[1] and file.exists() and not file.resolve().is_relative_to(HERE)
        return f"](path:{link[1]})" if away else link[0]

    source[0] = re.sub(r"\]\(([^)#\s]+)\)", outside, source[0])
    if name in ("benchmarks/README", "methods/README"):
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    reference.write()
    app.connect("source-read", for_the_site)
