"""`docs/reference/` lists every public name, each once, and every public method is documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import observatory_embedded
import observatory_storage

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. (?:auto(?:class|exception|function)|data):: (\w+)$", re.MULTILINE)
MODULE = re.compile(r"^\.\. currentmodule:: ([\w.]+)$", re.MULTILINE)


@pytest.mark.parametrize("package", [observatory_storage, observatory_embedded])
def test_reference_lists_every_public_name_once(package: ModuleType) -> None:
    listed = [
        name
        for page in REFERENCE.glob("*.md")
        if package.__name__ in MODULE.findall(page.read_text())
        for name in DIRECTIVE.findall(page.read_text())
    ]
    assert sorted(listed) == sorted(package.__all__)


def test_index_of_the_reference_lists_every_page() -> None:
    pages = {page.stem for page in REFERENCE.glob("*.md")} - {"index"}
    index = (REFERENCE / "index.md").read_text()
    toctree = re.search(r"^```\{toctree\}\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    assert toctree
    assert set(toctree[1].split()) == pages


def test_every_public_method_has_a_docstring() -> None:
    undocumented = [
        f"{name}.{attribute}"
        for name in observatory_storage.__all__
        if inspect.isclass(cls := getattr(observatory_storage, name))
        for attribute, value in inspect.getmembers_static(cls)
        if not attribute.startswith("_") and _is_own_code(value) and not inspect.getdoc(value)
    ]
    assert undocumented == []


def _is_own_code(value: object) -> bool:
    """Whether this package defines the method or property, rather than a base class of others."""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    return inspect.isfunction(function) and function.__module__.startswith("observatory_storage")
