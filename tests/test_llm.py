"""The LLM columns of spans, dialect by dialect; attribute sets follow the public docs of each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from observatory_storage.llm import facts


def read(
    attributes: dict[str, Any],
    *,
    name: str = "span",
    scope_name: str | None = None,
    resource: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return facts(attributes, name=name, scope_name=scope_name, resource_attributes=resource or {})


# --- one recorded-looking span a dialect ---------------------------------------------------------

OTEL_CHAT = {
    "gen_ai.provider.name": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4",
    "gen_ai.request.max_tokens": 200,
    "gen_ai.request.top_p": 1.0,
    "gen_ai.request.stream": True,
    "gen_ai.response.id": "chatcmpl-9J3uIL87gldCFtiIbyaOvTeYBRA3l",
    "gen_ai.response.model": "gpt-4-0613",
    "gen_ai.response.time_to_first_chunk": 0.0123,
    "gen_ai.usage.input_tokens": 52,
    "gen_ai.usage.output_tokens": 47,
    "gen_ai.usage.cache_read.input_tokens": 20,
    "gen_ai.usage.reasoning.output_tokens": 30,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.conversation.id": "conv_5j66UpCpwteGg4YSxUnt7lPY",
    "user.id": "u-1",
}
OTEL_OLD = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4",
    "gen_ai.usage.prompt_tokens": 52,
    "gen_ai.usage.completion_tokens": 47,
    "enduser.id": "u-1",
}
OTEL_EMBEDDINGS = {
    "gen_ai.operation.name": "embeddings",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "text-embedding-3-small",
    "gen_ai.usage.input_tokens": 8,
}
LITELLM = {
    "gen_ai.system": "azure",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.total_tokens": 15,
    "gen_ai.cost.input_cost": 2.5e-05,
    "gen_ai.cost.output_cost": 5e-05,
    "gen_ai.cost.total_cost": 7.5e-05,
}
OPENINFERENCE_LLM = {
    "openinference.span.kind": "LLM",
    "llm.provider": "aws",
    "llm.system": "amazon",
    "llm.model_name": "amazon.nova-lite-v1:0",
    "llm.token_count.prompt": 454,
    "llm.token_count.completion": 75,
    "llm.token_count.total": 529,
    "llm.token_count.prompt_details.cache_read": 400,
    "llm.token_count.prompt_details.cache_write": 0,
    "llm.token_count.completion_details.reasoning": 12,
    "llm.cost.prompt": 0.02724,
    "llm.cost.completion": 0.018,
    "llm.cost.prompt_details.cache_read": 0.001,
    "session.id": "session-7",
    "user.id": "u-2",
    "llm.input_messages.0.message.role": "user",
}
OPENINFERENCE_EMBEDDING = {
    "openinference.span.kind": "EMBEDDING",
    "embedding.model_name": "text-embedding-ada-002",
    "llm.token_count.prompt": 6,
    "llm.token_count.total": 6,
}
VERCEL_DO_STREAM = {
    "operation.name": "ai.streamText.doStream my-function",
    "ai.operationId": "ai.streamText.doStream",
    "ai.model.id": "gpt-4o-mini",
    "ai.model.provider": "openai.chat",
    "ai.response.model": "gpt-4o-mini-2024-07-18",
    "ai.response.msToFirstChunk": 312.5,
    "ai.response.finishReason": "stop",
    "ai.usage.inputTokens": 12,
    "ai.usage.outputTokens": 8,
    "ai.usage.totalTokens": 20,
    "ai.usage.cachedInputTokens": 4,
    "ai.usage.reasoningTokens": 2,
    "ai.telemetry.functionId": "my-function",
    "ai.telemetry.metadata.userId": "u-3",
    "ai.telemetry.metadata.sessionId": "s-3",
}
VERCEL_OLD = {
    "ai.operationId": "ai.streamText.doStream",
    "ai.model.id": "gpt-4-turbo",
    "ai.model.provider": "openai",
    "ai.stream.msToFirstChunk": 200,
    "ai.usage.promptTokens": 12,
    "ai.usage.completionTokens": 8,
}
VERCEL_DO_EMBED = {
    "ai.operationId": "ai.embed.doEmbed",
    "ai.model.id": "text-embedding-3-small",
    "ai.model.provider": "openai.embedding",
    "ai.usage.tokens": 10,
}
OPENLLMETRY_CHAT = {
    "gen_ai.system": "OpenAI",
    "llm.request.type": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.prompt_tokens": 900,
    "gen_ai.usage.completion_tokens": 7,
    "llm.usage.total_tokens": 907,
    "gen_ai.usage.cache_read_input_tokens": 800,
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "Hello",
    "gen_ai.completion.0.finish_reason": "stop",
    "traceloop.workflow.name": "booking",
    "traceloop.association.properties.user_id": "u-4",
    "traceloop.association.properties.session_id": "conv-9",
}
OPENLLMETRY_OLD = {
    "llm.vendor": "OpenAI",
    "llm.request.type": "chat",
    "llm.request.model": "gpt-3.5-turbo",
    "llm.response.model": "gpt-3.5-turbo-0613",
    "llm.usage.prompt_tokens": 17,
    "llm.usage.completion_tokens": 3,
    "llm.usage.total_tokens": 20,
}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(
            OTEL_CHAT,
            {
                "provider": "openai",
                "model": "gpt-4",
                "prompt_tokens": 52,
                "completion_tokens": 47,
                "total_tokens": 99,
                "ttft_ms": 12.3,
                "user_id": "u-1",
                "session_id": "conv_5j66UpCpwteGg4YSxUnt7lPY",
                "operation": "chat",
                "response_model": "gpt-4-0613",
                "response_id": "chatcmpl-9J3uIL87gldCFtiIbyaOvTeYBRA3l",
                "finish_reason": "stop",
                "token_details": {"prompt_cache_read": 20, "completion_reasoning": 30},
            },
            id="otel",
        ),
        pytest.param(
            OTEL_OLD,
            {
                "provider": "openai",
                "model": "gpt-4",
                "prompt_tokens": 52,
                "completion_tokens": 47,
                "total_tokens": 99,
                "user_id": "u-1",
            },
            id="otel-old",
        ),
        pytest.param(
            OTEL_EMBEDDINGS,
            {
                "provider": "openai",
                "model": "text-embedding-3-small",
                "prompt_tokens": 8,
                "total_tokens": 8,
                "operation": "embeddings",
            },
            id="otel-embeddings",
        ),
        pytest.param(
            LITELLM,
            {
                "provider": "azure.ai.openai",
                "model": "gpt-4o",
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_cost_usd": Decimal("0.000025"),
                "completion_cost_usd": Decimal("0.00005"),
                "total_cost_usd": Decimal("0.000075"),
            },
            id="litellm",
        ),
        pytest.param(
            OPENINFERENCE_LLM,
            {
                "provider": "aws.bedrock",
                "model": "amazon.nova-lite-v1:0",
                "prompt_tokens": 454,
                "completion_tokens": 75,
                "total_tokens": 529,
                "prompt_cost_usd": Decimal("0.02724"),
                "completion_cost_usd": Decimal("0.018"),
                "total_cost_usd": Decimal("0.04524"),
                "user_id": "u-2",
                "session_id": "session-7",
                "operation": "chat",
                "token_details": {"prompt_cache_read": 400, "completion_reasoning": 12},
            },
            id="openinference",
        ),
        pytest.param(
            OPENINFERENCE_EMBEDDING,
            {
                "model": "text-embedding-ada-002",
                "prompt_tokens": 6,
                "total_tokens": 6,
                "operation": "embeddings",
            },
            id="openinference-embedding",
        ),
        pytest.param(
            VERCEL_DO_STREAM,
            {
                "provider": "openai",
                "model": "gpt-4o-mini",
                "prompt_tokens": 12,
                "completion_tokens": 8,
                "total_tokens": 20,
                "ttft_ms": 312.5,
                "user_id": "u-3",
                "session_id": "s-3",
                "operation": "chat",
                "response_model": "gpt-4o-mini-2024-07-18",
                "finish_reason": "stop",
                "token_details": {"prompt_cache_read": 4, "completion_reasoning": 2},
            },
            id="vercel",
        ),
        pytest.param(
            VERCEL_OLD,
            {
                "provider": "openai",
                "model": "gpt-4-turbo",
                "prompt_tokens": 12,
                "completion_tokens": 8,
                "total_tokens": 20,
                "ttft_ms": 200.0,
                "operation": "chat",
            },
            id="vercel-old",
        ),
        pytest.param(
            VERCEL_DO_EMBED,
            {
                "provider": "openai",
                "model": "text-embedding-3-small",
                "prompt_tokens": 10,
                "total_tokens": 10,
                "operation": "embeddings",
            },
            id="vercel-embed",
        ),
        pytest.param(
            OPENLLMETRY_CHAT,
            {
                "provider": "openai",
                "model": "gpt-4o",
                "prompt_tokens": 900,
                "completion_tokens": 7,
                "total_tokens": 907,
                "user_id": "u-4",
                "session_id": "conv-9",
                "operation": "chat",
                "response_model": "gpt-4o-2024-08-06",
                "finish_reason": "stop",
                "token_details": {"prompt_cache_read": 800},
            },
            id="openllmetry",
        ),
        pytest.param(
            OPENLLMETRY_OLD,
            {
                "provider": "openai",
                "model": "gpt-3.5-turbo",
                "prompt_tokens": 17,
                "completion_tokens": 3,
                "total_tokens": 20,
                "operation": "chat",
                "response_model": "gpt-3.5-turbo-0613",
            },
            id="openllmetry-old",
        ),
    ],
)
def test_each_dialect_gives_its_columns(
    attributes: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = read(attributes)
    assert found == expected
    # 1 == 1.0 == Decimal(1): the types are the columns' own.
    assert {column: type(value) for column, value in found.items()} == {
        column: type(value) for column, value in expected.items()
    }


def test_a_span_that_speaks_of_no_model_has_no_columns() -> None:
    attributes = {"http.request.method": "GET", "tool": "search", "llm": 1}
    assert read(attributes, resource={"service.name": "chat"}) == {}
