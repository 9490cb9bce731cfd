"""Stores what a model was asked and answered in the row of its span, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from observatory_storage.otel.span_contents import add_contents
from observatory_storage.plain_json import PlainJson, written

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.trace import Span
    from opentelemetry.util.genai.types import (
        InputMessage,
        MessagePart,
        OutputMessage,
        ToolDefinition,
    )

__all__ = ["PostgresCompletionHook"]


class PostgresCompletionHook:
    """Stores the contents of model calls with their spans, although the spans have none.

    OpenTelemetry's instrumentations of LLM clients call a completion hook with the messages, the
    system instructions and the tools of each call. This one passes them to the
    `PostgresSpanExporter` of the process, which stores them as the attributes
    ``gen_ai.input.messages``, ``gen_ai.output.messages``, ``gen_ai.system_instructions`` and
    ``gen_ai.tool.definitions`` of the span's row. They never become attributes of the span itself:
    other exporters do not see them, and the SDK's limit of the length of attributes does not cut
    them. `PayloadsConfig` says whether they are compressed, and the rules of the configuration
    redact them as they do other attributes.

    The hook is registered as ``postgresql``: set
    ``OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK=postgresql``, or pass it to an instrumentor.

    Example:
        >>> OpenAIInstrumentor().instrument(completion_hook=PostgresCompletionHook())
    """

    def on_completion(
        self,
        *,
        inputs: Sequence[InputMessage] = (),
        outputs: Sequence[OutputMessage] = (),
        system_instruction: Sequence[MessagePart] = (),
        tool_definitions: Sequence[ToolDefinition] | None = None,
        span: Span | None = None,
        log_record: LogRecord | None = None,
        **_: Any,
    ) -> None:
        """Take the contents of a call, before its span ends. A span that is not sampled has none.

        The values are converted at once, since they may be objects that the application changes.
        """
        if span is None or not span.is_recording():
            return
        context = span.get_span_context()
        if not context.trace_flags.sampled:
            return
        given = {
            "gen_ai.input.messages": inputs,
            "gen_ai.output.messages": outputs,
            "gen_ai.system_instructions": system_instruction,
            "gen_ai.tool.definitions": tool_definitions,
        }
        contents = {name: _json(items) for name, items in given.items() if items}
        if contents:
            add_contents((context.trace_id, context.span_id), contents)


def _json(items: Sequence[object]) -> bytes:
    """The JSON of dataclasses whose fields may have any value."""
    try:
        return orjson.dumps(items, default=_base64, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        return written(PlainJson().of(items)).encode()


def _base64(value: object) -> str:
    """Files, which OpenTelemetry's messages have in base64. Raises for anything else."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError
