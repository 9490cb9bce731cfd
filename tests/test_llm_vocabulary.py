"""Operations, providers, agents and tools have one name, however instrumentations spell them."""

from __future__ import annotations

import pytest

from observatory_storage.llm import facts


@pytest.mark.parametrize(
    ("kind", "key", "operation", "column"),
    [
        ("tool", "langfuse.observation.type", "execute_tool", "tool_name"),
        ("agent", "langfuse.observation.type", "invoke_agent", "agent_name"),
        ('"TOOL"', "mlflow.spanType", "execute_tool", "tool_name"),
        ("AGENT", "openinference.span.kind", "invoke_agent", "agent_name"),
        ("tool", "langsmith.span.kind", "execute_tool", "tool_name"),
    ],
)
def test_a_span_of_an_agent_or_a_tool_has_its_name(
    kind: str, key: str, operation: str, column: str
) -> None:
    found = facts({key: kind}, name="get_weather", scope_name=None, resource_attributes={})
    assert found == {"operation": operation, column: "get_weather"}


def test_an_entity_of_openllmetry_names_the_agent_or_the_tool() -> None:
    attributes = {"traceloop.span.kind": "tool", "traceloop.entity.name": "get_weather"}
    found = facts(attributes, name="get_weather.tool", scope_name=None, resource_attributes={})
    assert found == {"operation": "execute_tool", "tool_name": "get_weather"}
    del attributes["traceloop.entity.name"]
    found = facts(attributes, name="get_weather.tool", scope_name=None, resource_attributes={})
    assert found == {"operation": "execute_tool"}


@pytest.mark.parametrize(
    ("spelling", "provider"),
    [
        ("OpenAI", "openai"),
        ("openai.responses", "openai"),
        ("azure-openai.chat", "azure.ai.openai"),
        ("google.vertex.chat", "gcp.vertex_ai"),
        ("google.generative-ai", "gcp.gemini"),
        ("Google", "gcp.gen_ai"),
        ("amazon-bedrock", "aws.bedrock"),
        ("anthropic.messages", "anthropic"),
        ("MistralAI", "mistral_ai"),
        ("xai", "x_ai"),
        ("Our Gateway", "Our Gateway"),
        ("langchain", None),
        ("strands-agents", None),
    ],
)
def test_a_provider_has_one_spelling(spelling: str, provider: str | None) -> None:
    found = facts({"gen_ai.system": spelling}, name="x", scope_name=None, resource_attributes={})
    assert found.get("provider") == provider


@pytest.mark.parametrize(
    ("key", "kind", "operation"),
    [
        ("gen_ai.operation.name", "realtime_inference", "realtime_inference"),
        ("gen_ai.operation.name", "Our Step", "Our Step"),
        ("gen_ai.operation.name", "UNKNOWN", None),
        ("openinference.span.kind", "RETRIEVER", "retrieval"),
        ("openinference.span.kind", "GUARDRAIL", "guardrail"),
        ("traceloop.span.kind", "workflow", "invoke_workflow"),
        ("llm.request.type", "embedding", "embeddings"),
        ("llm.request.type", "completion", "text_completion"),
        ("ai.operationId", "ai.streamText.doStream", "chat"),
        ("ai.operationId", "ai.toolCall", "execute_tool"),
        ("langfuse.observation.type", "span", None),
        ("mlflow.spanType", '"CHAIN"', "invoke_workflow"),
        ("gen_ai.span.kind", "LLM", "chat"),
    ],
)
def test_kinds_of_spans_become_operations(key: str, kind: str, operation: str | None) -> None:
    found = facts({key: kind}, name="x", scope_name=None, resource_attributes={})
    assert found.get("operation") == operation
