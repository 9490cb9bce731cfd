"""The spans of one request to an LLM application: an agent, retrieval, tools, model calls."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tests.benchmarks.reading.prose import Prose

__all__ = ["MODELS", "ORDER", "RARE_MODEL", "REGION", "REGIONS", "SERVICES", "Asked", "spans_of"]

SERVICES: Final = ("assistant", "support", "search", "billing", "docs", "code", "mail", "voice")
REGIONS: Final = ("eu-west", "eu-north", "us-east", "us-west")
REGION: Final = "app.region"
"""An attribute of every request, with four values."""
ORDER: Final = "app.order.id"
"""An attribute of one span in a trace, with a value of its own."""
RARE_MODEL: Final = "assistant-tuned-7"
# A model, how often it is called, and US dollars for a million tokens in and out.
MODELS: Final = {
    "gpt-4o": (400, 2_500, 10_000),
    "gpt-4o-mini": (300, 150, 600),
    "claude-sonnet-4": (200, 3_000, 15_000),
    "llama-3.1-70b": (90, 600, 800),
    RARE_MODEL: (10, 5_000, 20_000),
}

_NAMES: Final = list(MODELS)
_OFTEN: Final = [weight for weight, _, _ in MODELS.values()]
_ROUTES: Final = ("POST /chat", "POST /summary", "POST /extract", "GET /answers")
_AGENTS: Final = ("planner", "writer")
_TOOLS: Final = ("search_web", "read_file", "send_mail", "run_query")
_AFTER_ROOT: Final = (
    *("agent", "retrieval", "embeddings", "chat", "order"),
    *("chat", "tool", "chat", "guardrail"),
)
_ERRORS: Final = 0.02
_SLOW: Final = 0.002
_RESOURCES: Final = {
    service: {
        "service.name": service,
        "service.version": "2.3.1",
        "deployment.environment.name": "production",
        "host.name": f"{service}-7f9c",
        "telemetry.sdk.language": "python",
    }
    for service in (*SERVICES, "retrieval", "tools")
}


class Asked(NamedTuple):
    """What a trace is about."""

    number: int
    trace_id: str
    start: datetime
    user: str
    session: str
    region: str


def spans_of(asked: Asked, count: int, chance: random.Random, prose: Prose) -> list[dict[str, Any]]:
    """The spans, the root first, the others one after another."""
    application = chance.choice(SERVICES)
    root = _complete(_root(asked, application, chance), asked.trace_id, asked.start, chance)
    rows = [root]
    parent, end = root["span_id"], asked.start
    for at in range(1, count):
        role = _AFTER_ROOT[(at - 1) % len(_AFTER_ROOT)]
        start = end + timedelta(microseconds=chance.randrange(100, 5_000))
        row = _BY_ROLE[role](asked, application, chance, prose)
        row = _complete(row, asked.trace_id, start, chance)
        end = row["end_time"]
        row["parent_span_id"] = root["span_id"] if role == "agent" else parent
        if role == "agent":
            parent = row["span_id"]
        rows.append(row)
    root["end_time"] = end + timedelta(milliseconds=1)
    return rows


def _complete(
    row: dict[str, Any], trace_id: str, start: datetime, chance: random.Random
) -> dict[str, Any]:
    failed = chance.random() < _ERRORS
    return {
        **row,
        "trace_id": trace_id,
        "span_id": f"{chance.getrandbits(64) | 1:016x}",
        "start_time": start,
        "end_time": start + _took(chance),
        "status": "error" if failed else "ok",
        "status_message": "upstream timed out" if failed else None,
        "resource_attributes": _RESOURCES[row["service_name"]],
        "scope_name": "agent",
        "scope_version": "1.4",
    }


def _took(chance: random.Random) -> timedelta:
    """Mostly some milliseconds to a second; a few take several."""
    if chance.random() < _SLOW:
        return timedelta(microseconds=chance.randrange(2_000_000, 6_000_000))
    return timedelta(microseconds=int(2_000 * 500 ** chance.random()))


def _root(asked: Asked, service: str, chance: random.Random) -> dict[str, Any]:
    return {
        "name": chance.choice(_ROUTES),
        "kind": "server",
        "service_name": service,
        "user_id": asked.user,
        "session_id": asked.session,
        "attributes": {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "url.path": "/v1/requests",
            REGION: asked.region,
            "user.id": asked.user,
            "session.id": asked.session,
        },
    }


def _agent(asked: Asked, service: str, chance: random.Random, _: Prose) -> dict[str, Any]:
    name = chance.choice(_AGENTS)
    return {
        "name": f"invoke_agent {name}",
        "kind": "internal",
        "service_name": service,
        "attributes": {"gen_ai.agent.name": name, "agent.steps": chance.randrange(9)},
    }


def _retrieval(asked: Asked, service: str, chance: random.Random, prose: Prose) -> dict[str, Any]:
    return {
        "name": f"search {service}",
        "kind": "server",
        "service_name": "retrieval",
        "attributes": {
            "retrieval.query": prose.text(chance, 1),
            "retrieval.documents": chance.randrange(1, 40),
            "retrieval.score": chance.random(),
        },
    }


def _tool(asked: Asked, service: str, chance: random.Random, _: Prose) -> dict[str, Any]:
    tool = chance.choice(_TOOLS)
    return {
        "name": f"execute_tool {tool}",
        "kind": "internal",
        "service_name": "tools",
        "attributes": {"gen_ai.tool.name": tool, "cache.hit": chance.random() < 0.5},
    }


def _order(asked: Asked, service: str, chance: random.Random, _: Prose) -> dict[str, Any]:
    return {
        "name": "execute_tool read_order",
        "kind": "internal",
        "service_name": service,
        "attributes": {ORDER: f"order-{asked.number:08d}", "app.items": chance.randrange(1, 20)},
    }


def _guardrail(asked: Asked, service: str, chance: random.Random, _: Prose) -> dict[str, Any]:
    return {
        "name": "guardrail",
        "kind": "internal",
        "service_name": service,
        "attributes": {"guardrail.passed": True, "guardrail.score": chance.random()},
    }


def _embeddings(asked: Asked, service: str, chance: random.Random, _: Prose) -> dict[str, Any]:
    tokens = chance.randrange(20, 400)
    return {
        "name": "embeddings text-embedding-3-small",
        "kind": "client",
        "service_name": service,
        "prompt_cost_usd": Decimal(tokens * 20).scaleb(-9),
        "attributes": {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.usage.input_tokens": tokens,
        },
    }


def _chat(asked: Asked, service: str, chance: random.Random, prose: Prose) -> dict[str, Any]:
    (model,) = chance.choices(_NAMES, _OFTEN)
    _, dear_in, dear_out = MODELS[model]
    tokens_in, tokens_out = chance.randrange(50, 4_000), chance.randrange(10, 900)
    prompt, answer = prose.text(chance, 4), prose.text(chance, 4)
    return {
        "name": f"chat {model}",
        "kind": "client",
        "service_name": service,
        "prompt_cost_usd": Decimal(tokens_in * dear_in).scaleb(-9),
        "completion_cost_usd": Decimal(tokens_out * dear_out).scaleb(-9),
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
            "gen_ai.request.temperature": 0.7,
            "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(64):x}",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": tokens_in,
            "gen_ai.usage.output_tokens": tokens_out,
            "gen_ai.conversation.id": asked.session,
            "user.id": asked.user,
            "gen_ai.input.messages": [
                {"role": "user", "parts": [{"type": "text", "content": prompt}]}
            ],
            "gen_ai.output.messages": [
                {"role": "assistant", "parts": [{"type": "text", "content": answer}]}
            ],
        },
    }


_BY_ROLE: Final = {
    "agent": _agent,
    "retrieval": _retrieval,
    "embeddings": _embeddings,
    "chat": _chat,
    "order": _order,
    "tool": _tool,
    "guardrail": _guardrail,
}
