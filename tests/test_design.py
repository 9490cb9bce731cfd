"""The way of a row to COPY that docs/design.md draws consists of functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
(WALK,) = (
    walk
    for walk in re.findall(r"(?ms)^```text\n(.*?)^```", (ROOT / "docs/design.md").read_text())
    if "write_span" in walk
)
MODULES = sorted(set(re.findall(r"[\w/]+\.py", WALK)))
# What stands left of a line's module: names, some of them of methods.
NAMES = sorted(
    {
        name
        for line in WALK.splitlines()
        for step in re.findall(
            r"[A-Za-z_.]+_[a-z_]+|[A-Z]\w+\.\w+", re.split(r"\s{2,}\w+/", line)[0]
        )
        for name in step.split(".")
    }
)


def test_the_walk_goes_from_the_call_to_copy() -> None:
    assert {"write_span", "store_into", "write_batch", "SpanCopy", "copy_parts"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_of_the_walk_is_defined_in_its_modules(name: str) -> None:
    source = "".join((ROOT / "observatory_storage" / module).read_text() for module in MODULES)
    assert name == "rows" or re.search(rf"\b(def|class) {name}\b", source)
