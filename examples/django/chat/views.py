"""Answers a question, and records the steps as spans below that of the request."""

from datetime import UTC, datetime
from uuid import uuid4

from django.http import HttpRequest, JsonResponse

from chat import model
from observatory_storage import LlmSpan

SPANS = 3  # of the request, of the search, and of the call to the model


def ask(request: HttpRequest) -> JsonResponse:
    """``GET /ask?question=…``."""
    question = request.GET.get("question", "What is a trace?")
    store = request.observatory
    begun = datetime.now(UTC)
    found = model.search(question)
    searched = datetime.now(UTC)
    search_id = uuid4().hex[:16]
    store.trace_writer.write_span(
        {
            "trace_id": store.trace_id,
            "span_id": search_id,
            "parent_span_id": store.span_id,
            "name": "search sentences",
            "kind": "internal",
            "service_name": "chat",
            "start_time": begun,
            "end_time": searched,
            "attributes": {"search.found": len(found)},
        }
    )
    answer = model.answer(question, found)
    store.trace_writer.write_span_from_llm(
        LlmSpan(
            model="sentences",
            provider="example",
            trace_id=store.trace_id,
            parent_span_id=store.span_id,
            service_name="chat",
            start_time=searched,
            end_time=datetime.now(UTC),
            prompt=question,
            completion=answer,
            prompt_tokens=len(question.split()),
            completion_tokens=len(answer.split()),
        )
    )
    return JsonResponse({"answer": answer, "trace_id": store.trace_id, "spans": SPANS})
