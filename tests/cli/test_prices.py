"""`prices`: loading, showing, and computing costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from observatory_storage import CopyWriter, StorageError, StoragePool
from observatory_storage.storing import cost_recompute
from tests.commands import Run
from tests.pricing.price_list import price_file
from tests.pricing.spans_of_calls import a_call, costs, price_model


def test_prices_are_loaded_listed_and_shown(
    run: Run, database_url: str, pool: StoragePool, tmp_path: Path
) -> None:
    path = str(price_file(tmp_path))
    loaded = run("prices", "load", path, DATABASE_URL=database_url)
    assert (loaded.code, loaded.out.strip()) == (
        0,
        "user: 7 prices, 7 new, 0 changed, 0 removed",
    )
    again = run("prices", "load", path, "--replace", "--json", DATABASE_URL=database_url)
    assert again.document["new"] == 0
    listed = run("prices", "list", "--provider", "anthropic", DATABASE_URL=database_url)
    assert "claude-sonnet-4" in listed.out
    assert "gpt-4o" not in listed.out
    shown = run(
        *("prices", "show", "GPT-4o-2024-08-06", "--provider", "openai", "--at", "2026-03-15"),
        *("--json",),
        DATABASE_URL=database_url,
    )
    assert shown.document["model"] == "gpt-4o"
    assert shown.document["rates"]["input"] == 2
    tier = ("prices", "show", "gpt-4o", "--service-tier", "batch")
    assert "batch" in run(*tier, DATABASE_URL=database_url).out


def test_a_bad_file_is_named_with_entry_field_and_value(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    path = price_file(tmp_path, "prices: [{model: m, usd_per_million_tokens: {input: -1}}]")
    refused = run("prices", "load", str(path), DATABASE_URL=database_url)
    assert refused.code == 1
    assert "prices[0].usd_per_million_tokens.input=-1: must be from 0" in refused.err
    missing = run("prices", "load", "none.yaml", DATABASE_URL=database_url)
    assert missing.code == 2
    assert "cannot be read" in missing.err


def test_the_prices_of_the_package_are_imported(
    run: Run, database_url: str, pool: StoragePool
) -> None:
    imported = run("prices", "import", DATABASE_URL=database_url)
    assert imported.code == 0
    assert imported.out.startswith("genai-prices ")
    assert "more, which --json lists" in imported.err
    assert run("prices", "list", "--own", DATABASE_URL=database_url).out.count("\n") <= 1


def test_unpriced_models_are_listed_and_recomputed(
    run: Run, database_url: str, pool: StoragePool
) -> None:
    flex = {"openai.request.service_tier": "flex"}
    CopyWriter(pool).write_spans([a_call(), a_call(1, 2, model="x", attributes=flex)])
    since = ("--since", "2026-01-01", "--json")
    listed = run("prices", "unpriced", *since, DATABASE_URL=database_url)
    documents = list(map(json.loads, listed.out.splitlines()))
    assert [(each["model"], each["service_tier"]) for each in documents] == [
        *(("m", None), ("x", "flex")),
    ]
    assert documents[0]["total_tokens"] == 1100
    price_model(pool, 1)
    done = run("prices", "recompute", DATABASE_URL=database_url)
    assert done.out.strip() == "2 spans read, 1 changed"
    assert costs(pool)[0][1] == "computed"
    listed = run("prices", "unpriced", "--since", "2026-01-01", DATABASE_URL=database_url)
    assert "flex" in listed.out


def test_recomputing_says_where_to_continue(
    run: Run, database_url: str, pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    CopyWriter(pool).write_spans([a_call(number, number) for number in range(1, 5)])
    price_model(pool, 1)
    first = run("prices", "recompute", "--max-spans", "1", "--json", DATABASE_URL=database_url)
    assert first.document["changed_spans"] == 1
    since = first.document["next_start"]
    monkeypatch.setattr(cost_recompute, "_SPANS_AT_A_TIME", 1)
    recompute, left = cost_recompute._recompute, [1, 0]

    def interrupted(*arguments: object) -> int:
        if not left.pop(0):
            raise StorageError("away")
        return recompute(*arguments)  # type: ignore[arg-type]  # as they were passed

    with monkeypatch.context() as patch:
        patch.setattr(cost_recompute, "_recompute", interrupted)
        stopped = run("prices", "recompute", "--since", since, DATABASE_URL=database_url)
    assert stopped.code == 1
    told, _, since = stopped.err.splitlines()[0].partition("; continue with --since ")
    assert told == "1 span read, 1 changed"
    rest = run("prices", "recompute", "--start", since, DATABASE_URL=database_url)
    assert rest.out.strip() == "3 spans read, 2 changed"
