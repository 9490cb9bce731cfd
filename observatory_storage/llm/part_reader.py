"""Reads the parts of messages, in the forms of all providers and instrumentations.

The forms are told apart by the key or the ``type`` that only one of them has: OpenTelemetry's
parts, OpenAI's chat and responses, Anthropic's blocks, Gemini's parts, Bedrock's content, the AI
SDK's parts. What is of no known form becomes a part of the type ``data``, so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from observatory_storage.llm.span_messages import MessagePart

__all__ = ["decoded", "first_of", "is_part", "parts_of", "plain_result", "text_of"]

_TEXTS: Final = {"text", "input_text", "output_text", "summary_text", "refusal"}
_REASONING: Final = {"reasoning", "thinking", "redacted_thinking", "thought"}
_CALLS: Final = {"tool_call", "tool-call", "tool_use", "server_tool_use", "function_call"}
_CALLS_BY_KEY: Final = ("toolUse", "functionCall", "function_call", "tool_call", "function")
_RESULTS: Final = {
    *("tool_call_response", "tool_result", "tool-result", "tool_response"),
    *("function_call_output", "tool-return", "server_tool_call_response"),
}
_RESULTS_BY_KEY: Final = ("toolResult", "functionResponse", "function_response")
_FILES: Final = {
    **dict.fromkeys(("image", "image_url", "input_image", "image-url", "image-data"), "image"),
    **dict.fromkeys(("audio", "input_audio", "audio-url", "output_audio"), "audio"),
    **dict.fromkeys(("video", "video_url", "video-url"), "video"),
    **dict.fromkeys(("document", "input_file", "document-url"), "document"),
    **dict.fromkeys(("file", "blob", "uri", "binary", "media", "file-data"), None),
}
_FILES_BY_KEY: Final = {
    "inlineData": None,
    "inline_data": None,
    "fileData": None,
    "file_data": None,
    "image": "image",
    "audio": "audio",
    "video": "video",
    "document": "document",
}
# OpenInference's elements of lists. Bedrock's documents have no content.
_TEXTS_BY_KEY: Final = {
    "document": "content",
    "embedding": "text",
    "prompt": "text",
    "completion": "text",
}
_IDS: Final = ("call_id", "tool_call_id", "tool_use_id", "toolCallId", "toolUseId", "id")
_NAMES: Final = ("name", "toolName", "tool_name")
_ARGUMENTS: Final = ("arguments", "input", "args")
_OUTCOMES: Final = ("response", "result", "output", "content")
_MIME_TYPES: Final = ("mime_type", "mimeType", "media_type", "mediaType", "format")
_URIS: Final = ("uri", "url", "fileUri", "file_uri", "image_url", "image")
_CONTENTS: Final = ("content", "data", "bytes", "file_data")
_MODALITIES: Final = ("image", "audio", "video")


def decoded(value: Any) -> Any:
    """The JSON of a text, if it is a JSON object, array or string; else the value itself."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def first_of(given: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first value that is not None."""
    return next((given[name] for name in names if given.get(name) is not None), None)


def text_of(value: Any) -> str | None:
    """The value if it is text, else None."""
    return value if isinstance(value, str) else None


def is_part(value: Any) -> bool:
    """Whether a value is a part of a known form."""
    return isinstance(value, Mapping) and _part(value) is not None


def parts_of(value: Any) -> tuple[MessagePart, ...]:
    """The parts of a message's content."""
    if isinstance(value, str):
        inner = decoded(value)
        if isinstance(inner, list) and inner and all(map(is_part, inner)):
            return parts_of(inner)
        return (MessagePart("text", text=value),) if value else ()
    if isinstance(value, Mapping):
        known = _part(value)
        if known is None:
            return (MessagePart("data", data=dict(value)),) if value else ()
        return known
    if isinstance(value, list):
        return tuple(part for item in value for part in parts_of(item))
    return () if value is None else (MessagePart("data", data=value),)


def plain_result(value: Any) -> Any:
    """The result of a tool: a text if it is a list of texts or a text in a wrapper."""
    value = decoded(value)
    if isinstance(value, Mapping):
        if value.get("type") in ("text", "json", "content", "error-text") and "value" in value:
            return plain_result(value["value"])
        # LangChain's message of a tool, and its form when it is serialised.
        if "tool_call_id" in value and "content" in value:
            return plain_result(value["content"])
        if "lc" in value and isinstance(value.get("kwargs"), Mapping):
            return plain_result(value["kwargs"].get("content"))
    if isinstance(value, list) and value and all(map(is_part, value)):
        parts = parts_of(value)
        if all(part.type == "text" for part in parts):
            return "\n".join(part.text or "" for part in parts)
    return value


