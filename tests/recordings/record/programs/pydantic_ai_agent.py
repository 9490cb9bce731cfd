"""An agent of Pydantic AI on the Anthropic SDK."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anthropic
from conversation import AGENT, INSTRUCTIONS, QUESTION, REFUSED_QUESTION, RESULT, SESSION, TOOL
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from telemetry import SERVER, export, say

scenario = sys.argv[1]
export()
Agent.instrument_all()
client = anthropic.AsyncAnthropic(
    base_url=SERVER, api_key="none", max_retries=0, open_telemetry={"traces": False}
)
model = AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(anthropic_client=client))
agent = Agent(model, name=AGENT, instructions=INSTRUCTIONS)


def timetable(harbour: str) -> str:
    """The departures from a harbour."""
    return RESULT


async def stream() -> Any:
    async with agent.run_stream(QUESTION, conversation_id=SESSION) as streamed:
        async for _text in streamed.stream_text():
            pass
        return streamed.all_messages()


if scenario == "error":
    try:
        agent.run_sync(REFUSED_QUESTION, conversation_id=SESSION)
    except ModelHTTPError:
        say(agent=AGENT, session=SESSION)
        sys.exit(0)
    raise AssertionError("the server did not refuse")
if scenario == "agent":
    agent.tool_plain(timetable)
    say(tool=TOOL)
    messages = agent.run_sync(QUESTION, conversation_id=SESSION).all_messages()
else:
    messages = asyncio.run(stream())
costs = [said.cost().total_price for said in messages if isinstance(said, ModelResponse)]
say(agent=AGENT, session=SESSION, cost=str(sum(costs)))
