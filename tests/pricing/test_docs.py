"""The examples of docs/pricing.md run, and its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from observatory_storage import StoragePool, load_prices
from observatory_storage.pricing import SERVICE_TIERS, STANDARD_TIERS
from observatory_storage.pricing.price import RATES
from observatory_storage.pricing.price_files import _ENTRY
from tests.pricing.price_list import price_file

TEXT = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_file_can_be_loaded(pool: StoragePool, tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    assert load_prices(pool, price_file(tmp_path, text)).new == 5


def test_the_examples_run(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    for example in blocks("python"):
        exec(compile(example, "pricing.md", "exec"), namespace)
    assert capsys.readouterr().out.splitlines() == ["1 1", "0 0"]


def test_the_query_runs(pool: StoragePool) -> None:
    with pool.engine.connect() as connection:
        for query in blocks("sql"):
            assert connection.exec_driver_sql(query).all() == []


def test_all_keys_are_explained() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", TEXT, re.MULTILINE)
    keys = [key for first, _ in rows for key in re.findall(r"`(\w+)`", first)]
    assert set(_ENTRY) <= set(keys)
    (rates,) = (text for first, text in rows if first == "`usd_per_million_tokens`")
    assert re.findall(r"`(\w+)`", rates) == list(RATES)


def test_the_attributes_of_service_tiers_are_listed() -> None:
    listed = re.findall(r"`([\w.]+\.service_tier)`", TEXT)
    assert listed == list(SERVICE_TIERS)
    paragraph = next(part for part in TEXT.split("\n\n") if SERVICE_TIERS[0] in part)
    assert set(re.findall(r"`(\w+)`", paragraph)) == STANDARD_TIERS - {"", "none"}
