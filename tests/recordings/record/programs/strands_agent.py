"""An agent of Strands on the OpenAI SDK, which streams every call."""

from __future__ import annotations

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
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from telemetry import SERVER, export, say

scenario = sys.argv[1]
export()


@tool
def timetable(harbour: str) -> str:
    """The departures from a harbour.

    Args:
        harbour: its name.
    """
    return RESULT


model = OpenAIModel(
    client_args={"base_url": f"{SERVER}/v1", "api_key": "none", "max_retries": 0},
    model_id="gpt-5-mini",
)
agent = Agent(
    model=model,
    name=AGENT,
    system_prompt=INSTRUCTIONS,
    tools=[timetable] if scenario == "agent" else [],
    callback_handler=None,
    retry_strategy=None,
    trace_attributes={"session.id": SESSION, "user.id": USER},
)
say(agent=AGENT, user=USER, session=SESSION)
if scenario == "error":
    try:
        agent(REFUSED_QUESTION)
    except Exception as error:
        if "Vassbotn" not in str(error) and "throttl" not in str(error).lower():
            raise
else:
    agent(QUESTION)
    if scenario == "agent":
        say(tool=TOOL)
