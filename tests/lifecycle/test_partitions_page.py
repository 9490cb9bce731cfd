"""What docs/partitions.md says of ranges and names is so."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from observatory_storage.layout import is_partition
from observatory_storage.pool import StoragePool

PAGE = (Path(__file__).parents[2] / "docs/partitions.md").read_text(encoding="utf-8")


def test_the_example_is_a_configuration() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(block, "docs/partitions.md", "exec"), found)
    assert found["config"].partitions.width_of("trace_events") == "hour"
    assert found["config"].partitions.width_of("logs") == "week"


def test_the_names_are_those_of_partitions() -> None:
    names = re.findall(r"`(logs_[pf]\w+)`", PAGE)
    assert len(names) > 8
    assert all(map(is_partition, names))


def test_the_queries_run(pool: StoragePool) -> None:
    queries = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(queries) == 2
    with pool.engine.connect() as connection:
        for query in queries:
            assert connection.exec_driver_sql(query).all() == []


def test_a_week_is_named_by_its_monday() -> None:
    assert datetime.fromisocalendar(2026, 5, 1).replace(tzinfo=UTC) == datetime(
        2026, 1, 26, tzinfo=UTC
    )
