"""The examples of the page about streams run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from observatory_storage import StoragePool
from tests.streams.live import write_logs

PAGE = Path(__file__).parents[2] / "docs" / "streams.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs(
    example: str,
    live: StoragePool,
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_logs(live, [1], severity_number=17)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    exec(compile(example, PAGE.name, "exec"), {"__name__": "page"})
