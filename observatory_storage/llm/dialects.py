"""The attribute names by which instrumentations report a model call.

OpenTelemetry GenAI (`gen_ai.*`, the names of older releases too), OpenInference (`llm.*`), the
Vercel AI SDK (`ai.*`), OpenLLMetry (`traceloop.*`, its early `llm.*`), Langfuse, LangSmith, MLflow,
pydantic-ai, LiteLLM, OpenLIT, Google ADK, Claude Code and Codex. `docs/llm.md` shows these tables
to users.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALIASES",
    "ALIASES_OF_SCOPE",
    "ENVIRONMENT_KEYS",
    "IN_SECONDS",
    "USAGE_COLUMNS",
]

# Column of `TraceSpan` -> the attributes that give it; the first usable one wins. The column's type
# says how they are read (`aliases.READ_AS`, `readers.reader_of`). An alias such as
# "langfuse.observation.cost_details[total]" is a value within a structure, or within JSON in text.
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "operation": (
        "gen_ai.operation.name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "ai.operationId",
        "langfuse.observation.type",
        "mlflow.spanType",
        "langsmith.span.kind",
        "gen_ai.span.kind",
        "lmnr.span.type",
        "llm.request.type",
    ),
    "provider": (
        "gen_ai.provider.name",
        "gen_ai.system",
        "llm.provider",
        "llm.system",
        "ai.model.provider",
        "llm.vendor",
        "mlflow.llm.provider",
        "mlflow.message.format",
        "langsmith.metadata.ls_provider",
        "langfuse.observation.metadata.ls_provider",
        "traceloop.association.properties.ls_provider",
        "metadata[ls_provider]",
        "error.llm_provider",
    ),
    # If no attribute names the requested model, it is the responding one.
    "model": (
        "gen_ai.request.model",
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "ai.model.id",
        "llm.request.model",
        "langfuse.observation.model.name",
        "langsmith.metadata.ls_model_name",
        "mlflow.llm.model",
        "langfuse.observation.metadata.ls_model_name",
        "traceloop.association.properties.ls_model_name",
        "llm.invocation_parameters[model]",
        "llm.invocation_parameters[model_name]",
        "embedding.invocation_parameters[model]",
    ),
    "response_model": (
        "gen_ai.response.model",
        "llm.response.model_name",
        "ai.response.model",
        "llm.response.model",
    ),
    "response_id": (
        "gen_ai.response.id",
        "llm.response.id",
        "ai.response.id",
        "gen_ai.completion.id",
    ),
    # A count of the tokens of a side includes its details (see TOKEN_DETAILS).
    "prompt_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        "llm.usage.prompt_tokens",
        "llm.usage.input_tokens",
        "langfuse.observation.usage_details[prompt_tokens]",
        "langfuse.observation.usage_details[input_tokens]",
        "langfuse.observation.usage_details[input]",
        "mlflow.chat.tokenUsage[input_tokens]",
        "langsmith.metadata.usage_metadata[input_tokens]",
        "mlflow.spanOutputs[usage][prompt_tokens]",
        "codex.turn.token_usage.input_tokens",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "llm.usage.completion_tokens",
        "llm.usage.output_tokens",
        "langfuse.observation.usage_details[completion_tokens]",
        "langfuse.observation.usage_details[output_tokens]",
        "langfuse.observation.usage_details[output]",
        "mlflow.chat.tokenUsage[output_tokens]",
        "langsmith.metadata.usage_metadata[output_tokens]",
        "codex.turn.token_usage.output_tokens",
    ),
    "total_tokens": (
        "gen_ai.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
        "llm.usage.total_tokens",
        "gen_ai.client.token.usage",
        "langfuse.observation.usage_details[total_tokens]",
        "langfuse.observation.usage_details[total]",
        "mlflow.chat.tokenUsage[total_tokens]",
        "langsmith.metadata.usage_metadata[total_tokens]",
        "codex.turn.token_usage.total_tokens",
    ),
    "prompt_cost_usd": (
        "gen_ai.usage.input_cost",
        "gen_ai.cost.input_cost",
        "llm.cost.prompt",
        "langfuse.observation.cost_details[input]",
        "mlflow.llm.cost[input_cost]",
        "langsmith.metadata.usage_metadata[input_cost]",
    ),
    "completion_cost_usd": (
        "gen_ai.usage.output_cost",
        "gen_ai.cost.output_cost",
        "llm.cost.completion",
        "langfuse.observation.cost_details[output]",
        "mlflow.llm.cost[output_cost]",
        "langsmith.metadata.usage_metadata[output_cost]",
    ),
    "total_cost_usd": (
        "gen_ai.usage.total_cost",
        "gen_ai.usage.cost",
        "gen_ai.cost.total_cost",
        "gen_ai.cost.usd",
        "llm.cost.total",
        "operation.cost",
        "langfuse.observation.cost_details[total]",
        "mlflow.llm.cost[total_cost]",
        "langsmith.metadata.usage_metadata[total_cost]",
        "hidden_params[response_cost]",
    ),
    "ttft_ms": (
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.response.time_to_first_token",
        "gen_ai.server.time_to_first_token",
        "ai.response.msToFirstChunk",
        "ai.stream.msToFirstChunk",
        "ai.response.msToFirstOutput",
        "llm.latency.time_to_first_token",
        "codex.ttft_ms",
    ),
    "finish_reason": (
        "gen_ai.response.finish_reasons",
        "gen_ai.response.finish_reason",
        "llm.finish_reason",
        "llm.response.finish_reason",
        "llm.response.stop_reason",
        "ai.response.finishReason",
        "ai.finishReason",
        "gen_ai.completion.0.finish_reason",
        "llm.completions.0.finish_reason",
        "anthropic.message.stop_reason",
        "langfuse.observation.metadata.finish_reason",
    ),
    "error_type": (
        "error.type",
        "exception.type",
    ),
    "agent_name": (
        "gen_ai.agent.name",
        "agent.name",
        "agent_name",
        "langsmith.metadata.lc_agent_name",
        "langfuse.observation.metadata.lc_agent_name",
    ),
    "tool_name": (
        "gen_ai.tool.name",
        "tool.name",
        "ai.toolCall.name",
        "tool_call.function.name",
    ),
    "prompt_name": (
        "gen_ai.prompt.name",
        "langfuse.observation.prompt.name",
        "traceloop.prompt.key",
        "prompt.id",
        "langsmith.metadata.lc_hub_repo",
        "ai.telemetry.metadata.langfusePrompt[name]",
        "mlflow.linkedPrompts[0][name]",
    ),
    "user_id": (
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "gen_ai.user.id",
        "llm.user",
        "gen_ai.request.user",
        "mlflow.trace.user",
        "ai.telemetry.metadata.userId",
        "ai.telemetry.metadata.user_id",
        "traceloop.association.properties.user_id",
        "lmnr.association.properties.user_id",
        "langsmith.metadata.user_id",
        "langfuse.trace.metadata.user_id",
        "metadata[user_id]",
    ),
    "session_id": (
        "session.id",
        "langfuse.session.id",
        "gen_ai.conversation.id",
        "gen_ai.session.id",
        "gcp.vertex.agent.session_id",
        "mlflow.trace.session",
        "ai.telemetry.metadata.sessionId",
        "ai.telemetry.metadata.session_id",
        "traceloop.association.properties.session_id",
        "lmnr.association.properties.session_id",
        "langsmith.metadata.session_id",
        "langsmith.metadata.thread_id",
        "langsmith.metadata.conversation_id",
        "langfuse.trace.metadata.session_id",
        "metadata[session_id]",
        "metadata[thread_id]",
        "conversation.id",
    ),
    "environment": (
        "deployment.environment.name",
        "deployment.environment",
        "gen_ai.environment",
        "langfuse.environment",
        "agentops.environment",
    ),
}

# Attributes whose plain names mean this only in spans of one instrumentation scope. They are used
# where the attributes above do not give the column.
ALIASES_OF_SCOPE: Final[dict[str, dict[str, str]]] = {
    "com.anthropic.claude_code.tracing": {
        "operation": "span.type",
        "model": "model",
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "prompt_cache_read": "cache_read_tokens",
        "prompt_cache_write": "cache_creation_tokens",
        "total_cost_usd": "cost_usd",
        "ttft_ms": "ttft_ms",
        "finish_reason": "stop_reason",
        "tool_name": "tool_name",
        "response_id": "request_id",
    },
    "litellm": {"user_id": "metadata.user_api_key_end_user_id"},
    "mlflow.tracing.provider": {"model": "model"},
    "pydantic-ai": {"model": "model_name"},
}

# The environment belongs to the process, so a span without it takes it from its resource.
ENVIRONMENT_KEYS: Final = ALIASES["environment"]

# Durations are milliseconds, except these.
IN_SECONDS: Final = frozenset(
    {
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.response.time_to_first_token",
        "gen_ai.server.time_to_first_token",
    }
)

# Tokens and costs. `storing` decides on which of a trace's spans they count.
USAGE_COLUMNS: Final = tuple(
    column for column in ALIASES if column.endswith(("_tokens", "_cost_usd"))
)
