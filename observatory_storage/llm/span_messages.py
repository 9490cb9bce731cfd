"""The messages of a model call in one form, whatever the instrumentation that reported them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from observatory_storage.serialization import Result

__all__ = ["Message", "MessagePart", "PartType", "SpanMessages", "ToolDefinition"]

PartType = Literal["text", "reasoning", "tool_call", "tool_result", "file", "data"]


@dataclass(frozen=True, slots=True)
class MessagePart(Result):
    """A part of a message. The fields that its type does not have are None.

    Attributes:
        type: ``text``, ``reasoning``, ``tool_call``, ``tool_result``, ``file`` (an image, audio, a
            video or a document), or ``data`` for anything else.
        text: the text or the reasoning.
        name: the name of the tool, or of the file.
        id: the id of the tool call, which its result has too.
        arguments: the arguments of a tool call: JSON, or text if it is no JSON.
        result: the result of a tool call: text or JSON.
        modality: ``image``, ``audio``, ``video`` or ``document``.
        mime_type: the type of the file, such as ``image/png``.
        uri: where the file is.
        file_id: the file's id with the provider.
        content: the file itself, in base64.
        data: the JSON of a part that is of no known form.
    """

    type: PartType
    text: str | None = None
    name: str | None = None
    id: str | None = None
    arguments: Any = None
    result: Any = None
    modality: str | None = None
    mime_type: str | None = None
    uri: str | None = None
    file_id: str | None = None
    content: str | None = None
    data: Any = None

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the fields that are not None as a dictionary; see `Result.to_dict`."""
        whole = Result.to_dict(self, json=json)
        return {name: value for name, value in whole.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Message(Result):
    """A message.

    Attributes:
        role: ``user``, ``assistant``, ``tool``, ``system`` or ``developer``; another one as it was
            sent.
        name: the name of the participant.
        finish_reason: why the model stopped, as it was sent. Only answers have one.
    """

    role: str
    parts: tuple[MessagePart, ...]
    name: str | None = None
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The texts of the message, one a line, without reasoning, tool calls and results."""
        return "\n".join(part.text or "" for part in self.parts if part.type == "text")


@dataclass(frozen=True, slots=True)
class ToolDefinition(Result):
    """A tool that was offered to the model.

    Attributes:
        parameters: the JSON schema of its arguments.
    """

    name: str
    description: str | None = None
    parameters: Any = None


@dataclass(frozen=True, slots=True)
class SpanMessages(Result):
    """What went into a model or a tool, and what came out.

    A call of a tool has its arguments as a ``tool_call`` part in `input`, and its result as a
    ``tool_result`` part in `output`.

    Attributes:
        input: the messages that were sent, the oldest first.
        output: the answers: one message for each choice.
        instructions: the system instructions, if they were given beside the messages. Messages of
            the role ``system`` stay in `input`.
        tools: the tools that were offered.
    """

    input: tuple[Message, ...] = ()
    output: tuple[Message, ...] = ()
    instructions: tuple[MessagePart, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
