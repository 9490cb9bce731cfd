"""Tokens that are part of their side's tokens and have prices of their own, such as cached ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from observatory_storage.llm.readers import MAX_INT64, read_tokens, structure

__all__ = ["CORRECTED", "COUNTED_DETAILS", "COUNTS", "TOKEN_DETAILS", "fits", "take_details"]

# Key in `token_details` -> the attributes that give it. The tokens are part of their side's, and
# have prices of their own.
TOKEN_DETAILS: Final[dict[str, tuple[str, ...]]] = {
    "prompt_cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_input_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.input_token_details[cache_read]",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
        "llm.usage.cache_read_input_tokens",
        "langfuse.observation.usage_details[input_cache_read]",
        "langfuse.observation.usage_details[input_cached_tokens]",
        "langfuse.observation.usage_details[cache_read_input_tokens]",
        "langfuse.observation.usage_details[input_cache_read_tokens]",
        "langfuse.observation.usage_details[prompt_tokens_details][cached_tokens]",
        "langfuse.observation.usage_details[input_tokens_details][cached_tokens]",
        "mlflow.chat.tokenUsage[cache_read_input_tokens]",
        "langsmith.metadata.usage_metadata[input_token_details][cache_read]",
        "codex.turn.token_usage.cached_input_tokens",
    ),
    "prompt_cache_write": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "gen_ai.usage.input_token_details[cache_creation]",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
        "llm.usage.cache_creation_input_tokens",
        "langfuse.observation.usage_details[input_cache_creation]",
        "langfuse.observation.usage_details[cache_creation_input_tokens]",
        "langfuse.observation.usage_details[input_cache_creation_tokens]",
        "mlflow.chat.tokenUsage[cache_creation_input_tokens]",
        "langsmith.metadata.usage_metadata[input_token_details][cache_creation]",
        "ai.response.providerMetadata[anthropic][cacheCreationInputTokens]",
        "ai.response.providerMetadata[bedrock][usage][cacheWriteInputTokens]",
    ),
    # Entries that are kept for an hour cost more than those of five minutes.
    "prompt_cache_write_1h": (
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
        "gen_ai.usage.details.ephemeral_1h_input_tokens",
        "langfuse.observation.usage_details[cache_creation][ephemeral_1h_input_tokens]",
        "langsmith.metadata.usage_metadata[input_token_details][ephemeral_1h_input_tokens]",
    ),
    "prompt_audio": (
        "gen_ai.usage.audio.input_tokens",
        "gen_ai.usage.details.input_audio_tokens",
        "gen_ai.usage.input_token_details[audio]",
        "llm.token_count.prompt_details.audio",
        "langfuse.observation.usage_details[input_audio]",
        "langfuse.observation.usage_details[input_audio_tokens]",
        "langfuse.observation.usage_details[prompt_tokens_details][audio_tokens]",
        "langsmith.metadata.usage_metadata[input_token_details][audio]",
    ),
    "prompt_image": (
        "gen_ai.usage.image.input_tokens",
        "gen_ai.usage.input_token_details[image]",
        "langfuse.observation.usage_details[input_image]",
    ),
    "prompt_video": ("gen_ai.usage.video.input_tokens",),
    "completion_reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.output_token_details[reasoning]",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.outputTokenDetails.reasoningTokens",
        "ai.usage.reasoningTokens",
        "llm.usage.reasoning_tokens",
        "langfuse.observation.usage_details[output_reasoning]",
        "langfuse.observation.usage_details[output_reasoning_tokens]",
        "langfuse.observation.usage_details[completion_tokens_details][reasoning_tokens]",
        "langfuse.observation.usage_details[output_tokens_details][reasoning_tokens]",
        "langsmith.metadata.usage_metadata[output_token_details][reasoning]",
        "codex.turn.token_usage.reasoning_output_tokens",
    ),
    "completion_audio": (
        "gen_ai.usage.audio.output_tokens",
        "gen_ai.usage.details.output_audio_tokens",
        "gen_ai.usage.output_token_details[audio]",
        "llm.token_count.completion_details.audio",
        "langfuse.observation.usage_details[output_audio]",
        "langfuse.observation.usage_details[completion_tokens_details][audio_tokens]",
        "langsmith.metadata.usage_metadata[output_token_details][audio]",
    ),
    "completion_image": ("gen_ai.usage.image.output_tokens",),
    "completion_video": ("gen_ai.usage.video.output_tokens",),
}

_CACHED: Final = ("prompt_cache_read", "prompt_cache_write")
_REASONING: Final = "completion_reasoning"
_LANGFUSE_USAGE: Final = "langfuse.observation.usage_details"
COUNTED_DETAILS: Final = (*_CACHED, _REASONING)
# What tells whether counts include their details.
COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", *COUNTED_DETAILS)
# Attributes of dialects whose counts may exclude details without showing it.
CORRECTED: Final = (_LANGFUSE_USAGE, "ai.usage.cachedInputTokens", "mlflow.chat.tokenUsage")


def take_details(found: dict[str, Any], attributes: Mapping[str, Any], scope_name: object) -> None:
    """Move the details of a span's tokens into `token_details`, and complete its token counts.

    A side's tokens include its details. Some instrumentations report them without, as Anthropic's
    API does; then they are added. A reported total tells, or counts that are too small for their
    details, or the instrumentation itself.
    """
    nonzero = {}
    names = found.keys() & TOKEN_DETAILS.keys()
    for name in TOKEN_DETAILS if names else ():
        if name in names and (count := found.pop(name)):
            nonzero[name] = count
    if _LANGFUSE_USAGE in attributes:
        _take_langfuse_usage(found, attributes)
    if nonzero:
        found["token_details"] = nonzero
        _include_details(found, nonzero, _excludes_cached(attributes, scope_name, found))


def fits(
    prompt: int | None,
    completion: int | None,
    total: int | None,
    cached: int,
    reasoning: int | None,
) -> bool:
    """Whether token counts include their details, as far as the counts themselves can tell."""
    return (
        (prompt is None or cached <= prompt)
        and (completion is None or not reasoning or reasoning <= completion)
        and (total is None or total == (prompt or 0) + (completion or 0))
    )


def _include_details(
    found: dict[str, Any], details: Mapping[str, int], excludes_cached: bool
) -> None:
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens")
    total = found.get("total_tokens")
    read, write = (details.get(name, 0) for name in _CACHED)
    reasoning = details.get(_REASONING, 0)
    reported = (prompt or 0) + (completion or 0)
    if total is not None and total != reported and prompt is not None:
        thoughts = (0,) if completion is None else (0, reasoning)
        for cached, thought in product((read + write, read, write, 0), thoughts):
            if reported + cached + thought == total:
                found["prompt_tokens"] = prompt + cached
                if completion is not None:
                    found["completion_tokens"] = completion + thought
                return
    if prompt is not None and (read + write > prompt or excludes_cached):
        prompt = found["prompt_tokens"] = prompt + read + write
    if completion is not None and reasoning > completion:
        completion = found["completion_tokens"] = completion + reasoning
    if total == reported:
        found["total_tokens"] = (prompt or 0) + (completion or 0)


def _excludes_cached(
    attributes: Mapping[str, Any], scope_name: object, found: Mapping[str, Any]
) -> bool:
    """Whether an instrumentation is known to report prompt tokens without cached ones."""
    if scope_name == "com.anthropic.claude_code.tracing":
        return True
    if "ai.usage.cachedInputTokens" in attributes:
        # Since version 6, the AI SDK includes them, and reports the others by themselves.
        return found.get("provider") in ("anthropic", "aws.bedrock") and (
            "ai.usage.inputTokenDetails.noCacheTokens" not in attributes
        )
    if "mlflow.chat.tokenUsage" in attributes:
        return attributes.get("mlflow.message.format") in ("anthropic", '"anthropic"')
    if _LANGFUSE_USAGE not in attributes:
        return False
    # Usage as Anthropic's API has it, without a total.
    usage = structure(attributes.get(_LANGFUSE_USAGE))
    return (
        isinstance(usage, dict)
        and "cache_read_input_tokens" in usage
        and "input_tokens" in usage
        and "total_tokens" not in usage
        and "total" not in usage
    )


def _take_langfuse_usage(found: dict[str, Any], attributes: Mapping[str, Any]) -> None:
    """Langfuse's own keys count each token once: "input" excludes "input_cached_tokens".

    A total that fits only the plain keys tells that the sender meant otherwise.
    """
    usage = structure(attributes.get(_LANGFUSE_USAGE))
    if not isinstance(usage, dict) or usage.keys().isdisjoint(("input", "output")):
        return
    sides = {}
    for side, column in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        counts = [read_tokens(count) for name, count in usage.items() if name.startswith(side)]
        known = [count for count in counts if count is not None]
        if known and sum(known) <= MAX_INT64:
            sides[column] = sum(known)
    total = read_tokens(usage.get("total"))
    if total is None or total == sum(sides.values()):
        for column, count in sides.items():
            if column in found and found[column] == read_tokens(usage.get(_SIDE_OF[column])):
                found[column] = count


_SIDE_OF: Final = {"prompt_tokens": "input", "completion_tokens": "output"}
