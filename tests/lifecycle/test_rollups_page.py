"""The examples of the page about rollups run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from observatory_storage.pool import StoragePool
from tests.lifecycle.rolled import LATER, a_span, refresh, write

PAGE = Path(__file__).parents[2] / "docs" / "rollups.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs(
    example: str, pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pool, a_span(1))
    refresh(pool, LATER)
    monkeypatch.setenv("DATABASE_URL", database_url)
    exec(compile(example, PAGE.name, "exec"), {"__name__": "page"})
