"""Attributes that hold whole requests and responses, in the form of a provider or a library."""

from __future__ import annotations

import json
from typing import Any

from observatory_storage import Message, MessagePart, SpanMessages
from tests.dialect_conversation import (
    ANSWER,
    ANSWERED,
    ASKED,
    LEVEL,
    OPENAI_REQUEST,
    OPENAI_RESPONSE,
    OPENAI_TOOL,
    PLACE,
    QUESTION,
    RESULT,
    STOPPED,
    TOOLS,
    TURNS,
    WITH_TOOLS,
    text,
)

BODIES: dict[str, tuple[dict[str, Any], SpanMessages]] = {
    "OpenInference, values alone": (
        {"input.value": json.dumps(OPENAI_REQUEST), "output.value": json.dumps(OPENAI_RESPONSE)},
        WITH_TOOLS,
    ),
    "LangSmith": (
        {
            "gen_ai.prompt": json.dumps(OPENAI_REQUEST),
            "gen_ai.completion": json.dumps(OPENAI_RESPONSE),
        },
        WITH_TOOLS,
    ),
    "Langfuse, chat": (
        {
            "langfuse.observation.input": json.dumps(OPENAI_REQUEST),
            "langfuse.observation.output": json.dumps(OPENAI_RESPONSE["choices"][0]["message"]),
            "langfuse.observation.prompt.name": "not a message",
        },
        SpanMessages(TURNS, (ANSWERED,), (), TOOLS),
    ),
    "MLflow, responses": (
        {
            "mlflow.spanInputs": json.dumps(
                {
                    "instructions": "Be short.",
                    "input": [
                        {"role": "user", "content": [{"type": "input_text", "text": ASKED}]},
                        {
                            "type": "function_call",
                            "id": "f1",
                            "call_id": "c1",
                            "name": "gauge",
                            "arguments": json.dumps(PLACE),
                        },
                        {"type": "function_call_output", "call_id": "c1", "output": LEVEL},
                    ],
                    "tools": [{"type": "function", **OPENAI_TOOL["function"]}],
                }
            ),
            "mlflow.spanOutputs": json.dumps(
                {
                    "output": [
                        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                        {
                            "type": "message",
                            "role": "assistant",
                            "content": [{"type": "output_text", "text": ANSWER}],
                        },
                    ]
                }
            ),
        },
        SpanMessages(
            TURNS,
            (Message("assistant", (MessagePart("reasoning", text="hm"),)), ANSWERED),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "logfire, OpenAI": (
        {
            "request_data": json.dumps(OPENAI_REQUEST),
            "response_data": json.dumps({"message": {"role": "assistant", "content": ANSWER}}),
        },
        SpanMessages(TURNS, (ANSWERED,), (), TOOLS),
    ),
    "Google ADK": (
        {
            "gcp.vertex.agent.llm_request": json.dumps(
                {
                    "model": "gemini",
                    "config": {
                        "system_instruction": "Be short.",
                        "tools": [
                            {
                                "function_declarations": [
                                    {
                                        "name": "gauge",
                                        "description": "Level of a river",
                                        "parameters": {"type": "object"},
                                    }
                                ]
                            }
                        ],
                    },
                    "contents": [
                        {"role": "user", "parts": [{"text": ASKED}]},
                        {
                            "role": "model",
                            "parts": [
                                {"function_call": {"id": "c1", "name": "gauge", "args": PLACE}}
                            ],
                        },
                        {
                            "role": "user",
                            "parts": [
                                {
                                    "function_response": {
                                        "id": "c1",
                                        "name": "gauge",
                                        "response": {"result": LEVEL},
                                    }
                                }
                            ],
                        },
                    ],
                }
            ),
            "gcp.vertex.agent.llm_response": json.dumps(
                {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finish_reason": "STOP"}
            ),
        },
        SpanMessages(
            (
                *TURNS[:2],
                Message(
                    "user",
                    (MessagePart("tool_result", name="gauge", id="c1", result={"result": LEVEL}),),
                ),
            ),
            (Message("assistant", (text(ANSWER),), finish_reason="STOP"),),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "Anthropic's request and answer": (
        {
            "input.value": json.dumps(
                {
                    "system": [{"type": "text", "text": "Be short."}],
                    "messages": [
                        {"role": "user", "content": ASKED},
                        {
                            "role": "assistant",
                            "content": [
                                {"type": "tool_use", "id": "c1", "name": "gauge", "input": PLACE}
                            ],
                        },
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "tool_result",
                                    "tool_use_id": "c1",
                                    "content": [{"type": "text", "text": LEVEL}],
                                }
                            ],
                        },
                    ],
                    "tools": [
                        {
                            "name": "gauge",
                            "description": "Level of a river",
                            "input_schema": {"type": "object"},
                        }
                    ],
                }
            ),
            "output.value": json.dumps(
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm"},
                        {"type": "text", "text": ANSWER},
                    ],
                    "stop_reason": "end_turn",
                }
            ),
        },
        SpanMessages(
            (*TURNS[:2], Message("user", (RESULT,))),
            (
                Message(
                    "assistant",
                    (MessagePart("reasoning", text="hm"), text(ANSWER)),
                    finish_reason="end_turn",
                ),
            ),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "LangChain's messages": (
        {
            "gen_ai.prompt": json.dumps(
                {
                    "messages": [
                        [
                            {
                                "lc": 1,
                                "type": "constructor",
                                "id": ["langchain", "schema", "messages", "HumanMessage"],
                                "kwargs": {"content": ASKED, "type": "human"},
                            }
                        ]
                    ]
                }
            ),
            "gen_ai.completion": json.dumps(
                {
                    "generations": [
                        [
                            {
                                "text": ANSWER,
                                "generation_info": {"finish_reason": "stop"},
                                "message": {
                                    "lc": 1,
                                    "id": ["langchain", "schema", "messages", "AIMessage"],
                                    "kwargs": {"content": ANSWER, "type": "ai"},
                                },
                            }
                        ]
                    ]
                }
            ),
        },
        SpanMessages((QUESTION,), (STOPPED,)),
    ),
}
