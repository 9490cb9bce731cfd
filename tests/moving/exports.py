"""Small exports of other tools, in the formats that they publish, as docs/moving.md reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

TRACE, AGENT, CALL = "5b8efff798038103d269b633813fc60c", "00000000000000a1", "00000000000000b2"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = {"role": "assistant", "content": "Paris."}
START_NS = 1_782_907_200_123_456_789


def langfuse(trace: str = TRACE, agent: str = AGENT, call: str = CALL) -> list[dict[str, Any]]:
    """Enriched observations of a trace: an agent, a generation in it, and an event that failed."""
    shared = {
        "trace_id": trace,
        "project_id": "p-1",
        "environment": "production",
        "metadata": {"plan": "free"},
        "version": None,
        "trace_name": "ask",
        "user_id": "ada",
        "session_id": "talk-1",
        "tags": ["beta"],
        "release": None,
        "bookmarked": False,
        "public": False,
    }
    no_call: dict[str, Any] = {
        "provided_model_name": None,
        "model_parameters": None,
        "usage_details": {},
        "cost_details": {},
        "completion_start_time": None,
        "prompt_name": None,
        "prompt_version": None,
    }
    return [
        {
            **shared,
            **no_call,
            "id": agent,
            "type": "AGENT",
            "parent_observation_id": None,
            "start_time": "2026-07-01 12:00:00.000000",
            "end_time": "2026-07-01 12:00:02.000000",
            "name": "answer",
            "level": "DEFAULT",
            "status_message": None,
            "input": "What is the capital of France?",
            "output": "Paris.",
        },
        {
            **shared,
            "id": call,
            "type": "GENERATION",
            "parent_observation_id": agent,
            "start_time": "2026-07-01 12:00:00.500000",
            "end_time": "2026-07-01 12:00:01.500000",
            "name": "chat",
            "level": "DEFAULT",
            "status_message": None,
            "input": json.dumps(QUESTION),
            "output": json.dumps(ANSWER),
            "provided_model_name": "gpt-4o",
            "model_parameters": {"temperature": 0.2},
            "usage_details": {"input": 14, "output": 2, "total": 16},
            "cost_details": {"input": 0.000035, "output": 0.00002, "total": 0.000055},
            "completion_start_time": "2026-07-01 12:00:00.750000",
            "prompt_name": "capital",
            "prompt_version": 3,
        },
        {
            **shared,
            **no_call,
            "id": "00000000000000c3",
            "type": "TOOL",
            "parent_observation_id": agent,
            "start_time": "2026-07-01 12:00:01.600000",
            "end_time": None,
            "name": "atlas",
            "level": "ERROR",
            "status_message": "no such map",
            "input": None,
            "output": None,
        },
    ]


def phoenix() -> list[dict[str, Any]]:
    """Spans of Phoenix's REST API: attributes are flat, and the kind stands beside them."""

    def span(number: str, parent: str | None, kind: str, **others: Any) -> dict[str, Any]:
        return {
            "id": "U3BhbjoxNzc=",
            "name": kind.lower(),
            "context": {"trace_id": TRACE, "span_id": number},
            "span_kind": kind,
            "parent_id": parent,
            "start_time": "2026-07-01T12:00:00.123456+00:00",
            "end_time": "2026-07-01T12:00:01.123456Z",
            "status_code": "OK",
            **others,
        }

    message = "llm.input_messages.0.message"
    failure = {
        "name": "exception",
        "timestamp": "2026-07-01T12:00:01.100000+00:00",
        "attributes": {"exception.type": "KeyError", "exception.message": "no such map"},
    }
    return [
        span(AGENT, None, "AGENT", attributes={"session.id": "talk-1", "user.id": "ada"}),
        span(
            CALL,
            AGENT,
            "LLM",
            attributes={
                "llm.model_name": "gpt-4o",
                "llm.provider": "openai",
                "llm.token_count.prompt": 14,
                "llm.token_count.completion": 2,
                "llm.token_count.total": 16,
                f"{message}.role": "user",
                f"{message}.content": QUESTION[0]["content"],
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.content": ANSWER["content"],
                "user.id": "ada",
                "session.id": "talk-1",
            },
        ),
        span("00000000000000c3", AGENT, "TOOL", status_code="ERROR", events=[failure]),
    ]


def mlflow(version: int = 4) -> dict[str, Any]:
    """A trace of MLflow 3: spans of version 4 have ids in hexadecimal, those of 3 in base64."""

    def written(number: str) -> str:
        return number if version == 4 else base64.b64encode(bytes.fromhex(number)).decode()

    def span(number: str, parent: str, name: str, code: str, **attributes: Any) -> dict[str, Any]:
        prefix = "" if version == 4 else "STATUS_CODE_"
        own = {"mlflow.traceRequestId": f"tr-{TRACE}", **attributes}
        return {
            "trace_id": f"tr-{TRACE}" if version == 4 else written(TRACE),
            "span_id": written(number),
            "parent_span_id": (written(parent) if parent else None if version == 4 else ""),
            "name": name,
            "start_time_unix_nano": START_NS,
            "end_time_unix_nano": START_NS + 1_000_000_001,
            "events": [],
            "status": {"code": f"{prefix}{code}", "message": ""},
            "attributes": {key: json.dumps(value) for key, value in own.items()},
            **({"mlflow.span_version": 4, "otel_trace_id": TRACE} if version == 4 else {}),
        }

    usage = {"input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
    call = span(
        CALL,
        AGENT,
        "Completions",
        "OK",
        **{
            "mlflow.spanType": "CHAT_MODEL",
            "mlflow.llm.model": "gpt-4o",
            "mlflow.llm.provider": "openai",
            "mlflow.chat.tokenUsage": usage,
            "mlflow.spanInputs": {"messages": QUESTION, "model": "gpt-4o"},
            "mlflow.spanOutputs": {"choices": [{"index": 0, "message": ANSWER}]},
        },
    )
    failed = span("00000000000000c3", AGENT, "atlas", "ERROR", **{"mlflow.spanType": "TOOL"})
    failed["events"] = [
        {
            "name": "exception",
            "time_unix_nano": START_NS + 1000,
            "attributes": {"exception.type": "KeyError", "exception.message": "no such map"},
        }
    ]
    agent = span(AGENT, "", "answer", "OK", **{"mlflow.spanType": "AGENT"})
    told = {"mlflow.trace.user": "ada", "mlflow.trace.session": "talk-1"}
    return {
        "info": {"trace_id": f"tr-{TRACE}", "state": "OK", "trace_metadata": told, "tags": {}},
        "data": {"spans": [agent, call, failed]},
    }
