"""Spans as the instrumentations of 2026 report them: which columns they give."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage.llm import facts, facts_by_column

LANGFUSE = {
    "langfuse.observation.type": "generation",
    "langfuse.observation.model.name": "gpt-4o",
    "langfuse.observation.usage_details": json.dumps(
        {"input": 37, "input_cached_tokens": 64, "output": 9, "output_reasoning": 8, "total": 118}
    ),
    "langfuse.observation.cost_details": '{"input": 0.0006, "output": 0.00045, "total": 0.00105}',
    "langfuse.observation.prompt.name": "greeting",
    "langfuse.observation.metadata.finish_reason": '"stop"',
    "langfuse.environment": "staging",
    "langfuse.user.id": "u-1",
    "langfuse.session.id": "s-1",
}
LANGSMITH = {
    "langsmith.span.kind": "llm",
    "gen_ai.system": "langchain",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 101,
    "gen_ai.usage.output_tokens": 17,
    "gen_ai.usage.total_tokens": 118,
    "gen_ai.usage.input_token_details": {"audio": 0, "cache_read": 64},
    "gen_ai.usage.output_token_details": {"audio": 0, "reasoning": 8},
    "langsmith.metadata.ls_provider": "openai",
    "langsmith.metadata.user_id": "ada",
    "langsmith.metadata.thread_id": "t-1",
    "langsmith.metadata.lc_hub_repo": "greeting",
}
MLFLOW = {
    "mlflow.spanType": '"CHAT_MODEL"',
    "mlflow.llm.model": '"claude-sonnet-4-5"',
    "mlflow.message.format": '"anthropic"',
    "mlflow.chat.tokenUsage": json.dumps(
        {
            "input_tokens": 101,
            "output_tokens": 17,
            "total_tokens": 118,
            "cache_read_input_tokens": 64,
            "cache_creation_input_tokens": 30,
        }
    ),
    "mlflow.llm.cost": '{"input_cost": 0.1, "output_cost": 0.2, "total_cost": 0.3}',
    "mlflow.linkedPrompts": '[{"name": "greeting", "version": "3"}]',
    "mlflow.trace.session": '"s-1"',
    "mlflow.trace.user": '"ada"',
}
PYDANTIC_AI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.usage.input_tokens": 2401,
    "gen_ai.usage.output_tokens": 17,
    "gen_ai.usage.cache_creation.input_tokens": 300,
    "gen_ai.usage.details.cache_read_input_tokens": 2000,
    "gen_ai.client.operation.time_to_first_chunk": 0.412,
    "gen_ai.response.finish_reasons": ["tool_call"],
    "gen_ai.agent.name": "weather_agent",
    "operation.cost": 0.002283,
}
CLAUDE_CODE = {
    "span.type": "llm_request",
    "session.id": "s-1",
    "model": "claude-opus-5",
    "gen_ai.system": "anthropic",
    "input_tokens": 2,
    "output_tokens": 1200,
    "cache_read_tokens": 84562,
    "cache_creation_tokens": 7096,
    "ttft_ms": 812,
    "stop_reason": "tool_use",
}
CODEX = {
    "model": "gpt-5.5",
    "codex.turn.token_usage.input_tokens": 100,
    "codex.turn.token_usage.cached_input_tokens": 80,
    "codex.turn.token_usage.output_tokens": 25,
    "codex.turn.token_usage.reasoning_output_tokens": 5,
    "codex.turn.token_usage.total_tokens": 125,
    "conversation.id": "c-1",
}
GOOGLE_ADK = {
    "gen_ai.system": "gcp.vertex.agent",
    "gen_ai.request.model": "gemini/gemini-2.5-flash",
    "llm.provider": "gemini",
    "gen_ai.usage.input_tokens": 39,
    "gen_ai.usage.output_tokens": 6,
    "gcp.vertex.agent.session_id": "s-1",
}
STRANDS_TOOL = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.system": "strands-agents",
    "gen_ai.tool.name": "get_weather",
}
LITELLM = {
    "gen_ai.system": "bedrock",
    "gen_ai.request.model": "bedrock/amazon.nova-lite-v1:0",
    "llm.request.type": "completion",
    "llm.user": "ada",
    "gen_ai.cost.total_cost": 2.5e-05,
    "error.type": "RateLimitError",
}
AI_SDK_7 = {
    "gen_ai.operation.name": "invoke_agent",
    "gen_ai.provider.name": "gcp.vertex_ai",
    "gen_ai.agent.name": "summarize",
    "gen_ai.client.operation.time_to_first_chunk": 0.3,
    "gen_ai.usage.cache_read.input_tokens": 0,
}
OPENINFERENCE_FAILED = {
    "openinference.span.kind": "LLM",
    "llm.invocation_parameters": '{"model": "gpt-4o-mini", "stream": true}',
    "metadata": '{"user_id": "ada", "thread_id": "t-1", "ls_provider": "openai"}',
}
MULTIMODAL = {
    "gen_ai.operation.name": "generate_content",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 40,
    "gen_ai.usage.cache_write.input_tokens": 5,
    "gen_ai.usage.audio.input_tokens": 10,
    "gen_ai.usage.image.input_tokens": 20,
    "gen_ai.usage.audio.output_tokens": 30,
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 3,
}


@pytest.mark.parametrize(
    ("attributes", "scope_name", "wanted"),
    [
        pytest.param(
            LANGFUSE,
            "langfuse-sdk",
            {
                "operation": "chat",
                "model": "gpt-4o",
                "prompt_tokens": 101,
                "completion_tokens": 17,
                "total_tokens": 118,
                "prompt_cost_usd": Decimal("0.0006"),
                "completion_cost_usd": Decimal("0.00045"),
                "total_cost_usd": Decimal("0.00105"),
                "token_details": {"prompt_cache_read": 64, "completion_reasoning": 8},
                "prompt_name": "greeting",
                "finish_reason": "stop",
                "environment": "staging",
                "user_id": "u-1",
                "session_id": "s-1",
            },
            id="langfuse",
        ),
        pytest.param(
            LANGSMITH,
            "langsmith",
            {
                "operation": "chat",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "prompt_tokens": 101,
                "completion_tokens": 17,
                "total_tokens": 118,
                "token_details": {"prompt_cache_read": 64, "completion_reasoning": 8},
                "user_id": "ada",
                "session_id": "t-1",
                "prompt_name": "greeting",
            },
            id="langsmith",
        ),
        pytest.param(
            MLFLOW,
            "mlflow.tracing.provider",
            {
                "operation": "chat",
                "provider": "anthropic",
                "model": "claude-sonnet-4-5",
                "prompt_tokens": 195,
                "completion_tokens": 17,
                "total_tokens": 212,
                "prompt_cost_usd": Decimal("0.1"),
                "completion_cost_usd": Decimal("0.2"),
                "total_cost_usd": Decimal("0.3"),
                "token_details": {"prompt_cache_read": 64, "prompt_cache_write": 30},
                "prompt_name": "greeting",
                "user_id": "ada",
                "session_id": "s-1",
            },
            id="mlflow",
        ),
        pytest.param(
            PYDANTIC_AI,
            "pydantic-ai",
            {
                "operation": "chat",
                "provider": "anthropic",
                "model": "claude-sonnet-4-5",
                "prompt_tokens": 2401,
                "completion_tokens": 17,
                "total_tokens": 2418,
                "total_cost_usd": Decimal("0.002283"),
                "token_details": {"prompt_cache_read": 2000, "prompt_cache_write": 300},
                "ttft_ms": 412.0,
                "finish_reason": "tool_call",
                "agent_name": "weather_agent",
            },
            id="pydantic-ai",
        ),
        pytest.param(
            CLAUDE_CODE,
            "com.anthropic.claude_code.tracing",
            {
                "operation": "chat",
                "provider": "anthropic",
                "model": "claude-opus-5",
                "prompt_tokens": 2 + 84562 + 7096,
                "completion_tokens": 1200,
                "total_tokens": 2 + 84562 + 7096 + 1200,
                "token_details": {"prompt_cache_read": 84562, "prompt_cache_write": 7096},
                "ttft_ms": 812.0,
                "finish_reason": "tool_use",
                "session_id": "s-1",
            },
            id="claude-code",
        ),
        pytest.param(
            CLAUDE_CODE, "shop", {"provider": "anthropic", "session_id": "s-1"}, id="shop"
        ),
        pytest.param(
            CODEX,
            "codex_otel",
            {
                "prompt_tokens": 100,
                "completion_tokens": 25,
                "total_tokens": 125,
                "token_details": {"prompt_cache_read": 80, "completion_reasoning": 5},
                "session_id": "c-1",
            },
            id="codex",
        ),
        pytest.param(
            GOOGLE_ADK,
            "gcp.vertex.agent",
            {
                "provider": "gcp.gemini",
                "model": "gemini-2.5-flash",
                "prompt_tokens": 39,
                "completion_tokens": 6,
                "total_tokens": 45,
                "session_id": "s-1",
            },
            id="google-adk",
        ),
        pytest.param(
            STRANDS_TOOL,
            "strands.telemetry.tracer",
            {"operation": "execute_tool", "tool_name": "get_weather"},
            id="strands",
        ),
        pytest.param(
            LITELLM,
            "litellm",
            {
                "operation": "chat",
                "provider": "aws.bedrock",
                "model": "amazon.nova-lite-v1:0",
                "total_cost_usd": Decimal("0.000025"),
                "user_id": "ada",
                "error_type": "RateLimitError",
            },
            id="litellm",
        ),
        pytest.param(
            AI_SDK_7,
            "gen_ai",
            {
                "operation": "invoke_agent",
                "provider": "gcp.vertex_ai",
                "agent_name": "summarize",
                "ttft_ms": 300.0,
            },
            id="ai-sdk-7",
        ),
        pytest.param(
            OPENINFERENCE_FAILED,
            "openinference.instrumentation.openai",
            {
                "operation": "chat",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "user_id": "ada",
                "session_id": "t-1",
            },
            id="openinference",
        ),
        pytest.param(
            MULTIMODAL,
            None,
            {
                "operation": "generate_content",
                "prompt_tokens": 100,
                "completion_tokens": 40,
                "total_tokens": 140,
                "token_details": {
                    "prompt_cache_write": 5,
                    "prompt_cache_write_1h": 3,
                    "prompt_audio": 10,
                    "prompt_image": 20,
                    "completion_audio": 30,
                },
            },
            id="multimodal",
        ),
    ],
)
def test_an_instrumentation_gives_its_columns(
    attributes: dict[str, Any], scope_name: str | None, wanted: dict[str, Any]
) -> None:
    found = facts(attributes, name="span", scope_name=scope_name, resource_attributes={})
    assert found == wanted
    columns = facts_by_column(
        [{}, attributes],
        names=["other", "span"],
        scope_names=[None, scope_name],
        resource_attributes=[{}, {}],
    )
    assert {column: values[1] for column, values in columns.items()} == wanted | dict.fromkeys(
        columns.keys() - wanted.keys()
    )
