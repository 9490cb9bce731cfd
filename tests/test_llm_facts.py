"""Each LLM column and each of its attributes, by every way that a span is read, and a new one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import observatory_storage
from observatory_storage import CopyWriter, LlmSpan, StoragePool, TraceSpan, TraceWriter
from observatory_storage.llm import facts, facts_by_column
from observatory_storage.llm.aliases import holding
from observatory_storage.llm.dialects import ALIASES, IN_SECONDS, USAGE_COLUMNS
from observatory_storage.llm.readers import reader_of

# A value of a column's type, as an attribute has it.
SAMPLES: dict[type, Any] = {str: "text", int: 5, Decimal: 0.25, float: 0.5}
PAIRS = [(column, attribute) for column, attributes in ALIASES.items() for attribute in attributes]


def sample(column: str) -> Any:
    return SAMPLES[TraceSpan.__table__.c[column].type.python_type]


def expected(column: str, attribute: str) -> Any:
    value = sample(column)
    if attribute in IN_SECONDS:
        value *= 1000
    return Decimal(str(value)) if isinstance(value, float) and column != "ttft_ms" else value


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(("column", "attribute"), PAIRS)
def test_every_attribute_gives_its_column(column: str, attribute: str, is_json: bool) -> None:
    attributes = holding(attribute, sample(column))
    if is_json:  # structures are often JSON in text
        attributes = {
            key: json.dumps(value) if isinstance(value, (dict, list)) else value
            for key, value in attributes.items()
        }
    wanted = expected(column, attribute)
    single = facts(attributes, name="x", scope_name=None, resource_attributes={})
    assert single[column] == wanted
    many = facts_by_column(
        [attributes, {}], names=["x", "y"], scope_names=[None] * 2, resource_attributes=[{}] * 2
    )
    assert many[column] == [wanted, None]
    if column not in ("model", "operation"):  # which a call by hand always names
        assert getattr(LlmSpan(model="m", attributes=attributes).to_span(), column) == wanted


def test_every_column_is_stored_by_every_writer(pool: StoragePool) -> None:
    attributes = {attributes[0]: sample(column) for column, attributes in ALIASES.items()}
    wanted = {column: expected(column, names[0]) for column, names in ALIASES.items()}
    by_hand = LlmSpan(model="text", operation="text", attributes=attributes)
    copied = by_hand.to_span()
    row = {"trace_id": copied.trace_id, "span_id": "c" * 16, "name": "x", "service_name": "s"}
    # Two spans of one response would be one call, which counts once.
    other = attributes | {ALIASES["response_id"][0]: "another"}
    row |= {"start_time": copied.start_time, "attributes": other}
    with TraceWriter(pool) as writer:
        writer.write_span_from_llm(by_hand)
    assert CopyWriter(pool).write_spans([row]) == 1
    with pool.unit_of_work() as uow:
        stored = uow.traces.get_spans(copied.trace_id)
    assert len(stored) == 2
    assert {span.response_id for span in stored} == {wanted.pop("response_id"), "another"}
    for span in stored:
        assert {column: getattr(span, column) for column in wanted} == wanted


def test_usage_columns_are_the_tokens_and_the_costs() -> None:
    assert set(USAGE_COLUMNS) >= {
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_cost_usd", "completion_cost_usd", "total_cost_usd"),
    }
    others = {"provider", "model", "ttft_ms", "user_id", "session_id", "environment"}
    assert others.isdisjoint(USAGE_COLUMNS)


def test_a_column_without_a_reader_is_an_error() -> None:
    with pytest.raises(TypeError, match="start_time: no reader of attributes is known"):
        reader_of("start_time")


# What CONTRIBUTING.md says of a new column that attributes give.
NEW_COLUMN = "    session_id: Mapped[str | None] = mapped_column("
NEW_ALIASES = """    "user_id": ("""
PROGRAM = """
from observatory_storage.llm import LlmSpan, facts_by_column
key = "shop.spared_tokens"
span = LlmSpan(model="m", attributes={key: 5}).to_span()
assert span.spared_tokens == 5, span.spared_tokens
assert LlmSpan(model="m").to_span().spared_tokens is None
found = facts_by_column(
    [{key: 5}], names=["x"], scope_names=[None], resource_attributes=[{}]
)
assert found["spared_tokens"] == [5], found
print("read")
"""


def test_a_new_llm_column_needs_only_its_model_and_its_attributes(tmp_path: Path) -> None:
    package = tmp_path / "observatory_storage"
    shutil.copytree(
        Path(observatory_storage.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for path, before, added in (
        ("models/trace_spans.py", NEW_COLUMN, "    spared_tokens: Mapped[int | None]\n"),
        (
            "llm/dialects.py",
            NEW_ALIASES,
            '    "spared_tokens": ("shop.spared_tokens",),\n',
        ),
    ):
        text = (package / path).read_text()
        assert text.count(before) == 1
        (package / path).write_text(text.replace(before, added + before))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "read\n", done.stderr
