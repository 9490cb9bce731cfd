"""Which attributes and log records hold prompts and completions."""

from __future__ import annotations

from typing import Final

from observatory_storage.llm.content_search import COMPLETIONS, PROMPTS

__all__ = ["is_content", "reports_messages"]

_BEGINNINGS: Final = (*PROMPTS, *COMPLETIONS)
# Events and log records that report messages, by the beginnings of their names.
_MESSAGE_EVENTS: Final = ("gen_ai.", "claude_code.", "codex.", "gemini_cli.")
# The contents among the attributes of such events, which have no names of their own there.
_OF_MESSAGE_EVENTS: Final = frozenset(
    {
        *("content", "message", "prompt", "body", "arguments", "tool_calls", "tool_input"),
        *("tool_parameters", "function_args", "request_text", "response_text"),
        *("tool.result", "tool_response", "output", "response"),
    }
)


def is_content(key: str, event_name: object = None) -> bool:
    """Whether the attribute of this key holds a prompt or a completion.

    Args:
        key: the key of the attribute.
        event_name: the name of the event or log record that has it, if it is one.
    """
    if key.startswith(_BEGINNINGS):
        return True
    return key in _OF_MESSAGE_EVENTS and reports_messages(event_name)


def reports_messages(event_name: object) -> bool:
    """Whether an event or a log record of this name reports messages: its body is one."""
    return isinstance(event_name, str) and event_name.startswith(_MESSAGE_EVENTS)
