"""MLflow's autologging of the OpenAI SDK, exported by OTLP in its own names and in GenAI's."""

from __future__ import annotations

import os
import sys

import openai_calls
from conversation import AGENT, RESULT, SESSION, TOOL, USER
from telemetry import SERVER, say

scenario = sys.argv[1]
os.environ |= {
    "MLFLOW_TRACKING_URI": SERVER,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{SERVER}/v1/traces",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "MLFLOW_ENABLE_OTEL_GENAI_SEMCONV": str(scenario == "agent-genai-names").lower(),
}

import mlflow  # noqa: E402 - after the settings

mlflow.openai.autolog()
client = openai_calls.client_of()


@mlflow.trace(name=TOOL, span_type="TOOL")
def timetable(harbour: str) -> str:
    return RESULT


@mlflow.trace(name=AGENT, span_type="AGENT")
def agent() -> str:
    mlflow.update_current_trace(user=USER, session_id=SESSION)
    return openai_calls.tool(client, timetable)


if scenario in ("agent", "agent-genai-names"):
    agent()
    say(agent=AGENT, tool=TOOL, user=USER, session=SESSION)
elif scenario == "stream":
    openai_calls.stream(client)
elif scenario == "error":
    openai_calls.refused(client)
