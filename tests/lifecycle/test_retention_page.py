"""The Python examples of the page about retention run unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from observatory_storage.config import RetentionConfig
from observatory_storage.lifecycle.keep_rules import keep_filters
from tests import citus

PAGE = (Path(__file__).parents[2] / "docs/retention.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(
    example: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if citus.URL and "storage_size" in example:
        pytest.skip("on Citus no sizes are measured")
    monkeypatch.setenv("DATABASE_URL", database_url)
    exec(compile(example, "docs/retention.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.strip(), "an example shows something"


def test_the_settings_are_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = RetentionConfig(**yaml.safe_load(block)["retention"])
    assert len(keep_filters(config.keep)) == 2
