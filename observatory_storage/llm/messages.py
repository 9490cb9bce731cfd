"""Converts messages to the form of OpenTelemetry's GenAI conventions: a role and typed parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from observatory_storage.errors import ValidationError
from observatory_storage.plain_json import PlainJson

__all__ = ["input_messages", "instructions", "output_messages"]

_RULE = "must be text, or a sequence of texts and mappings"


def input_messages(value: object, field: str) -> list[dict[str, Any]]:
    """The messages sent to the model. A text becomes one message of the user."""
    return _messages(value, "user", field)


def output_messages(
    value: object, field: str, finish_reasons: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The model's answers: one message for each choice, with its finish reason if known."""
    messages = _messages(value, "assistant", field)
    # There may be fewer reasons than answers, and the other way round.
    for message, reason in zip(messages, finish_reasons, strict=False):
        message.setdefault("finish_reason", reason)
    return messages


def instructions(value: object, field: str) -> list[dict[str, Any]]:
    """The system instructions, as parts: they have no role."""
    return [_text(item) if isinstance(item, str) else dict(item) for item in _items(value, field)]


def _items(value: object, field: str) -> list[str | Mapping[str, Any]]:
    if isinstance(value, (bytes, bytearray)):
        raise ValidationError(field, value, _RULE)
    # The usual types first: `isinstance` of the abstract ones takes ten times as long.
    if not isinstance(value, (list, Sequence)) or isinstance(value, str):
        return [_item(value, field, _RULE)]
    return [
        item
        if isinstance(item, (str, dict))
        else _item(item, f"{field}[{index}]", "must be text or a mapping")
        for index, item in enumerate(value)
    ]


def _item(value: object, field: str, rule: str) -> str | Mapping[str, Any]:
    if isinstance(value, (str, Mapping)):
        return value
    # The messages of a provider's SDK are objects: models of pydantic, dataclasses.
    plain = PlainJson().of(value)
    if not isinstance(plain, Mapping):
        raise ValidationError(field, value, rule)
    return plain


def _messages(value: object, role: str, field: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(_items(value, field)):
        if isinstance(item, str):
            messages.append({"role": role, "parts": [_text(item)]})
            continue
        message = dict(item)
        if not isinstance(message.setdefault("role", role), str):
            raise ValidationError(f"{field}[{index}].role", message["role"], "must be text")
        # The chat APIs' own form, {"role": …, "content": "…"}, is what most callers have at hand.
        if "parts" not in message and isinstance(message.get("content"), str):
            message["parts"] = [_text(message.pop("content"))]
        messages.append(message)
    return messages


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}
