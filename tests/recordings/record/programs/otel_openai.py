"""OpenTelemetry's own instrumentation of the OpenAI SDK, contents in events or in spans."""

from __future__ import annotations

import os
import sys

scenario = sys.argv[1]
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = (
    "SPAN_ONLY" if scenario == "tool-in-spans" else "EVENT_ONLY"
)

import openai_calls  # noqa: E402 - after the settings
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor  # noqa: E402
from telemetry import export  # noqa: E402

export()
OpenAIInstrumentor().instrument()
calls = {
    "chat": openai_calls.chat,
    "stream": openai_calls.stream,
    "tool-in-spans": openai_calls.tool,
    "error": openai_calls.refused,
}
calls[scenario](openai_calls.client_of())
