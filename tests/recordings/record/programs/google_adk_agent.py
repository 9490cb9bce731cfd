"""An agent of Google's ADK on the Gemini API."""

from __future__ import annotations

import asyncio
import os
import sys

from conversation import (
    AGENT,
    INSTRUCTIONS,
    QUESTION,
    REFUSED_QUESTION,
    RESULT,
    SESSION,
    TOOL,
    USER,
)
from telemetry import SERVER, export, say

scenario = sys.argv[1]
os.environ |= {
    "GOOGLE_API_KEY": "none",
    "GOOGLE_GENAI_USE_VERTEXAI": "false",
    "GOOGLE_GEMINI_BASE_URL": SERVER,
}
if scenario == "agent-old-schema":
    os.environ["ADK_TELEMETRY_SCHEMA_VERSION_OPT_IN"] = "1"
else:
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "EVENT_ONLY"
export()

from google.adk.agents import Agent, RunConfig  # noqa: E402 - after the settings
from google.adk.agents.run_config import StreamingMode  # noqa: E402
from google.adk.runners import InMemoryRunner  # noqa: E402
from google.genai import types  # noqa: E402


def timetable(harbour: str) -> str:
    """The departures from a harbour."""
    return RESULT


async def run(question: str) -> None:
    agent = Agent(
        name=AGENT,
        model="gemini-2.5-flash",
        instruction=INSTRUCTIONS,
        tools=[] if scenario == "stream" else [timetable],
    )
    runner = InMemoryRunner(agent, app_name="harbour")
    await runner.session_service.create_session(
        app_name="harbour", user_id=USER, session_id=SESSION
    )
    said = types.Content(role="user", parts=[types.Part(text=question)])
    mode = StreamingMode.SSE if scenario == "stream" else StreamingMode.NONE
    events = runner.run_async(
        user_id=USER,
        session_id=SESSION,
        new_message=said,
        run_config=RunConfig(streaming_mode=mode),
    )
    async for _event in events:
        pass


say(agent=AGENT, user=USER, session=SESSION)
if scenario == "error":
    try:
        asyncio.run(run(REFUSED_QUESTION))
    except Exception as error:
        if "429" not in str(error):
            raise
else:
    asyncio.run(run(QUESTION))
    if scenario != "stream":
        say(tool=TOOL)
