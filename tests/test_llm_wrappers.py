"""Spans that only repeat the usage of the model calls inside them."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage.llm import facts
from observatory_storage.llm.dialects import USAGE_COLUMNS, WRAPPER_NAMES, WRAPPER_VALUES


def read(
    attributes: dict[str, Any],
    *,
    name: str = "span",
    scope_name: str | None = None,
    resource: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return facts(attributes, name=name, scope_name=scope_name, resource_attributes=resource or {})


def test_the_sum_over_a_vercel_trace_is_what_the_model_used() -> None:
    outer = {
        "ai.operationId": "ai.generateText",
        "operation.name": "ai.generateText weather",
        "ai.model.id": "gpt-4o-mini",
        "ai.model.provider": "openai.chat",
        "ai.usage.promptTokens": 250,
        "ai.usage.completionTokens": 50,
        "ai.telemetry.metadata.userId": "u-1",
    }
    steps = [
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.model.id": "gpt-4o-mini",
            "ai.model.provider": "openai.chat",
            "ai.usage.promptTokens": prompt,
            "ai.usage.completionTokens": completion,
            "gen_ai.system": "openai.chat",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": prompt,
            "gen_ai.usage.output_tokens": completion,
        }
        for prompt, completion in ((100, 20), (150, 30))
    ]
    tool = {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "weather"}
    spans = [
        read(outer, name="ai.generateText"),
        read(steps[0], name="ai.generateText.doGenerate"),
        read(tool, name="ai.toolCall"),
        read(steps[1], name="ai.generateText.doGenerate"),
    ]
    assert spans[0] == {"provider": "openai.chat", "model": "gpt-4o-mini", "user_id": "u-1"}
    for column, expected in (
        ("prompt_tokens", 250),
        ("completion_tokens", 50),
        ("total_tokens", 300),
    ):
        assert sum(span.get(column, 0) for span in spans) == expected


USAGE = {
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 113,
    "gen_ai.usage.output_tokens": 11,
    "llm.token_count.total": 124,
    "llm.cost.prompt": 1,
    "llm.cost.completion": 2,
    "llm.cost.total": 3,
}


@pytest.mark.parametrize(
    ("mark", "value"),
    [(mark, value) for mark, values in WRAPPER_VALUES.items() for value in sorted(values)],
)
def test_a_wrapper_by_its_attributes_has_a_model_but_no_usage(mark: str, value: str) -> None:
    assert read(USAGE | {mark: value}) == {"model": "m"}
    assert read(USAGE | {mark: value.upper()}) == {"model": "m"}


@pytest.mark.parametrize(
    ("name", "scope_name"),
    [(name, scope or "any") for scope, names in WRAPPER_NAMES.items() for name in sorted(names)]
    + [("invoke_agent", None), ("invoke_agent Math Tutor", "strands.telemetry.tracer")],
)
def test_a_wrapper_by_its_name_has_a_model_but_no_usage(name: str, scope_name: str | None) -> None:
    assert read(USAGE, name=name, scope_name=scope_name) == {"model": "m"}


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({}, "chat m"),
        ({}, "agent run"),
        ({}, "invoke_agents"),
        ({"gen_ai.operation.name": "chat"}, "chat m"),
        ({"openinference.span.kind": "LLM"}, "OpenAIModel.__call__"),
        ({"openinference.span.kind": "EMBEDDING"}, "CreateEmbeddings"),
        ({"ai.operationId": "ai.streamObject.doStream"}, "ai.streamObject.doStream"),
        ({"traceloop.span.kind": "task"}, "summarise.task"),
        ({"ai.operationId": ["ai.generateText"]}, "step"),
    ],
)
def test_a_span_that_may_not_be_a_wrapper_keeps_its_usage(
    attributes: dict[str, Any], name: str
) -> None:
    found = read(USAGE | attributes, name=name)
    usage = {column: found[column] for column in USAGE_COLUMNS if column in found}
    assert usage == {
        "prompt_tokens": 113,
        "completion_tokens": 11,
        "total_tokens": 124,
        "prompt_cost_usd": 1,
        "completion_cost_usd": 2,
        "total_cost_usd": 3,
    }
