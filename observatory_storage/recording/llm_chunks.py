"""Puts the chunks of a streamed response together."""

from __future__ import annotations

from typing import Any, Final

from observatory_storage.recording.llm_response import (
    field_of,
    read_response,
    read_tier,
    read_usage,
    tool_call,
)

__all__ = ["StreamedAnswer"]

_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")


class StreamedAnswer:
    """Collects what the chunks of one response tell.

    Chunks are texts, or what the SDKs of OpenAI (chat completions, completions, responses) and
    Anthropic (messages) yield. Chunks of other forms are ignored.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        self._texts: dict[int, list[str]] = {}
        self._thoughts: dict[int, list[str]] = {}
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}
        self._reasons: dict[int, str] = {}
        self._usage: dict[str, int] = {}
        self._whole: dict[str, Any] = {}

    def add(self, chunk: object) -> bool:
        """Take a chunk; returns whether it has content."""
        if isinstance(chunk, str):
            return self._text(0, chunk)
        if (choices := field_of(chunk, "choices")) is not None:
            return self._add_choices(chunk, choices)
        kind = field_of(chunk, "type")
        if not isinstance(kind, str):
            return False
        if kind == "chunk":  # of OpenAI's helper, whose other events repeat what chunks tell
            return self.add(field_of(chunk, "chunk"))
        if kind.startswith("response."):
            return self._add_event_of_response(chunk, kind)
        return self._add_event_of_message(chunk, kind)

    def fields(self) -> dict[str, Any]:
        """What the chunks have told, in the fields of `LlmSpan`."""
        found = {**self._fields, **read_usage(self._usage or None)}
        found["attributes"] = {**found.get("attributes", {}), **self._attributes}
        messages = []
        for index in sorted({*self._texts, *self._thoughts, *(at for at, _ in self._calls)}):
            parts: list[dict[str, Any]] = []
            for kind, texts in (("reasoning", self._thoughts), ("text", self._texts)):
                if text := "".join(texts.get(index, ())):
                    parts.append({"type": kind, "content": text})
            for at, call in sorted(self._calls.items()):
                if at[0] == index:
                    arguments = "".join(call["arguments"])
                    parts.append(tool_call(call["id"], call["name"], arguments))
            messages.append({"role": "assistant", "parts": parts})
        if messages:
            found["output_messages"] = messages
        if self._reasons:
            found["finish_reasons"] = [reason for _, reason in sorted(self._reasons.items())]
        return {**found, **self._whole}

    def _text(self, index: int, text: object) -> bool:
        if isinstance(text, str) and text:
            self._texts.setdefault(index, []).append(text)
            return True
        return False

    def _thought(self, index: int, text: object) -> bool:
        if isinstance(text, str) and text:
            self._thoughts.setdefault(index, []).append(text)
            return True
        return False

    def _call(self, place: tuple[int, int], call_id: Any, name: Any, arguments: Any) -> bool:
        call = self._calls.setdefault(place, {"id": None, "name": None, "arguments": []})
        call["id"], call["name"] = call["id"] or call_id, call["name"] or name
        if isinstance(arguments, str):
            call["arguments"].append(arguments)
        return True

    def _name(self, source: object) -> None:
        for name, key in (("response_model", "model"), ("response_id", "id")):
            if isinstance(value := field_of(source, key), str) and value:
                self._fields[name] = value

    def _use(self, usage: object) -> None:
        # Counts of later events replace those of earlier ones.
        for name in _COUNTS:
            if (count := field_of(usage, name)) is not None:
                self._usage[name] = count

    def _add_choices(self, chunk: object, choices: Any) -> bool:
        self._name(chunk)
        self._attributes |= read_tier(chunk)
        self._use(field_of(chunk, "usage"))
        has_content = False
        for choice in choices:
            index = field_of(choice, "index") or 0
            delta = field_of(choice, "delta")
            has_content |= self._text(index, field_of(choice, "text"))
            has_content |= self._text(index, field_of(delta, "content"))
            has_content |= self._text(index, field_of(delta, "refusal"))
            has_content |= self._thought(index, field_of(delta, "reasoning_content"))
            for position, call in enumerate(field_of(delta, "tool_calls") or ()):
                at = field_of(call, "index")
                function = field_of(call, "function")
                names = (field_of(function, name) for name in ("name", "arguments"))
                place = index, position if at is None else at
                has_content |= self._call(place, field_of(call, "id"), *names)
            if isinstance(reason := field_of(choice, "finish_reason"), str):
                self._reasons[index] = reason
        return has_content

    def _add_event_of_response(self, event: object, kind: str) -> bool:
        if kind in _ENDS:  # has all that was streamed before
            self._whole = read_response(field_of(event, "response"))
            return False
        place = field_of(event, "output_index") or 0
        match kind:
            case "response.created":
                self._name(field_of(event, "response"))
            case "response.output_text.delta" | "response.refusal.delta":
                return self._text(0, field_of(event, "delta"))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._thought(0, field_of(event, "delta"))
            case "response.output_item.added":
                item = field_of(event, "item")
                if field_of(item, "type") == "function_call":
                    return self._call(
                        (0, place), field_of(item, "call_id"), field_of(item, "name"), None
                    )
            case "response.function_call_arguments.delta":
                return self._call((0, place), None, None, field_of(event, "delta"))
        return False

    def _add_event_of_message(self, event: object, kind: str) -> bool:
        place = field_of(event, "index") or 0
        match kind:
            case "message_start":
                message = field_of(event, "message")
                self._name(message)
                self._use(field_of(message, "usage"))
            case "content_block_start":
                block = field_of(event, "content_block")
                if field_of(block, "type") == "tool_use":
                    return self._call(
                        (0, place), field_of(block, "id"), field_of(block, "name"), None
                    )
                return self._text(0, field_of(block, "text"))
            case "content_block_delta":
                delta = field_of(event, "delta")
                if (part := field_of(delta, "partial_json")) is not None:
                    return self._call((0, place), None, None, part)
                return self._text(0, field_of(delta, "text")) or self._thought(
                    0, field_of(delta, "thinking")
                )
            case "message_delta":
                self._use(field_of(event, "usage"))
                if isinstance(reason := field_of(field_of(event, "delta"), "stop_reason"), str):
                    self._reasons[0] = reason
        return False


_COUNTS: Final = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
    *("prompt_tokens_details", "completion_tokens_details", "output_tokens_details"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"),
)
