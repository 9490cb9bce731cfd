"""The examples of docs/arrow.md run in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "arrow.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_run(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = []
    for example in EXAMPLES:
        exec(compile(example, PAGE.name, "exec"), namespace)
        printed.append(capsys.readouterr().out)
    assert [bool(text) for text in printed] == [False, True, True, True, False]
    assert re.search(r"gpt-4o +200", printed[1])
    assert "800000.0" in printed[1]
    assert printed[2] == "3\n"
    assert "group.model" in printed[3]
    assert "span_start_time" in printed[3]
    assert list(tmp_path.iterdir()) == []
