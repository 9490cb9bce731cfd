"""One spelling for what instrumentations spell in many ways: operations and providers.

The values are OpenTelemetry's: of `gen_ai.operation.name` and of `gen_ai.provider.name`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["operation_of", "provider_of"]

# Kinds of spans, in lower case -> the operation; None if the kind says nothing.
_OPERATIONS: Final[dict[str, str | None]] = {
    **dict.fromkeys(("llm", "chat_model", "generation", "llm_request", "inference"), "chat"),
    **dict.fromkeys(("acompletion", "responses", "aresponses", "anthropic_messages"), "chat"),
    **dict.fromkeys(("completion", "atext_completion"), "text_completion"),
    **dict.fromkeys(("embedding", "aembedding", "embed"), "embeddings"),
    **dict.fromkeys(("agent", "interaction"), "invoke_agent"),
    **dict.fromkeys(("chain", "workflow", "invoke_chain"), "invoke_workflow"),
    **dict.fromkeys(("tool", "function", "tool_call", "running_tool"), "execute_tool"),
    **dict.fromkeys(("retriever", "retrieve"), "retrieval"),
    **dict.fromkeys(("reranker", "arerank"), "rerank"),
    **dict.fromkeys(("unknown", "span", "event", "default", "undefined"), None),
    # The operations of the Vercel AI SDK, by the names that its version 7 gives them.
    **dict.fromkeys(("ai.generatetext", "ai.streamtext"), "invoke_agent"),
    **dict.fromkeys(("ai.generateobject", "ai.streamobject"), "invoke_agent"),
    **dict.fromkeys(("ai.generatetext.dogenerate", "ai.streamtext.dostream"), "chat"),
    **dict.fromkeys(("ai.generateobject.dogenerate", "ai.streamobject.dostream"), "chat"),
    **dict.fromkeys(("ai.embed", "ai.embed.doembed"), "embeddings"),
    **dict.fromkeys(("ai.embedmany", "ai.embedmany.doembed"), "embeddings"),
    **dict.fromkeys(("ai.rerank", "ai.rerank.dorerank"), "rerank"),
    "ai.toolcall": "execute_tool",
}

# Spellings of a provider, in lower case -> OpenTelemetry's well-known value.
_PROVIDERS: Final[dict[str, str]] = {
    "openai": "openai",
    "open_ai": "openai",
    "anthropic": "anthropic",
    "claude": "anthropic",
    "google": "gcp.gen_ai",
    "gcp.gen_ai": "gcp.gen_ai",
    **dict.fromkeys(
        ("gemini", "gcp.gemini", "google.generative-ai", "google_genai", "google_ai_studio"),
        "gcp.gemini",
    ),
    **dict.fromkeys(("google.ai.studio", "google-genai", "google_generativeai"), "gcp.gemini"),
    **dict.fromkeys(
        ("vertexai", "vertex_ai", "gcp.vertex_ai", "google_vertexai", "google.vertex", "vertex"),
        "gcp.vertex_ai",
    ),
    **dict.fromkeys(("google-vertex", "vertex_ai_beta", "google vertex ai"), "gcp.vertex_ai"),
    **dict.fromkeys(
        ("aws.bedrock", "aws_bedrock", "bedrock", "amazon-bedrock", "amazon_bedrock", "aws"),
        "aws.bedrock",
    ),
    **dict.fromkeys(("bedrock_converse", "amazon", "amazon bedrock"), "aws.bedrock"),
    **dict.fromkeys(
        (
            "azure.ai.openai",
            "az.ai.openai",
            "azure",
            "azure_openai",
            "azure-openai",
            "azure openai",
        ),
        "azure.ai.openai",
    ),
    **dict.fromkeys(("azure.openai", "azureopenai"), "azure.ai.openai"),
    **dict.fromkeys(
        ("azure.ai.inference", "az.ai.inference", "azure_ai", "azure-ai-inference"),
        "azure.ai.inference",
    ),
    **dict.fromkeys(("mistral", "mistralai", "mistral_ai", "mistral.ai"), "mistral_ai"),
    "mistral-ai": "mistral_ai",
    "cohere": "cohere",
    "groq": "groq",
    "deepseek": "deepseek",
    "deep_seek": "deepseek",
    **dict.fromkeys(("perplexity", "perplexityai"), "perplexity"),
    **dict.fromkeys(("xai", "x_ai", "x.ai", "x-ai", "grok"), "x_ai"),
    **dict.fromkeys(
        ("watsonx", "ibm.watsonx.ai", "ibm.watson.ai", "watson", "ibm"), "ibm.watsonx.ai"
    ),
    **dict.fromkeys(("moonshot", "moonshot_ai", "moonshotai", "moonshot.ai"), "moonshot_ai"),
    "ollama": "ollama",
    **dict.fromkeys(("together", "together_ai", "togetherai", "together.ai"), "together_ai"),
    **dict.fromkeys(("fireworks", "fireworks_ai", "fireworks-ai"), "fireworks_ai"),
    **dict.fromkeys(("huggingface", "hugging_face", "hugging-face"), "huggingface"),
    **dict.fromkeys(("openrouter", "open_router"), "openrouter"),
    **dict.fromkeys(("cerebras", "cerebras_ai"), "cerebras"),
}

# Frameworks that some instrumentations name where the provider of the model belongs.
_FRAMEWORKS: Final = frozenset(
    {
        *("gcp.vertex.agent", "strands-agents", "strands", "langchain", "langgraph", "llama_index"),
        *("llamaindex", "llama-index", "crewai", "crew_ai", "ag2", "autogen", "haystack", "dspy"),
        *("semantic_kernel", "semantic-kernel", "pydantic_ai", "pydantic-ai", "openai_agents"),
        *("agno", "smolagents", "phidata", "mem0", "embedchain", "vercel_ai", "vercel-ai"),
        *("microsoft.agent_framework", "spring_ai", "litellm", "mlflow", "google-adk", "mcp"),
        *("unknown", "none", "null"),
    }
)


@lru_cache(maxsize=1024)
def operation_of(kind: str) -> str | None:
    """OpenTelemetry's operation for the kind of a span, or the kind itself if none fits."""
    lower = kind.lower()
    if lower in _OPERATIONS:
        return _OPERATIONS[lower]
    # OpenTelemetry has no word for "GUARDRAIL" or "EVALUATOR". An operation of the sender's own
    # may be written in any way.
    return lower if kind.isupper() else kind


@lru_cache(maxsize=1024)
def provider_of(spelling: str) -> str | None:
    """OpenTelemetry's well-known value for a provider, or the spelling itself if none is known.

    None for a framework: it is not the provider of a model.
    """
    lower = spelling.strip().lower()
    while lower:
        if lower in _PROVIDERS:
            return _PROVIDERS[lower]
        if lower in _FRAMEWORKS:
            return None
        # The Vercel AI SDK adds the kind of the model: "openai.responses", "google.vertex.chat".
        lower = lower.rpartition(".")[0]
    return spelling
