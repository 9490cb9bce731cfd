"""A chat application that records its requests and its calls to a model, and shows them.

``DATABASE_URL`` names the database. ``flask --app chat observatory migrate`` creates the tables,
and ``flask --app chat run`` starts the application.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request, stream_with_context

from observatory_storage import current_observation, observe, observe_llm
from observatory_storage.flask import Observatory

DOCUMENTS = {
    "refund": "Refunds take three days.",
    "delivery": "Parcels are delivered on workdays.",
}

app = Flask(__name__)
app.config["OBSERVATORY_RECORD_REQUESTS"] = True
observatory = Observatory(app)


@app.get("/")
def index() -> str:
    """Where to go."""
    return "/ask?question=When does my refund arrive? /stream?question=… /traces\n"


@app.get("/ask")
def ask() -> dict[str, Any]:
    """Answer ``?question=…``. The request, the search and the call become spans of one trace."""
    question = request.args["question"]
    answer = complete(messages(question, search(question)))
    span = current_observation()
    assert span is not None
    return {
        "answer": answer["choices"][0]["message"]["content"],
        "trace_id": span.trace_id,
        "spans": 3,
    }


@app.get("/stream")
def stream() -> Response:
    """Answer word by word."""
    question = request.args["question"]
    words = complete_by_words(messages(question, search(question)))
    return Response(stream_with_context(words), mimetype="text/plain")


@app.get("/traces")
def traces() -> list[dict[str, Any]]:
    """The newest traces that are stored."""
    found = observatory.uow.traces.list(limit=20)
    return [{"trace_id": trace.trace_id, "name": trace.root_span_name} for trace in found]


@app.get("/traces/<trace_id>")
def trace(trace_id: str) -> list[dict[str, Any]]:
    """The stored spans of a trace."""
    spans = observatory.uow.traces.get_spans(trace_id)
    return [
        {"name": span.name, "kind": span.kind, "model": span.model, "tokens": span.total_tokens}
        for span in spans
    ]


@observe(observatory, kind="retrieval")
def search(question: str) -> list[str]:
    """The documents whose names the question mentions."""
    return [text for name, text in DOCUMENTS.items() if name in question.lower()]


def messages(question: str, documents: list[str]) -> list[dict[str, str]]:
    """What the model is told."""
    system = {"role": "system", "content": " ".join(["Answer by these facts.", *documents])}
    return [system, {"role": "user", "content": question}]


@observe_llm(observatory, provider="example", model="facts-1")
def complete(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Call the model. It stands for the SDK of a provider, and answers in the same form."""
    prompt = " ".join(message["content"] for message in messages)
    answer = messages[0]["content"].partition(". ")[2] or "I do not know."
    return {
        "model": "facts-1",
        "choices": [
            {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": len(prompt.split()),
            "completion_tokens": len(answer.split()),
        },
    }


@observe_llm(observatory, provider="example", model="facts-1")
def complete_by_words(messages: list[dict[str, str]]) -> Iterator[str]:
    """The same, as a stream."""
    answer = messages[0]["content"].partition(". ")[2] or "I do not know."
    for word in answer.split():
        yield f"{word} "
