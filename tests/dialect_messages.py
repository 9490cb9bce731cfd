"""Spans and events as each dialect reports a question, a tool call and an answer."""

from __future__ import annotations

import json
from typing import Any

from observatory_storage import Message, MessagePart, SpanMessages, ToolDefinition

ASKED, ANSWER = "Which river runs through Paris?", "The Seine."
LEVEL, PLACE = "the level is 2 m", {"river": "Seine"}


def text(value: str) -> MessagePart:
    return MessagePart("text", text=value)


CALL = MessagePart("tool_call", name="gauge", id="c1", arguments=PLACE)
RESULT = MessagePart("tool_result", id="c1", result=LEVEL)
QUESTION = Message("user", (text(ASKED),))
STOPPED = Message("assistant", (text(ANSWER),), finish_reason="stop")
ANSWERED = Message("assistant", (text(ANSWER),))
TOOLS = (ToolDefinition("gauge", "Level of a river", {"type": "object"}),)
OPENAI_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "gauge",
        "description": "Level of a river",
        "parameters": TOOLS[0].parameters,
    },
}
OPENAI_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "gauge", "arguments": json.dumps(PLACE)},
}
OPENAI_REQUEST = {
    "model": "m",
    "messages": [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": LEVEL},
    ],
    "tools": [OPENAI_TOOL],
}
OPENAI_RESPONSE: dict[str, Any] = {
    "id": "r1",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
    ],
}
TURNS = (QUESTION, Message("assistant", (CALL,)), Message("tool", (RESULT,)))
WITH_TOOLS = SpanMessages(TURNS, (STOPPED,), (), TOOLS)
OTEL_INPUT = [
    {"role": "user", "parts": [{"type": "text", "content": ASKED}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "c1", "name": "gauge", "arguments": PLACE}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": LEVEL}]},
]
OTEL_OUTPUT = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": ANSWER}],
        "finish_reason": "stop",
    }
]
ATTRIBUTES: dict[str, tuple[dict[str, Any], SpanMessages]] = {
    "OpenTelemetry, structured": (
        {
            "gen_ai.input.messages": OTEL_INPUT,
            "gen_ai.output.messages": OTEL_OUTPUT,
            "gen_ai.system_instructions": [{"type": "text", "content": "Be short."}],
            "gen_ai.tool.definitions": json.dumps([OPENAI_TOOL["function"]]),
        },
        SpanMessages(TURNS, (STOPPED,), (text("Be short."),), TOOLS),
    ),
    "OpenTelemetry, JSON in text": (
        {
            "gen_ai.input.messages": json.dumps(OTEL_INPUT),
            "gen_ai.output.messages": json.dumps(OTEL_OUTPUT),
        },
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "OpenInference": (
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": ASKED,
            "llm.input_messages.1.message.role": "assistant",
            "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
            "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "gauge",
            "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": json.dumps(
                PLACE
            ),
            "llm.input_messages.2.message.role": "tool",
            "llm.input_messages.2.message.tool_call_id": "c1",
            "llm.input_messages.2.message.content": LEVEL,
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.contents.0.message_content.type": "text",
            "llm.output_messages.0.message.contents.0.message_content.text": ANSWER,
            "llm.tools.0.tool.json_schema": json.dumps(OPENAI_TOOL),
            "output.value": json.dumps(OPENAI_RESPONSE),
        },
        WITH_TOOLS,
    ),
    "OpenInference, values alone": (
        {"input.value": json.dumps(OPENAI_REQUEST), "output.value": json.dumps(OPENAI_RESPONSE)},
        WITH_TOOLS,
    ),
    "OpenLLMetry, flattened": (
        {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": ASKED,
            "gen_ai.prompt.1.role": "assistant",
            "gen_ai.prompt.1.tool_calls.0.id": "c1",
            "gen_ai.prompt.1.tool_calls.0.name": "gauge",
            "gen_ai.prompt.1.tool_calls.0.arguments": json.dumps(PLACE),
            "gen_ai.prompt.2.role": "tool",
            "gen_ai.prompt.2.tool_call_id": "c1",
            "gen_ai.prompt.2.content": LEVEL,
            "gen_ai.prompt.name": "not a message",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": ANSWER,
            "gen_ai.completion.0.finish_reason": "stop",
            "llm.request.functions.0.name": "gauge",
            "llm.request.functions.0.description": "Level of a river",
            "llm.request.functions.0.parameters": json.dumps(TOOLS[0].parameters),
        },
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
    "Langfuse, trace": (
        {"langfuse.trace.input": ASKED, "langfuse.trace.output": ANSWER},
        SpanMessages((QUESTION,), (ANSWERED,)),
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
    "AI SDK": (
        {
            "ai.prompt.messages": json.dumps(
                [
                    {"role": "user", "content": [{"type": "text", "text": ASKED}]},
                    {
                        "role": "assistant",
                        "content": [
                            {
                                "type": "tool-call",
                                "toolCallId": "c1",
                                "toolName": "gauge",
                                "input": PLACE,
                            }
                        ],
                    },
                    {
                        "role": "tool",
                        "content": [
                            {
                                "type": "tool-result",
                                "toolCallId": "c1",
                                "toolName": "gauge",
                                "output": {"type": "text", "value": LEVEL},
                            }
                        ],
                    },
                ]
            ),
            "ai.prompt.tools": [json.dumps({"type": "function", **OPENAI_TOOL["function"]})],
            "ai.response.reasoning": "hm",
            "ai.response.text": ANSWER,
            "ai.response.toolCalls": json.dumps(
                [{"toolCallId": "c1", "toolName": "gauge", "args": json.dumps(PLACE)}]
            ),
            "ai.response.finishReason": "tool-calls",
        },
        SpanMessages(
            (
                *TURNS[:2],
                Message("tool", (MessagePart("tool_result", name="gauge", id="c1", result=LEVEL),)),
            ),
            (
                Message(
                    "assistant",
                    (MessagePart("reasoning", text="hm"), text(ANSWER), CALL),
                    finish_reason="tool-calls",
                ),
            ),
            (),
            TOOLS,
        ),
    ),
    "AI SDK, the outer span": (
        {
            "ai.prompt": json.dumps({"system": "Be short.", "prompt": ASKED}),
            "ai.response.text": ANSWER,
        },
        SpanMessages((QUESTION,), (ANSWERED,), (text("Be short."),)),
    ),
    "pydantic-ai, the agent": (
        {"pydantic_ai.all_messages": json.dumps(OTEL_INPUT + OTEL_OUTPUT), "final_result": ANSWER},
        SpanMessages(TURNS, (ANSWERED,)),
    ),
    "pydantic-ai, events": (
        {
            "events": json.dumps(
                [
                    {"event.name": "gen_ai.user.message", "role": "user", "content": ASKED},
                    {"event.name": "gen_ai.assistant.message", "tool_calls": [OPENAI_CALL]},
                    {"event.name": "gen_ai.tool.message", "id": "c1", "content": LEVEL},
                    {"event.name": "gen_ai.choice", "message": {"content": ANSWER}},
                ]
            )
        },
        SpanMessages(TURNS, (ANSWERED,)),
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
    "completions": (
        {"llm.prompts": [ASKED], "llm.choices.0.completion.text": ANSWER},
        SpanMessages((QUESTION,), (Message("assistant", (text(ANSWER),)),)),
    ),
    "texts to embed": (
        {
            "embedding.embeddings.0.embedding.text": ASKED,
            "embedding.embeddings.0.embedding.vector": [0.5, 0.25],
        },
        SpanMessages((QUESTION,)),
    ),
    "a retrieval": (
        {"input.value": ASKED, "retrieval.documents.0.document.content": ANSWER},
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "a workflow": (
        {"traceloop.entity.input": json.dumps({"args": [1]}), "traceloop.entity.output": ANSWER},
        SpanMessages((Message("user", (MessagePart("data", data={"args": [1]}),)),), (ANSWERED,)),
    ),
    "no messages": ({"gen_ai.prompt.name": "greeting", "http.method": "POST"}, SpanMessages()),
}


STRANDS = [
    ("gen_ai.system.message", {"content": '[{"text": "Be short."}]'}),
    ("gen_ai.user.message", {"content": json.dumps([{"text": ASKED}])}),
    (
        "gen_ai.choice",
        {"message": json.dumps([{"text": ANSWER}]), "finish_reason": "end_turn"},
    ),
]
EVENTS: dict[str, tuple[list[tuple[str, dict[str, Any]]], SpanMessages]] = {
    "Strands": (
        STRANDS,
        SpanMessages(
            (Message("system", (text("Be short."),)), QUESTION),
            (Message("assistant", (text(ANSWER),), finish_reason="end_turn"),),
        ),
    ),
    "messages": (
        [
            ("gen_ai.user.message", {"content": ASKED}),
            ("gen_ai.assistant.message", {"tool_calls": [OPENAI_CALL]}),
            ("gen_ai.tool.message", {"content": LEVEL, "id": "c1"}),
            (
                "gen_ai.choice",
                {"index": 0, "finish_reason": "stop", "message": {"content": ANSWER}},
            ),
        ],
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "old contents": (
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": ASKED}),
            ("gen_ai.content.completion", {"gen_ai.completion": ANSWER}),
        ],
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "details": (
        [
            (
                "gen_ai.client.inference.operation.details",
                {"gen_ai.input.messages": OTEL_INPUT, "gen_ai.output.messages": OTEL_OUTPUT},
            )
        ],
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "Gemini CLI": (
        [
            ("gemini_cli.user_prompt", {"prompt": ASKED, "prompt_length": 31}),
            ("gemini_cli.api_response", {"response_text": ANSWER, "model": "gemini"}),
        ],
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "Codex": (
        [
            ("codex.user_prompt", {"prompt": ASKED}),
            (
                "codex.tool_result",
                {"tool_name": "gauge", "call_id": "c1", "arguments": "{}", "output": LEVEL},
            ),
        ],
        SpanMessages(
            (
                QUESTION,
                Message(
                    "assistant", (MessagePart("tool_call", name="gauge", id="c1", arguments={}),)
                ),
            ),
            (Message("tool", (MessagePart("tool_result", name="gauge", id="c1", result=LEVEL),)),),
        ),
    ),
    "other events": (
        [("exception", {"message": "no"}), ("log", {"content": "no"})],
        SpanMessages(),
    ),
}
