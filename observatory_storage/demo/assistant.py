"""The assistant, a librarian that answers questions, and the gateway in front of it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext

from observatory_storage.demo.backends import RateLimitedError, Retriever
from observatory_storage.demo.chat import ChatClient, ModelTimeoutError
from observatory_storage.demo.retrieval import Hit, words
from observatory_storage.demo.telemetry import PROPAGATOR, Service
from observatory_storage.demo.tools import ToolArgumentError, calculate

__all__ = ["Assistant", "Gateway", "Question", "UnavailableError"]

_SUM = re.compile(r"[\d(][\d\s()+\-*/.]*")
_PLANNER = "quill-mini"
_ANSWER_TOKENS = 90


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a user, and the model that the plan of the user pays for."""

    user_id: str
    session_id: str
    model: str
    text: str


class UnavailableError(Exception):
    """The assistant has no answer (HTTP 503)."""


class Assistant:
    """An agent that makes a plan, uses tools and writes the answer."""

    def __init__(self, service: Service, chat: ChatClient, retriever: Retriever) -> None:
        self.service = service
        self._chat = chat
        self._retriever = retriever
        self._tool_calls = service.meter.create_counter(
            "assistant.tool.calls", unit="{call}", description="Calls of tools"
        )

    def answer(self, headers: Mapping[str, str], question: Question, rng: random.Random) -> str:
        """An answer to the question.

        Raises:
            UnavailableError: no model answers.
        """
        with self.service.serving("POST /answer", headers) as span:
            try:
                text = self._run(question, rng)
            except (RateLimitedError, ModelTimeoutError) as error:
                span.set_attribute("http.response.status_code", 503)
                raise UnavailableError(f"no answer: {error}") from error
            span.set_attribute("http.response.status_code", 200)
            return text

    def _run(self, question: Question, rng: random.Random) -> str:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "librarian",
            "gen_ai.conversation.id": question.session_id,
        }
        with self.service.span("invoke_agent librarian", attributes) as span:
            plan = self._chat.complete(_PLANNER, f"Plan: {question.text}", 24, rng)
            found = self._use_tools(question.text, rng)
            prompt = "\n".join([*found, question.text])
            answer = self._chat.complete(question.model, prompt, _ANSWER_TOKENS, rng)
            # The span of the agent repeats the usage of its calls, as agents do. The storage
            # counts the calls only.
            span.set_attribute(
                "gen_ai.usage.input_tokens", plan.prompt_tokens + answer.prompt_tokens
            )
            span.set_attribute(
                "gen_ai.usage.output_tokens", plan.completion_tokens + answer.completion_tokens
            )
            self._evaluate(answer.text, found)
            return answer.text

    def _use_tools(self, question: str, rng: random.Random) -> list[str]:
        expression = _SUM.search(question)
        if expression is not None:
            try:
                return [self._calculate(expression.group().strip())]
            except ToolArgumentError:
                self.service.log.exception("the calculator was called with bad arguments")
        return [hit.passage.text for hit in self._search(question, rng)]

    def _calculate(self, expression: str) -> str:
        attributes = _tool("calculator", expression)
        with self.service.span("execute_tool calculator", attributes) as span:
            self._tool_calls.add(1, {"gen_ai.tool.name": "calculator"})
            self.service.clock.sleep(0.0004)
            result = f"{expression} = {calculate(expression):g}"
            span.set_attribute("gen_ai.tool.call.result", result)
            return result

    def _search(self, query: str, rng: random.Random) -> list[Hit]:
        with self.service.span("execute_tool search", _tool("search", query)) as span:
            self._tool_calls.add(1, {"gen_ai.tool.name": "search"})
            with self.service.calling("POST /search", "retriever") as headers:
                hits = self._retriever.search(headers, query, rng)
            for hit in hits:
                span.add_event(
                    "document",
                    {"document.title": hit.passage.title, "document.score": hit.score},
                    timestamp=self.service.clock.now,
                )
            return hits

    def _evaluate(self, answer: str, found: list[str]) -> None:
        answer_words, passage_words = set(words(answer)), set(words(" ".join(found)))
        score = len(answer_words & passage_words) / len(answer_words) if answer_words else 0.0
        self.service.event(
            "gen_ai.evaluation.result",
            {"gen_ai.evaluation.name": "groundedness", "gen_ai.evaluation.score.value": score},
            {
                "words": len(answer_words),
                "grounded": len(answer_words & passage_words),
                "passages": len(found),
            },
        )


class Gateway:
    """The entry point of users. Each trace begins here."""

    def __init__(self, service: Service, assistant: Assistant) -> None:
        self.service = service
        self._assistant = assistant
        meter = service.meter
        self._duration = meter.create_histogram(
            "http.server.request.duration", unit="s", description="How long a request took"
        )
        self._requests = meter.create_counter(
            "gateway.requests", unit="{request}", description="Requests, by how they ended"
        )
        self.sessions = meter.create_up_down_counter(
            "gateway.sessions", unit="{session}", description="Sessions that are open"
        )

    def ask(
        self, question: Question, rng: random.Random, previous: SpanContext | None
    ) -> SpanContext:
        """Answer a request. Returns the context of its trace, to which the next trace links."""
        clock = self.service.clock
        started = clock.now
        links = [Link(previous, {"link.kind": "previous turn"})] if previous else []
        code = 200
        context = INVALID_SPAN_CONTEXT
        headers = _browser_headers(question)
        # The user sees a 503 and may ask again; the service goes on.
        with (
            suppress(UnavailableError),
            self.service.serving("POST /ask", headers, links=links) as span,
        ):
            context = span.get_span_context()
            clock.sleep(0.003)
            try:
                self._forward(question, rng)
            except UnavailableError as error:
                code = 503
                self.service.log.error("answered 503: %s", error)  # noqa: TRY400 - the assistant logged the stack
                raise
            finally:
                span.set_attribute("http.response.status_code", code)
            seconds = (clock.now - started) / 1e9
            self.service.log.info("answered in %.2f s", seconds, extra={"with": _who(question)})
        result = {"http.response.status_code": code}
        self._requests.add(1, result)
        self._duration.record((clock.now - started) / 1e9, result)
        return context

    def _forward(self, question: Question, rng: random.Random) -> None:
        with self.service.calling("POST /answer", "assistant") as headers:
            self._assistant.answer(headers, question, rng)


def _browser_headers(question: Question) -> dict[str, str]:
    """The headers that a browser sends: no trace context, but the user as baggage."""
    context = Context()
    for key, value in _who(question).items():
        context = baggage.set_baggage(key, value, context)
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers, context=context)
    return headers


def _who(question: Question) -> dict[str, str]:
    return {"user.id": question.user_id, "session.id": question.session_id}


def _tool(name: str, arguments: str) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.arguments": arguments,
    }
