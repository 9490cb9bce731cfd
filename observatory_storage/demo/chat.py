"""The client of the model server, which reports calls as an instrumented LLM library does."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.util.types import AttributeValue

from observatory_storage.demo.backends import Generated, ModelServer, RateLimitedError
from observatory_storage.demo.model import MODELS, Completion
from observatory_storage.demo.telemetry import NETWORK_SECS, Service, trace_headers

__all__ = ["ChatClient", "ModelTimeoutError"]

_TIMEOUT_SECS = 15.0
_ATTEMPTS = 3


class ModelTimeoutError(TimeoutError):
    """The model did not answer in time."""


class ChatClient:
    """Calls models with retries, and reports tokens, cost and time of each call."""

    def __init__(self, service: Service, server: ModelServer) -> None:
        self._service = service
        self._server = server
        self._tokens = service.meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens that a call used",
            explicit_bucket_boundaries_advisory=[1, 4, 16, 64, 256, 1024, 4096],
        )
        self._duration = service.meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="How long a call took",
            explicit_bucket_boundaries_advisory=[0.1, 0.2, 0.5, 1, 2, 5, 10, 20],
        )
        self._cost = service.meter.create_counter(
            "chat.cost", unit="{USD}", description="What the calls cost"
        )

    def complete(self, model: str, prompt: str, max_tokens: int, rng: random.Random) -> Completion:
        """The completion of the model, after up to three attempts. Each links to the previous one.

        Raises:
            RateLimitedError: the last attempt was refused.
            ModelTimeoutError: the last attempt timed out.
        """
        links: list[Link] = []
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._attempt(model, max_tokens, links) as span:
                    links = [Link(span.get_span_context(), {"retry.attempt": attempt})]
                    generated = self._call(span, model, prompt, max_tokens, rng)
                    self._report(span, model, prompt, generated)
                    return generated.completion
            except (RateLimitedError, ModelTimeoutError) as error:
                if attempt == _ATTEMPTS:
                    self._service.log.exception("gave up on %s after %d attempts", model, attempt)
                    raise
                wait = 0.25 * 2**attempt * rng.uniform(0.5, 1.5)
                self._service.log.warning("%s; trying again in %.1f s", error, wait)
                self._service.clock.sleep(wait)
        raise AssertionError  # the last attempt returned or raised

    @contextmanager
    def _attempt(self, model: str, max_tokens: int, links: list[Link]) -> Iterator[trace.Span]:
        card = MODELS[model]
        name, attributes = f"chat {model}", _request(card.provider, model, max_tokens)
        if card.provider == "scribe":
            name, attributes = "ChatCompletion", _openinference_request(model, max_tokens)
        started = self._service.clock.now
        try:
            with self._service.span(name, attributes, kind=SpanKind.CLIENT, links=links) as span:
                yield span
        finally:
            seconds = (self._service.clock.now - started) / 1e9
            self._duration.record(seconds, {"gen_ai.request.model": model})

    def _call(
        self, span: trace.Span, model: str, prompt: str, max_tokens: int, rng: random.Random
    ) -> Generated:
        clock = self._service.clock
        began = clock.now
        deadline = began + round(_TIMEOUT_SECS * 1e9)
        clock.sleep(NETWORK_SECS)
        try:
            generated = self._server.generate(trace_headers(), model, prompt, max_tokens, rng)
        finally:
            clock.sleep(NETWORK_SECS)
        first_token = began + round(generated.first_token_secs * 1e9)
        if first_token < deadline:
            span.add_event("first token", timestamp=first_token)
        if clock.now > deadline:
            clock.now = deadline  # the server continues in vain, so its span ends after this one
            raise ModelTimeoutError(f"no answer from {model} within {_TIMEOUT_SECS:g} s")
        return generated

    def _report(self, span: trace.Span, model: str, prompt: str, generated: Generated) -> None:
        completion = generated.completion
        card = MODELS[model]
        used = (completion.prompt_tokens, completion.completion_tokens)
        costs = card.cost(*used)
        if card.provider == "scribe":
            attributes = _openinference_response(prompt, completion)
            keys = ("llm.cost.prompt", "llm.cost.completion")
        else:
            attributes = _response(prompt, generated)
            keys = ("gen_ai.usage.input_cost", "gen_ai.usage.output_cost")
        span.set_attributes(attributes)
        span.set_attributes(dict(zip(keys, map(float, costs), strict=True)))
        for kind, tokens in zip(("input", "output"), used, strict=True):
            self._tokens.record(tokens, {"gen_ai.token.type": kind, "gen_ai.request.model": model})
        self._cost.add(float(sum(costs)), {"gen_ai.request.model": model})


def _request(provider: str, model: str, max_tokens: int) -> Mapping[str, AttributeValue]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
        "server.address": "model-server",
    }


def _response(prompt: str, generated: Generated) -> Mapping[str, AttributeValue]:
    completion = generated.completion
    return {
        "gen_ai.usage.input_tokens": completion.prompt_tokens,
        "gen_ai.usage.output_tokens": completion.completion_tokens,
        "gen_ai.response.finish_reasons": [completion.finish_reason],
        "gen_ai.response.time_to_first_chunk": generated.first_token_secs,
        "gen_ai.input.messages": json.dumps([_message("user", prompt)]),
        "gen_ai.output.messages": json.dumps([_message("assistant", completion.text)]),
    }


def _message(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


# The library of this provider uses OpenInference instead of OpenTelemetry's GenAI conventions. Real
# applications mix them, and the storage reads both into the same columns.
def _openinference_request(model: str, max_tokens: int) -> Mapping[str, AttributeValue]:
    return {
        "openinference.span.kind": "LLM",
        "llm.provider": "scribe",
        "llm.model_name": model,
        "llm.invocation_parameters": json.dumps({"max_tokens": max_tokens}),
    }


def _openinference_response(prompt: str, completion: Completion) -> Mapping[str, AttributeValue]:
    return {
        "llm.token_count.prompt": completion.prompt_tokens,
        "llm.token_count.completion": completion.completion_tokens,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": prompt,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": completion.text,
    }
