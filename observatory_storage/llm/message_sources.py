"""Where a span's messages stand: its attributes, its events, and the log records that name it.

Each side, input and output, is read from the first place that has it. Attributes come first, by
the order of the tables below; then events, then log records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from observatory_storage.llm.event_messages import EventMessages, MessageEvent
from observatory_storage.llm.flattened import unflattened
from observatory_storage.llm.message_reader import (
    Exchange,
    read_exchange,
    read_messages,
    read_tools,
)
from observatory_storage.llm.part_reader import decoded, first_of, parts_of, plain_result, text_of
from observatory_storage.llm.span_messages import Message, MessagePart, SpanMessages, ToolDefinition

__all__ = ["is_complete", "messages_from"]

Attributes = Mapping[str, Any]

# By precedence: the attributes that hold what was sent, and what came back. Those of a list may be
# flattened.
_INPUTS: Final = (
    "gen_ai.input.messages",
    "llm.input_messages",
    "gen_ai.prompt",
    "ai.prompt.messages",
    "ai.prompt",
    "gcp.vertex.agent.llm_request",
    "request_data",
    "langfuse.observation.input",
    "mlflow.spanInputs",
    "llm.prompts",
    "gen_ai.content.prompt",
    "gen_ai.retrieval.query.text",
    "reranker.query",
    "embedding.embeddings",
    "ai.values",
    "ai.value",
    "new_context",
    "user_prompt",
    "input.value",
    "traceloop.entity.input",
    "gcp.vertex.agent.data",
    "langfuse.trace.input",
)
_OUTPUTS: Final = (
    "gen_ai.output.messages",
    "llm.output_messages",
    "gen_ai.completion",
    "gcp.vertex.agent.llm_response",
    "response_data",
    "langfuse.observation.output",
    "mlflow.spanOutputs",
    "llm.completions",
    "llm.choices",
    "gen_ai.content.completion",
    "gen_ai.retrieval.documents",
    "retrieval.documents",
    "reranker.output_documents",
    "response.model_output",
    "output.value",
    "traceloop.entity.output",
    "final_result",
    "langfuse.trace.output",
)
# Whole conversations, which end with the answer.
_CONVERSATIONS: Final = ("pydantic_ai.all_messages", "all_messages_events", "events")
_ARGUMENTS: Final = (
    "gen_ai.tool.call.arguments",
    "ai.toolCall.args",
    "tool_arguments",
    "gcp.vertex.agent.tool_call_args",
    "gen_ai.tool.args",
    "gen_ai.tool.input",
    "tool_input",
    "tool.parameters",
)
_RESULTS: Final = (
    "gen_ai.tool.call.result",
    "ai.toolCall.result",
    "tool_response",
    "gcp.vertex.agent.tool_response",
    "gen_ai.tool.output",
)
_TOOL_NAMES: Final = ("gen_ai.tool.name", "ai.toolCall.name", "tool.name", "tool_name")
_TOOL_IDS: Final = ("gen_ai.tool.call.id", "ai.toolCall.id", "tool_call.id", "tool.id")
_TOOL_KINDS: Final = {
    "gen_ai.operation.name": "execute_tool",
    "openinference.span.kind": "TOOL",
    "traceloop.span.kind": "tool",
    "langfuse.observation.type": "tool",
    "langsmith.span.kind": "tool",
    "mlflow.spanType": "TOOL",
    "ai.operationId": "ai.toolCall",
}
_INSTRUCTIONS: Final = ("gen_ai.system_instructions", "user_system_prompt")
_TOOLS: Final = (
    "gen_ai.tool.definitions",
    "llm.tools",
    "llm.request.functions",
    "ai.prompt.tools",
    "mlflow.chat.tools",
    "model_request_parameters",
)
_REASONS: Final = (
    "gen_ai.response.finish_reasons",
    "ai.response.finishReason",
    "llm.finish_reason",
)


def messages_from(
    attributes: Attributes, events: Iterable[MessageEvent], logs: Iterable[MessageEvent]
) -> SpanMessages:
    """The messages of a span.

    Args:
        events: its events, in their order.
        logs: the events among the log records that name it, in the order of time.
    """
    is_tool = _is_tool(attributes)
    found = _of_tool(attributes) if is_tool else _of_call(attributes)
    for each in (events, logs):
        if is_complete(found):
            break
        found = _joined(found, _of_events(attributes, each, is_tool=is_tool))
    return _with_reasons(found, attributes)


def is_complete(found: SpanMessages) -> bool:
    """Whether there is both an input and an output."""
    return bool(found.input and found.output)


def _joined(one: SpanMessages, other: SpanMessages) -> SpanMessages:
    return SpanMessages(
        one.input or other.input,
        one.output or other.output,
        one.instructions or other.instructions,
        one.tools or other.tools,
    )


def _of_call(attributes: Attributes) -> SpanMessages:
    asked = _first(attributes, _INPUTS, "user")
    output = _first(attributes, _OUTPUTS, "assistant").messages or _of_ai_sdk(attributes)
    for name in _CONVERSATIONS:
        if (asked.messages and output) or name not in attributes:
            continue
        conversation = EventMessages.of_list(decoded(attributes[name]))
        asked.messages = asked.messages or conversation.input
        output = output or conversation.output
    if not asked.messages and not output and (first_of(attributes, (*_ARGUMENTS, *_RESULTS))):
        return _of_tool(attributes)
    instructions = (parts_of(decoded(attributes.get(name))) for name in _INSTRUCTIONS)
    return SpanMessages(
        tuple(asked.messages),
        tuple(output),
        next((parts for parts in instructions if parts), asked.instructions),
        _tools(attributes) or asked.tools,
    )


def _of_ai_sdk(attributes: Attributes) -> list[Message]:
    """The answer that the AI SDK reports in several attributes."""
    for prefix in ("ai.response.", "ai.result."):
        parts = (
            *(
                MessagePart("reasoning", text=text)
                for text in [text_of(attributes.get(f"{prefix}reasoning"))]
                if text
            ),
            *parts_of(attributes.get(f"{prefix}text")),
            *parts_of(decoded(attributes.get(f"{prefix}toolCalls"))),
            *parts_of(decoded(attributes.get(f"{prefix}files"))),
            *parts_of(attributes.get(f"{prefix}object")),
        )
        if parts:
            return [Message("assistant", parts)]
    return []


def _is_tool(attributes: Attributes) -> bool:
    return any(decoded(attributes.get(name)) == kind for name, kind in _TOOL_KINDS.items())


def _of_tool(attributes: Attributes) -> SpanMessages:
    arguments = _value(attributes, (*_ARGUMENTS, *_INPUTS))
    result = _value(attributes, (*_RESULTS, *_OUTPUTS))
    return _call_of_tool(attributes, arguments, result)


def _call_of_tool(attributes: Attributes, arguments: Any, result: Any) -> SpanMessages:
    name = text_of(first_of(attributes, _TOOL_NAMES))
    call_id = text_of(first_of(attributes, _TOOL_IDS))
    call = MessagePart("tool_call", name=name, id=call_id, arguments=decoded(arguments))
    outcome = MessagePart("tool_result", name=name, id=call_id, result=_outcome(result))
    return SpanMessages(
        () if arguments is None else (Message("assistant", (call,)),),
        () if result is None else (Message("tool", (outcome,)),),
    )


def _outcome(result: Any) -> Any:
    given = decoded(result)
    if isinstance(given, Mapping) and set(given) == {"output"}:  # LangSmith's wrapper
        given = given["output"]
    return plain_result(given)


def _of_events(
    attributes: Attributes, events: Iterable[MessageEvent], *, is_tool: bool
) -> SpanMessages:
    found = EventMessages(_of_call)
    for event in events:
        found.add(event)
    if is_tool and (found.tool_input is not None or found.tool_output is not None):
        return _call_of_tool(attributes, found.tool_input, found.tool_output)
    return found.result()


def _first(attributes: Attributes, names: Iterable[str], role: str) -> Exchange:
    """The first of the attributes that has a message."""
    for name in names:
        value = _one(attributes, name)
        if value is None:
            continue
        found = read_exchange(value, role)
        if found.messages:
            return found
    return Exchange()


def _value(attributes: Attributes, names: Iterable[str]) -> Any:
    values = (_one(attributes, name) for name in names)
    return next((value for value in values if value is not None), None)


def _one(attributes: Attributes, name: str) -> Any:
    value = attributes.get(name)
    return unflattened(attributes, name) if value is None else value


def _tools(attributes: Attributes) -> tuple[ToolDefinition, ...]:
    found = (read_tools(_one(attributes, name)) for name in _TOOLS)
    return next((tools for tools in found if tools), ())


def _with_reasons(found: SpanMessages, attributes: Attributes) -> SpanMessages:
    """The messages, with the finish reasons that the span reports beside them."""
    if all(message.finish_reason is not None for message in found.output):
        return found
    given = decoded(first_of(attributes, _REASONS))
    reasons = given if isinstance(given, list) else [given]
    if given is None and (response := attributes.get("output.value")) is not None:
        reasons = [message.finish_reason for message in read_messages(response, "assistant")]
    reasons += [None] * len(found.output)
    output = tuple(
        replace(message, finish_reason=reason)
        if isinstance(reason, str) and message.role == "assistant" and not message.finish_reason
        else message
        for message, reason in zip(found.output, reasons, strict=False)
    )
    return replace(found, output=output)
