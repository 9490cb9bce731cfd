"""Answers a question, and records the steps as spans below that of the request."""

from django.http import HttpRequest, JsonResponse

from chat import model
from observatory_storage.django import get_trace_writer
from observatory_storage.recording import observe, observe_llm

SPANS = 3  # of the request, of the search, and of the call to the model


@observe(get_trace_writer, name="search sentences")
def search(question: str) -> list[str]:
    return model.search(question)


def ask(request: HttpRequest) -> JsonResponse:
    """``GET /ask?question=…``."""
    question = request.GET.get("question", "What is a trace?")
    found = search(question)
    with observe_llm(
        get_trace_writer, provider="example", model="sentences", prompt=question
    ) as call:
        answer = model.answer(question, found)
        call.update(
            completion=answer,
            prompt_tokens=len(question.split()),
            completion_tokens=len(answer.split()),
        )
    trace_id = request.observatory.trace_id
    return JsonResponse({"answer": answer, "trace_id": trace_id, "spans": SPANS})
