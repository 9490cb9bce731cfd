"""The examples of docs/your-own-queries.md run in their order, and what the page says is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from observatory_storage.layout import PARTITIONED
from observatory_storage.models import Base
from observatory_storage.tables import OWN_TABLES

PAGE = Path(__file__).parent.parent / "docs" / "your-own-queries.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODELS = {mapper.class_.__name__: mapper for mapper in Base.registry.mappers}


def test_the_examples_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = []
    for example in EXAMPLES:
        exec(compile(example, PAGE.name, "exec"), namespace)
        printed.append(capsys.readouterr().out)
    silent = [index for index, text in enumerate(printed) if not text]
    assert silent == [0, 8], "only the one that writes and the one that changes a row are silent"
    assert printed[1].splitlines() == ["gpt-4o 0.004", "claude-sonnet 0.002"]
    assert printed[2].splitlines() == ["3", "3"]
    assert len(printed[3].splitlines()) == 3
    assert "['retry']" in printed[4]
    assert printed[5] == "1\n"
    assert printed[7].endswith("values were sent more than once\n")
    assert "order-0" in printed[9]
    with psycopg.connect(database_url) as connection:
        changed = connection.execute(
            "SELECT status_message, attributes FROM traces WHERE trace_id = 'order-0'"
        ).fetchone()
    assert changed == ("looked into", {"ticket": 17})


def test_the_sql_runs(database_url: str) -> None:
    statements = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
    assert len(statements) == 2
    with psycopg.connect(database_url) as connection:
        for statement in statements:
            assert connection.execute(statement).fetchall() == []


def test_every_relationship_is_listed() -> None:
    listed = set(re.findall(r"`(\w+\.\w+)`", TEXT.partition("## Joins")[2].partition("```")[0]))
    known = {
        f"{name}.{relationship.key}"
        for name, mapper in MODELS.items()
        for relationship in mapper.relationships
    }
    assert known == listed


def test_every_partition_column_is_listed() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", TEXT, re.MULTILINE)
    own = {name: column for name, column in PARTITIONED.items() if name not in OWN_TABLES}
    assert {str(MODELS[model].local_table): column for model, column in rows} == own


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_column_and_relationship_is_documented(name: str) -> None:
    mapper = MODELS[name]
    undocumented = [attribute.key for attribute in mapper.attrs if not attribute.doc]
    assert undocumented == []
    for relationship in mapper.relationships:
        assert relationship.viewonly
        assert relationship.lazy == "raise"
