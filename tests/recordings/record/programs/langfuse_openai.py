"""The Langfuse SDK: its OpenAI client, its decorator, and a generation with a cost."""

from __future__ import annotations

import os
import sys

import openai_calls
from conversation import AGENT, ANSWER, QUESTION, RESULT, SESSION, TOOL, USER
from telemetry import SERVER, say

scenario = sys.argv[1]
os.environ |= {
    "LANGFUSE_BASE_URL": SERVER,
    "LANGFUSE_PUBLIC_KEY": "pk-none",
    "LANGFUSE_SECRET_KEY": "sk-none",
}

from langfuse import get_client, observe, propagate_attributes  # noqa: E402 - after the settings
from langfuse.openai import OpenAI  # noqa: E402


@observe(name=TOOL, as_type="tool")
def timetable(harbour: str) -> str:
    return RESULT


@observe(name=AGENT, as_type="agent")
def agent() -> str:
    with propagate_attributes(user_id=USER, session_id=SESSION):
        return openai_calls.tool(openai_calls.client_of(OpenAI), timetable)


langfuse = get_client()
if scenario == "agent":
    agent()
    say(agent=AGENT, tool=TOOL, user=USER, session=SESSION)
elif scenario == "stream":
    openai_calls.stream(openai_calls.client_of(OpenAI))
elif scenario == "cost":
    # The application counts by itself: nothing is called.
    with langfuse.start_as_current_observation(
        as_type="generation",
        name="answer",
        model="gpt-5-mini",
        input=[{"role": "user", "content": QUESTION}],
    ) as generation:
        generation.update(
            output=ANSWER,
            usage_details={"input": 211, "output": 37, "total": 248},
            cost_details={"input": 0.00125, "output": 0.0005, "total": 0.00175},
        )
    say(cost="0.00175", prompt_tokens=211, completion_tokens=37, model="gpt-5-mini")
elif scenario == "error":
    openai_calls.refused(openai_calls.client_of(OpenAI))
langfuse.flush()
