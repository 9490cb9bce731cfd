"""Configuration of Sphinx: `make docs` builds these pages and the API reference from docstrings."""

from __future__ import annotations

import importlib.metadata
import logging

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "observatory_storage"
release = importlib.metadata.version("observatory-storage")
copyright = "the authors of observatory_storage"  # noqa: A001 - Sphinx's name for the setting

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "observatory_storage"

# Links such as `design.md#partitions` lead to headings, as they do on GitHub.
myst_heading_anchors = 3

# `StoragePool` in a docstring is a link.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# "Attributes:" of a dataclass become a list, not entries beside those of its fields.
napoleon_use_ivar = True
napoleon_numpy_docstring = False

napoleon_custom_sections = [("Attributes", "params_style")]

# Alembic logs its plugins when it is imported.
logging.getLogger("alembic").setLevel(logging.WARNING)


def setup(app: Sphinx) -> None:
    """Show Mermaid diagrams as text: GitHub draws them, and Pygments has no lexer for them."""
    app.add_lexer("mermaid", TextLexer)
