"""OpenInference's instrumentation of the OpenAI SDK."""

from __future__ import annotations

import sys

import openai_calls
from conversation import SESSION, USER
from openinference.instrumentation import using_attributes
from openinference.instrumentation.openai import OpenAIInstrumentor
from telemetry import export, say

scenario = sys.argv[1]
OpenAIInstrumentor().instrument(tracer_provider=export())
client = openai_calls.client_of()
if scenario == "session":
    with using_attributes(session_id=SESSION, user_id=USER):
        openai_calls.chat(client)
    say(user=USER, session=SESSION)
else:
    calls = {
        "responses-stream": openai_calls.responses_stream,
        "tool": openai_calls.tool,
        "embedding": openai_calls.embedding,
        "error": openai_calls.refused,
    }
    calls[scenario](client)
