"""Reads messages from events: those of spans, and log records that are events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from observatory_storage.llm.message_reader import read_exchange, read_messages
from observatory_storage.llm.part_reader import decoded, first_of, parts_of, plain_result, text_of
from observatory_storage.llm.span_messages import Message, MessagePart, SpanMessages, ToolDefinition

__all__ = ["EventMessages", "MessageEvent"]

_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
}
_CHOICE: Final = "gen_ai.choice"
# The fields of coding agents' events: what was asked, what was answered.
_ASKED: Final = ("prompt", "request_text", "body")
_ANSWERED: Final = ("response", "response_text")
_ARGUMENTS: Final = ("arguments", "tool_input", "tool_parameters", "function_args")
_OUTPUTS: Final = ("output", "result", "tool_output")
_TOOL_NAMES: Final = ("tool_name", "function_name", "tool.name", "gen_ai.tool.name")
_CALL_IDS: Final = ("call_id", "tool_use_id", "tool_call_id", "gen_ai.tool.call.id")


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """An event.

    Attributes:
        fields: its attributes, and the fields of its body if that is an object.
    """

    name: str
    fields: Mapping[str, Any]

    @classmethod
    def of_log(
        cls, event_name: str | None, body: str | None, body_json: Any, attributes: Mapping[str, Any]
    ) -> MessageEvent:
        """The event that is a log record."""
        name = event_name or text_of(attributes.get("event.name")) or ""
        if body is not None and body.endswith(f".{name}"):  # Claude Code's: the body is its name
            name = body
        given = {"content": body} if body else {}
        inner = body_json if isinstance(body_json, Mapping) else {}
        return cls(name, {**given, **attributes, **inner})


@dataclass(slots=True)
class EventMessages:
    """Collects the messages of events.

    Attributes:
        read_attributes: reads an event that has the attributes of a span.
        tool_input, tool_output: what the span of a tool was given, and what it returned.
    """

    read_attributes: Callable[[Mapping[str, Any]], SpanMessages] | None = None
    input: list[Message] = field(default_factory=list)
    output: list[Message] = field(default_factory=list)
    instructions: tuple[MessagePart, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    tool_input: Any = None
    tool_output: Any = None

    @classmethod
    def of_list(cls, value: Any) -> EventMessages:
        """The messages of a list of events, or of messages that end with the answer."""
        found = cls()
        if not isinstance(value, list):
            return found
        for item in value:
            name = item.get("event.name") if isinstance(item, Mapping) else None
            if isinstance(name, str):
                found.add(MessageEvent(name, item))
            else:
                found.input += read_messages(item, "user")
        if not found.output:
            while found.input and found.input[-1].role == "assistant":
                found.output.insert(0, found.input.pop())
        return found

    def result(self) -> SpanMessages:
        return SpanMessages(tuple(self.input), tuple(self.output), self.instructions, self.tools)

    def add(self, event: MessageEvent) -> None:
        fields = event.fields
        if event.name in _ROLES:
            self._add_message(event)
        elif event.name.startswith("gen_ai.") and self.read_attributes is not None:
            self._add_all(self.read_attributes(fields))
        elif event.name.endswith((".tool_result", ".tool_call", "tool.output")):
            self._add_tool(fields)
        elif event.name.endswith("api_response_body"):
            self.output += read_messages(fields.get("body"), "assistant")
        elif event.name.startswith(("claude_code.", "codex.", "gemini_cli.", "api_request_body")):
            exchange = read_exchange(first_of(fields, _ASKED), "user")
            self.input += exchange.messages
            self.instructions = self.instructions or exchange.instructions
            self.tools = self.tools or exchange.tools
            self.output += read_messages(first_of(fields, _ANSWERED), "assistant")

    def _add_message(self, event: MessageEvent) -> None:
        role, fields = _ROLES[event.name], event.fields
        is_choice = event.name == _CHOICE
        content = decoded(fields.get("message" if is_choice and "message" in fields else "content"))
        if is_choice:
            self.tool_output = fields.get("message") if content is None else content
        elif self.tool_input is None and role == "tool":
            self.tool_input = content
        inner = {**content} if isinstance(content, Mapping) and "role" in content else {}
        if is_choice and isinstance(content, Mapping) and not inner:
            inner = {**content}
        given: dict[str, Any] = {
            "role": text_of(fields.get("role")) or role,
            **({} if inner else {"content": content}),
            **{key: fields[key] for key in _CARRIED if fields.get(key) is not None},
            **inner,
        }
        found = read_messages(given, role)
        target = self.output if is_choice else self.input
        target += found
        if (outcome := fields.get("tool.result")) is not None:  # of Strands
            target.append(Message("tool", parts_of(decoded(outcome))))

    def _add_tool(self, fields: Mapping[str, Any]) -> None:
        name, call_id = (text_of(first_of(fields, keys)) for keys in (_TOOL_NAMES, _CALL_IDS))
        arguments, outcome = first_of(fields, _ARGUMENTS), first_of(fields, _OUTPUTS)
        if arguments is not None:
            self.tool_input = arguments
            call = MessagePart("tool_call", name=name, id=call_id, arguments=decoded(arguments))
            self.input.append(Message("assistant", (call,)))
        if outcome is not None:
            self.tool_output = outcome
            part = MessagePart("tool_result", name=name, id=call_id, result=plain_result(outcome))
            self.output.append(Message("tool", (part,)))

    def _add_all(self, found: SpanMessages) -> None:
        self.input += found.input
        self.output += found.output
        self.instructions = self.instructions or found.instructions
        self.tools = self.tools or found.tools


# The fields of a message beside its content.
_CARRIED: Final = ("tool_calls", "id", "tool_call_id", "name", "finish_reason", "role")
