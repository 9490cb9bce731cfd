"""Reads messages from requests and responses, in the forms of all providers.

A value is a text, a message, a list of messages or parts, or a whole request or response, in which
the messages stand under a known key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from observatory_storage.llm.part_reader import (
    decoded,
    first_of,
    is_part,
    parts_of,
    plain_result,
    text_of,
)
from observatory_storage.llm.span_messages import Message, MessagePart, ToolDefinition

__all__ = ["Exchange", "read_exchange", "read_messages", "read_tools"]

_ROLES: Final = {
    "human": "user",
    "HumanMessage": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "model": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "function": "tool",
}
# The types of LangChain's messages, which have no role.
_TYPES: Final = {*_ROLES, "system", "tool", "chat"} - {"model", "function"}
# The items of OpenAI's responses that have no role.
_ITEMS: Final = {
    **dict.fromkeys(("function_call", "custom_tool_call", "mcp_call", "reasoning"), "assistant"),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), "tool"),
}
_ASKED: Final = ("messages", "input", "contents", "prompt", "prompts", "inputs", "query")
_ANSWERED: Final = (
    *("choices", "output", "candidates", "generations", "messages", "message", "content"),
    *("outputs", "update", "output_text", "text", "response", "answer"),
)
_INSTRUCTIONS: Final = ("system", "instructions", "system_instruction", "systemInstruction")
_REASONS: Final = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")


@dataclass(slots=True)
class Exchange:
    """What one value has: a request, a response or messages alone."""

    messages: list[Message] = field(default_factory=list)
    instructions: tuple[MessagePart, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()


def read_exchange(value: Any, role: str) -> Exchange:
    """The messages of a request or a response, with its instructions and tools.

    Args:
        value: JSON, or JSON in text.
        role: of messages that do not name theirs. ``assistant`` means that it is a response.
    """
    try:
        return _exchange(decoded(value), role)
    except RecursionError:  # JSON that is nested so deep is no message
        return Exchange([Message(role, (MessagePart("data", data=value),))])


def _exchange(given: Any, role: str) -> Exchange:
    if not isinstance(given, Mapping) or _is_message(given):
        return Exchange(_messages(given, role))
    settings = given.get("config") if isinstance(given.get("config"), Mapping) else {}
    fields: dict[str, Any] = {**(settings or {}), **given}
    answered = role == "assistant"
    found = Exchange()
    key = next(
        (name for name in (_ANSWERED if answered else _ASKED) if _holds(given.get(name))), None
    )
    if key is None:
        found.messages = _messages(given, role)
    else:
        reason = text_of(first_of(given, _REASONS))
        found.messages = [
            _with_reason(each, reason) if answered else each
            for each in read_exchange(given[key], role).messages
        ]
    if not answered:
        found.instructions = _instructions(first_of(fields, _INSTRUCTIONS))
        found.tools = read_tools(first_of(fields, ("tools", "functions")))
    return found


def read_messages(value: Any, role: str) -> list[Message]:
    """The messages of a value, as `read_exchange` reads them."""
    return read_exchange(value, role).messages


def read_tools(value: Any) -> tuple[ToolDefinition, ...]:
    """The tools of a list of definitions."""
    given = decoded(value)
    if isinstance(given, Mapping):
        given = first_of(given, ("function_tools", "tools")) or [given]
    if not isinstance(given, list):
        return ()
    return tuple(tool for item in given for tool in _tools(decoded(item)))


def _tools(given: Any) -> Iterable[ToolDefinition]:
    if not isinstance(given, Mapping):
        return
    for key in ("function_declarations", "functionDeclarations"):
        if isinstance(given.get(key), list):
            for each in given[key]:
                yield from _tools(each)
            return
    for key in ("tool", "toolSpec", "function"):
        if isinstance(given.get(key), Mapping):
            given = {**given, **given[key]}
    if isinstance(schema := decoded(given.get("json_schema")), Mapping) and "name" not in given:
        yield from _tools(schema)
    elif isinstance(name := given.get("name"), str):
        schemas = ("parameters", "input_schema", "inputSchema", "parameters_json_schema")
        parameters = decoded(first_of(given, schemas))
        if isinstance(parameters, Mapping) and set(parameters) == {"json"}:
            parameters = parameters["json"]
        yield ToolDefinition(name, text_of(given.get("description")), parameters)


def _holds(value: Any) -> bool:
    """Whether a value has messages: a text, an object or a list."""
    return isinstance(value, (str, Mapping, list)) and bool(value)


def _messages(given: Any, role: str) -> list[Message]:
    if isinstance(given, list):
        if given and all(is_part(each) and not _is_message(each) for each in given):
            return [Message(role, parts_of(given))]
        return [message for each in given for message in read_messages(each, role)]
    if isinstance(given, Mapping) and _is_message(given):
        message = _message(given, role)
        return [message] if message.parts else []
    parts = parts_of(given)
    return [Message(role, parts)] if parts else []


def _is_message(given: Mapping[str, Any]) -> bool:
    if isinstance(given.get("role"), str) or given.get("lc") == 1:
        return True
    kind = given.get("type")
    if kind in _ITEMS or kind == "message":
        return True
    if kind in _TYPES and ("content" in given or isinstance(given.get("data"), Mapping)):
        return True
    # A choice of a chat, a candidate of Gemini, a generation of LangChain.
    if any(isinstance(given.get(key), Mapping) for key in ("message", "delta")):
        return "choices" not in given
    if isinstance(given.get("content"), Mapping) and "parts" in given["content"]:
        return True
    return isinstance(given.get("parts"), list) or isinstance(given.get("tool_calls"), list)


def _message(given: Mapping[str, Any], role: str) -> Message:
    reason = text_of(first_of(given, _REASONS))
    for key in ("message", "delta", "kwargs", "data", "content"):
        inner = given.get(key)
        is_wrapper = key in ("message", "delta") or "lc" in given or given.get("type") in _TYPES
        if isinstance(inner, Mapping) and (is_wrapper or "parts" in inner):
            outer = {"role": given["role"]} if isinstance(given.get("role"), str) else {}
            kind = given.get("type")
            typed = {"type": kind} if kind in _TYPES and kind != "constructor" else {}
            found = _message({**typed, **_class_of(given), **outer, **inner}, role)
            return _with_reason(found, reason or _reason_within(given))
    kind = given.get("type")
    named = given.get("role") or _ITEMS.get(str(kind)) or (kind if kind in _TYPES else None)
    named = _ROLES.get(str(named), named) or role
    parts = _parts(given, str(named))
    name = None if named == "tool" else text_of(given.get("name"))
    if kind in _ITEMS:
        name = None
    return Message(str(named), parts, name or None, reason or _reason_within(given))


def _class_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The type of a message that LangChain has serialised: its class."""
    path = given.get("id")
    is_class = given.get("lc") == 1 and isinstance(path, list) and path and path[-1] in _ROLES
    return {"type": path[-1]} if is_class and isinstance(path, list) else {}


