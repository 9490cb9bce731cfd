"""Examples of guides that stand by themselves run unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


def example_with(page: str, words: str) -> str:
    examples = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    (found,) = (example for example in examples if words in example)
    return str(found)


@pytest.fixture
def servers(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CACHE_TIMEOUT_MS", "5000")  # a busy machine may be slower than the default


@pytest.mark.parametrize(
    ("page", "words", "printed"),
    [
        ("payloads.md", "Rules of the shop", "3800\n"),
        ("llm.md", "Which river", ""),
        ("redis.md", "pool.cache.stats()", "1\n"),
        ("copy.md", "write_data_point", ""),
        ("sampling.md", "TailSampling", "101 stored\n1001 estimated, 1 failed\n"),
        ("operations.md", "EmbeddedValkey", "healthy\n"),
    ],
)
@pytest.mark.usefixtures("servers")
def test_example_runs(
    page: str, words: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example_with(page, words), page, "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(("page", "program"), [("celery.md", "tasks.py"), ("celery.md", "ask.py")])
def test_page_shows_the_program_that_the_soak_runs(page: str, program: str) -> None:
    code = (DOCS.parent / "examples" / Path(page).stem / program).read_text("utf-8")
    assert f"```python\n{code}```" in (DOCS / page).read_text("utf-8")
