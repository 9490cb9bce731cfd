"""A call of a model as the server answered it: the facts that a recording is compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tests.recordings.record.programs.conversation import (
    ANSWER,
    ARGUMENTS,
    ERROR,
    REFUSED_QUESTION,
    RESULT,
    TOOL,
)

__all__ = ["FIRST_CHUNK_MS", "Call", "call_for", "facts"]

# How long the server waits before the first chunk of a stream.
FIRST_CHUNK_MS = 60


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the server said. Counts are whole: cached tokens are part of the prompt's, reasoning
    tokens are part of the completion's."""

    provider: str
    model: str
    response_model: str
    status: int = 200
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    answer: str | None = None
    tool: str | None = None
    arguments: dict[str, str] | None = None
    error: str | None = None
    first_chunk_ms: int | None = None


def call_for(
    body: str,
    *,
    provider: str,
    model: str,
    response_model: str,
    tools: bool,
    stream: bool,
    reasons: bool = True,
    writes_cache: bool = False,
) -> Call:
    """The answer to a request: a refusal, a tool call if tools are offered, or a text.

    Args:
        body: the request as text, which says what was asked and whether the tool has run.
        reasons: whether the vendor counts reasoning tokens.
        writes_cache: whether the vendor counts tokens that were written to the cache.
    """
    named: dict[str, Any] = {"provider": provider, "model": model, "response_model": response_model}
    if REFUSED_QUESTION in body:
        return Call(**named, status=429, error=ERROR)
    first_chunk_ms = FIRST_CHUNK_MS if stream else None
    if RESULT in body:
        return Call(
            **named,
            prompt_tokens=293,
            cached_tokens=192,
            completion_tokens=41,
            reasoning_tokens=8 if reasons else 0,
            answer=ANSWER,
            first_chunk_ms=first_chunk_ms,
        )
    calls_tool: dict[str, Any] = {"tool": TOOL, "arguments": ARGUMENTS}
    return Call(
        **named,
        prompt_tokens=211,
        cached_tokens=128,
        cache_write_tokens=48 if writes_cache else 0,
        completion_tokens=37,
        reasoning_tokens=12 if reasons else 0,
        first_chunk_ms=first_chunk_ms,
        **(calls_tool if tools else {"answer": ANSWER}),
    )


def facts(call: Call) -> dict[str, Any]:
    """The call as JSON, without what it does not have."""
    return {key: value for key, value in asdict(call).items() if value is not None}
