"""What docs/observing.md says is so: its metrics, its facts and its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import prometheus_client
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import observatory_storage
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import NotFound
from observatory_storage.operations import OperationKind, StoreOperation
from observatory_storage.pool import StoragePool
from tests.observing.store_metrics import used

PAGE = (Path(__file__).parents[2] / "docs" / "observing.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def rows_of(table: str) -> list[list[str]]:
    """The cells of a table of the page, without its head."""
    lines = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[1:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    """A pool with a read server, which is the same one."""
    both = PostgresConfig.from_url(database_url, read_url=database_url)
    with StoragePool(StorageConfig(postgres=both)) as pool:
        yield pool


def test_the_table_of_metrics_lists_what_is_exposed(pool: StoragePool) -> None:
    (table,) = re.findall(r"<!-- metrics -->\n(.*?)<!-- end", PAGE, re.DOTALL)
    said = {}
    for name, kind, labels, *_ in rows_of(table.replace("| |", "|  |")):
        said[name.strip("`")] = (kind, set(names_in(labels)))
    with used(pool) as (_, hook):
        body, _ = hook.exposition()
    exposed: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found = {label for sample in family.samples for label in sample.labels} - {"le"}
        if not name.endswith("_created"):
            exposed[name] = (family.type, found)
    assert said == exposed


def test_the_tables_of_facts_list_all_fields_and_operations() -> None:
    named = [names_in(row[0]) for row in rows_of(PAGE)]
    listed = {name for cell in named for name in cell}
    assert {each.name for each in fields(StoreOperation)} <= listed
    assert set(get_args(OperationKind)) <= listed


def test_alerts_ask_for_what_is_exposed(pool: StoragePool) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (group,) = yaml.safe_load(text)["groups"]
    with used(pool) as (_, hook):
        exposed = hook.exposition()[0].decode()
    for rule in group["rules"]:
        promql_parser.parse(rule["expr"])
        for name in re.findall(r"storage_\w+", rule["expr"]):
            assert f"\n{name}" in exposed


@pytest.fixture
def page(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The names after the first two examples have run."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    names: dict[str, Any] = {}
    for example in EXAMPLES[:2]:
        exec(example, names)
    return names


def test_the_first_examples_note_what_fails(page: Mapping[str, Any]) -> None:
    pool: observatory_storage.StoragePool = page["pool"]
    with pool, pool.unit_of_work() as uow, pytest.raises(NotFound):
        uow.traces.get("no such trace")
    assert page["failures"] == [("query", "traces", "NotFound")]
    assert len(pool.hooks.registered) == 3