def _reason_within(given: Mapping[str, Any]) -> str | None:
    for key in ("response_metadata", "generation_info"):
        if isinstance(inner := given.get(key), Mapping):
            return text_of(first_of(inner, _REASONS))
    return None


def _parts(given: Mapping[str, Any], role: str) -> tuple[MessagePart, ...]:
    if given.get("type") in _ITEMS:
        return parts_of(dict(given))
    content = first_of(given, ("parts", "contents", "content", "text"))
    call_id = text_of(first_of(given, ("tool_call_id", "id" if role == "tool" else "tool_call_id")))
    calls = decoded(first_of(given, ("tool_calls", "function_call")))
    reasoning = text_of(first_of(given, ("reasoning_content", "reasoning")))
    found: list[MessagePart] = []
    if reasoning:
        found.append(MessagePart("reasoning", text=reasoning))
    content_parts = parts_of(content)
    has_result = any(part.type in ("tool_result", "tool_call") for part in content_parts)
    if role == "tool" and content is not None and not has_result:
        name = text_of(given.get("name"))
        found.append(
            MessagePart("tool_result", name=name, id=call_id, result=plain_result(content))
        )
    else:
        found += content_parts
    if text := text_of(given.get("refusal")):
        found.append(MessagePart("text", text=text))
    if isinstance(given.get("audio"), Mapping):
        found += parts_of({"type": "audio", "audio": given["audio"]})
    known = {part.id for part in found if part.type == "tool_call"}
    if isinstance(calls, Mapping):
        calls = [calls]
    for call in calls if isinstance(calls, list) else ():
        each = (
            parts_of({"type": "tool_call", **_unwrapped(call)}) if isinstance(call, Mapping) else ()
        )
        found += [part for part in each if part.id is None or part.id not in known]
    # Streams begin with an empty text, also those of tool calls.
    return tuple(part for part in found if part.type != "text" or part.text) or tuple(found)


def _unwrapped(call: Mapping[str, Any]) -> dict[str, Any]:
    inner = call.get("tool_call")
    found = dict(inner) if isinstance(inner, Mapping) else dict(call)
    found.pop("type", None)
    return found


def _with_reason(message: Message, reason: str | None) -> Message:
    if reason is None or message.finish_reason is not None:
        return message
    return replace(message, finish_reason=reason)


def _instructions(value: Any) -> tuple[MessagePart, ...]:
    given = decoded(value)
    if isinstance(given, Mapping) and "parts" in given:
        given = given["parts"]
    return parts_of(given)
