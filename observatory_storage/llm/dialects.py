"""The attribute names by which instrumentations report a model call.

OpenTelemetry GenAI (`gen_ai.*`, the names of older releases too), OpenInference (`llm.*`), the
Vercel AI SDK (`ai.*`) and OpenLLMetry (`traceloop.*`, its early `llm.*`). The additions of LiteLLM
and OpenLLMetry to `gen_ai.*` are included. `docs/llm.md` shows this table to users.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALIASES",
    "ENVIRONMENT_KEYS",
    "IN_SECONDS",
    "USAGE_COLUMNS",
]

# Column of `TraceSpan` -> the attributes that give it; the first usable one wins. The column's type
# says how they are read (`readers.reader_of`).
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "provider": (
        "gen_ai.provider.name",
        "gen_ai.system",
        "llm.provider",
        "llm.system",
        "ai.model.provider",
        "llm.vendor",
    ),
    # The requested models of all dialects come before the responding models of any.
    "model": (
        "gen_ai.request.model",
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "ai.model.id",
        "llm.request.model",
        "gen_ai.response.model",
        "llm.response.model_name",
        "ai.response.model",
        "llm.response.model",
    ),
    # Details (cached, cache-writing, audio and reasoning tokens) are left out on purpose: each is
    # part of its side, so adding one would count it twice.
    "prompt_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        "llm.usage.prompt_tokens",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "llm.usage.completion_tokens",
    ),
    "total_tokens": (
        "gen_ai.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
        "llm.usage.total_tokens",
    ),
    "prompt_cost_usd": (
        "gen_ai.usage.input_cost",
        "gen_ai.cost.input_cost",
        "llm.cost.prompt",
    ),
    "completion_cost_usd": (
        "gen_ai.usage.output_cost",
        "gen_ai.cost.output_cost",
        "llm.cost.completion",
    ),
    "total_cost_usd": (
        "gen_ai.usage.total_cost",
        "gen_ai.usage.cost",
        "gen_ai.cost.total_cost",
        "llm.cost.total",
    ),
    "ttft_ms": (
        "gen_ai.response.time_to_first_chunk",
        "ai.response.msToFirstChunk",
        "ai.stream.msToFirstChunk",
    ),
    "user_id": (
        "user.id",
        "enduser.id",
        "ai.telemetry.metadata.userId",
        "traceloop.association.properties.user_id",
    ),
    "session_id": (
        "session.id",
        "gen_ai.conversation.id",
        "ai.telemetry.metadata.sessionId",
        "traceloop.association.properties.session_id",
    ),
    "environment": (
        "deployment.environment.name",
        "deployment.environment",
    ),
}

# The environment belongs to the process, so a span without it takes it from its resource.
ENVIRONMENT_KEYS: Final = ALIASES["environment"]

# Durations are milliseconds, except these.
IN_SECONDS: Final = frozenset({"gen_ai.response.time_to_first_chunk"})

# Tokens and costs. `storing` decides on which of a trace's spans they count.
USAGE_COLUMNS: Final = tuple(
    column for column in ALIASES if column.endswith(("_tokens", "_cost_usd"))
)
