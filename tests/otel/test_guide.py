"""The examples of the guide run as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from observatory_storage import StoragePool
from observatory_storage.otel import configuring
from tests.otel.test_exporters import named_spans

GUIDE = Path(__file__).parents[2] / "docs" / "otel-exporters.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


@pytest.mark.usefixtures("fresh_environment", "fresh_providers")
@pytest.mark.parametrize("has_console", [False, True])
def test_three_lines_and_then_data(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch, has_console: bool
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    three_lines, spans, console, _ = EXAMPLES
    if has_console:
        three_lines = three_lines.partition("\n")[0] + "\n" + console
    try:
        exec(three_lines + spans, {"__name__": "guide"})
        assert named_spans(pool) == ["answer"]
    finally:
        for telemetry in list(configuring._active):
            telemetry.shutdown()
    _close_shared_pool()


@pytest.mark.usefixtures("fresh_environment", "fresh_providers")
def test_exporters_by_hand(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    *_, by_hand = EXAMPLES
    exec(by_hand, {"__name__": "guide"})
    trace.get_tracer("app").start_span("request").end()
    provider: Any = trace.get_tracer_provider()
    provider.shutdown()
    assert named_spans(pool) == ["request"]
    _close_shared_pool()


def _close_shared_pool() -> None:
    """Close the pool of this test, which the database is dropped after."""
    from observatory_storage.shared_pool import shared_pool

    shared_pool().close()
