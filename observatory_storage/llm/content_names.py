"""The attributes, events and log records in which prompts and completions stand.

A `*` in a name stands for a number: ``llm.input_messages.*`` are the attributes of a list that was
flattened, such as ``llm.input_messages.0.message.content``. All other names are compared whole, so
that ``gen_ai.prompt`` is a prompt and ``gen_ai.prompt.name`` is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

__all__ = [
    "COMPLETIONS",
    "COMPLETIONS_OF_EVENTS",
    "MESSAGE_EVENTS",
    "PROMPTS",
    "PROMPTS_OF_EVENTS",
    "is_one_of",
    "values_path",
]

# Prompts: messages, instructions, arguments of tools, texts to embed, queries to retrieve.
PROMPTS: Final = (
    "gen_ai.input.messages",
    "gen_ai.input.messages.*",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.prompt.*",
    "gen_ai.content.prompt",
    "gen_ai.event.content",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.args",
    "gen_ai.tool.input",
    "gen_ai.retrieval.query.text",
    "llm.input_messages",
    "llm.input_messages.*",
    "llm.prompts",
    "llm.prompts.*",
    "llm.prompt_template.template",
    "llm.prompt_template.variables",
    "input.value",
    "embedding.text",
    "embedding.embeddings.*.embedding.text",
    "reranker.query",
    "reranker.input_documents.*",
    "tool.parameters",
    "ai.prompt",
    "ai.prompt.messages",
    "ai.toolCall.args",
    "ai.value",
    "ai.values",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "langfuse.trace.input",
    "mlflow.spanInputs",
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.tool_call_args",
    "gcp.vertex.agent.data",
    "pydantic_ai.all_messages",
    "all_messages_events",
    "events",
    "request_data",
    "tool_arguments",
    "user_prompt",
    "user_system_prompt",
    "new_context",
    "tool_input",
)
# Completions: answers, reasoning, calls of tools, results of tools, retrieved documents.
COMPLETIONS: Final = (
    "gen_ai.output.messages",
    "gen_ai.output.messages.*",
    "gen_ai.completion",
    "gen_ai.completion.*",
    "gen_ai.content.completion",
    "gen_ai.content.reasoning",
    "gen_ai.tool.call.result",
    "gen_ai.tool.output",
    "gen_ai.retrieval.documents",
    "llm.output_messages",
    "llm.output_messages.*",
    "llm.completions",
    "llm.completions.*",
    "llm.choices.*",
    "llm.function_call",
    "output.value",
    "retrieval.documents",
    "retrieval.documents.*",
    "reranker.output_documents.*",
    "ai.response.text",
    "ai.response.reasoning",
    "ai.response.object",
    "ai.response.toolCalls",
    "ai.result",
    "ai.result.text",
    "ai.result.object",
    "ai.result.toolCalls",
    "ai.toolCall.result",
    "traceloop.entity.output",
    "langfuse.observation.output",
    "langfuse.trace.output",
    "mlflow.spanOutputs",
    "gcp.vertex.agent.llm_response",
    "gcp.vertex.agent.tool_response",
    "response_data",
    "tool_response",
    "final_result",
    "response.model_output",
)
# Events that report messages, by the beginnings of their names. Claude Code's span events have no
# prefix.
MESSAGE_EVENTS: Final = (
    "gen_ai.",
    "claude_code.",
    "codex.",
    "gemini_cli.",
    "tool.output",
    "api_request_body",
    "api_response_body",
)
# The attributes that message events have beside those of spans.
PROMPTS_OF_EVENTS: Final = (
    "content",
    "prompt",
    "body",
    "arguments",
    "tool_parameters",
    "function_args",
    "request_text",
)
COMPLETIONS_OF_EVENTS: Final = (
    "message",
    "tool_calls",
    "tool.result",
    "output",
    "response",
    "response_text",
)


def values_path(names: Iterable[str]) -> str:
    """The SQL/JSON path of the values of the attributes of these names."""
    return f"$.keyvalue() ? ({_one_of(names, '')}).value"


def is_one_of(key: str, names: tuple[str, ...]) -> bool:
    """Whether an attribute has one of the names, as `values_path` compares them."""
    return _pattern(names).match(key) is not None


@cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    each = (re.escape(name).replace(r"\*", "[0-9]+") for name in names)
    # Whatever follows a number at the end of a name belongs to the list that was flattened.
    return re.compile(
        "|".join(f"{one}(?s:.*)" if one.endswith("]+") else rf"{one}\Z" for one in each)
    )


def _one_of(names: Iterable[str], beginning: str) -> str:
    """The condition that a key is one of the names, which have this beginning.

    Each comparison takes a third of a microsecond, so names with a common beginning are compared
    by it first.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        part, dot, rest = name.removeprefix(beginning).partition(".")
        groups.setdefault(f"{beginning}{part}." if dot and rest != "*" else name, []).append(name)
    return " || ".join(
        _is_name(group[0])
        if len(group) == 1
        else f'@.key starts with "{common}" && ({_one_of(group, common)})'
        for common, group in groups.items()
    )


def _is_name(name: str) -> str:
    beginning, is_flattened, rest = name.partition("*")
    if not is_flattened:
        return f'@.key == "{name}"'
    pattern = f"^{beginning}[0-9]+{rest}$" if rest else f"^{beginning}[0-9]"
    escaped = pattern.replace(".", "[.]")
    return f'@.key starts with "{beginning}" && @.key like_regex "{escaped}"'