def _part(given: Mapping[str, Any]) -> tuple[MessagePart, ...] | None:
    """The part, or the parts in it; None if it is of no known form."""
    kind = given.get("type")
    if isinstance(wrapped := given.get("message_content"), Mapping):
        # OpenInference's parts that are tool calls have the call beside the content.
        call = given.get("tool_call")
        return _part({**wrapped, **call} if isinstance(call, Mapping) else wrapped)
    if kind in _REASONING or "reasoningContent" in given or given.get("thought") is True:
        return (MessagePart("reasoning", text=_reasoning(given)),)
    if kind in _CALLS:
        return (_call(given),)
    if kind in _RESULTS:
        return (_result(given),)
    for key in _CALLS_BY_KEY:
        if isinstance(call := given.get(key), Mapping) and first_of(call, (*_NAMES, "function")):
            return (_call({**given, **call}),)
    for key in _RESULTS_BY_KEY:
        if isinstance(outcome := given.get(key), Mapping):
            return (_result(outcome),)
    if "toolName" in given:
        outcome = first_of(given, ("result", "output"))
        return (_call(given) if outcome is None else _result(given),)
    if kind in _FILES:
        return (_file(given, _FILES[kind]),)
    for key, name in _TEXTS_BY_KEY.items():
        if isinstance(inner := given.get(key), Mapping) and isinstance(inner.get(name), str):
            return (MessagePart("text", text=inner[name]),)
    for key, modality in _FILES_BY_KEY.items():
        if isinstance(given.get(key), Mapping):
            return (_file(given, modality),)
    if kind in _TEXTS or (kind is None and "text" in given):
        text = text_of(first_of(given, ("text", "content", "refusal")))
        return () if text is None else (MessagePart("text", text=text),)
    return None


def _reasoning(given: Mapping[str, Any]) -> str | None:
    found = first_of(given, ("content", "thinking", "text", "reasoning", "reasoningContent"))
    if isinstance(found, Mapping):
        found = first_of(found, ("reasoningText", "text"))
        found = found.get("text") if isinstance(found, Mapping) else found
    if not found and given.get("summary"):
        found = given["summary"]
    if isinstance(found, list):
        return "\n".join(part.text or "" for part in parts_of(found))
    return text_of(found)


def _call(given: Mapping[str, Any]) -> MessagePart:
    function = given.get("function")
    inner = function if isinstance(function, Mapping) else {}
    arguments = first_of({**given, **inner}, _ARGUMENTS)
    return MessagePart(
        "tool_call",
        name=text_of(first_of({**given, **inner}, _NAMES)),
        id=text_of(first_of(given, _IDS)),
        arguments=decoded(arguments),
    )


def _result(given: Mapping[str, Any]) -> MessagePart:
    return MessagePart(
        "tool_result",
        name=text_of(first_of(given, _NAMES)),
        id=text_of(first_of(given, _IDS)),
        result=plain_result(first_of(given, _OUTCOMES)),
    )


def _file(given: Mapping[str, Any], modality: str | None) -> MessagePart:
    fields = _all_fields(given)
    uri, content = (text_of(first_of(fields, names)) for names in (_URIS, _CONTENTS))
    mime_type = text_of(first_of(fields, _MIME_TYPES))
    for inline in (uri, content):
        if inline and inline.startswith("data:"):
            header, _, content = inline.partition(",")
            mime_type = header.removeprefix("data:").partition(";")[0] or mime_type
            uri = None
    if uri and content is None and fields.get("type") == "image" and "://" not in uri:
        uri, content = None, uri  # the AI SDK's `image` may be the image itself
    named = text_of(fields.get("modality")) or modality
    by_type = (mime_type or "").partition("/")[0]
    return MessagePart(
        "file",
        name=text_of(first_of(fields, ("filename", "name"))),
        modality=named or (by_type if by_type in _MODALITIES else "document"),
        mime_type=mime_type,
        uri=uri,
        file_id=text_of(fields.get("file_id")),
        content=content,
        text=text_of(fields.get("transcript")),
    )


def _all_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a part and of the objects within it."""
    fields: dict[str, Any] = {}
    for value in given.values():
        if isinstance(value, Mapping):
            fields |= _all_fields(value)
    return fields | {key: each for key, each in given.items() if not isinstance(each, Mapping)}
