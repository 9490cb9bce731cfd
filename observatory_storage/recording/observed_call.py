"""`ObservedCall`: a call to a language model, which becomes an `LlmSpan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.llm import LlmSpan
from observatory_storage.plain_json import PlainJson
from observatory_storage.recording.exception_attributes import error_text
from observatory_storage.recording.llm_chunks import StreamedAnswer
from observatory_storage.recording.llm_response import read_response
from observatory_storage.recording.observation import Observation
from observatory_storage.writers import TraceWriter

__all__ = ["ObservedCall"]

_CONTENTS: Final = frozenset(
    {"prompt", "completion", "input_messages", "output_messages", "system_instructions"}
)
_ANSWERS: Final = frozenset({"completion", "output_messages"})
# Arguments of functions that are told by their names.
_PROMPTS: Final = ("messages", "input_messages", "prompt", "input", "question", "query", "text")
_INSTRUCTIONS: Final = ("system_instructions", "instructions", "system")
_TOOLS: Final = "gen_ai.tool.definitions"
_REQUEST: Final = ("temperature", "top_p", "max_tokens")
_UNKNOWN: Final = "unknown"


class ObservedCall(Observation):
    """A call that `observe_llm` observes; see `Observation`.

    Example::

        with observe_llm(pool, provider="openai", model="gpt-5", input_messages=messages) as call:
            response = client.chat.completions.create(model="gpt-5", messages=messages)
            call.response(response)
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._given: dict[str, Any] = {}
        self._streamed: StreamedAnswer | None = None
        if not self._capture_content:
            self._drop_contents()
        elif "input_messages" in self._fields:
            self._fields["input_messages"] = _kept(self._fields["input_messages"])

    def update(
        self,
        *,
        name: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        environment: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        model: str | None = None,
        provider: str | None = None,
        prompt: str | None = None,
        completion: str | None = None,
        input_messages: Sequence[Any] | None = None,
        output_messages: Sequence[Any] | None = None,
        system_instructions: str | Sequence[Any] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        finish_reasons: Sequence[str] | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        total_tokens: int | None = None,
        prompt_cost_usd: Decimal | float | str | None = None,
        completion_cost_usd: Decimal | float | str | None = None,
        total_cost_usd: Decimal | float | str | None = None,
        ttft_ms: float | None = None,
    ) -> None:
        """Tell more about the call, in the fields of `LlmSpan`. None leaves a value as it is.

        What is told here takes precedence over what `response` and `stream` read.
        """
        super().update(
            name=name,
            session_id=session_id,
            user_id=user_id,
            environment=environment,
            attributes=attributes,
        )
        if input_messages is not None:
            input_messages = _kept(input_messages)
            self._fields.pop("prompt", None)
        elif prompt is not None:
            self._fields.pop("input_messages", None)
        if output_messages is not None:
            output_messages = _kept(output_messages)
            self._fields.pop("completion", None)
        elif completion is not None:
            self._fields.pop("output_messages", None)
        self._set(
            {
                "model": model,
                "provider": provider,
                "prompt": prompt if input_messages is None else None,
                "completion": completion if output_messages is None else None,
                "input_messages": input_messages,
                "output_messages": output_messages,
                "system_instructions": system_instructions,
                "temperature": temperature,
                "top_p": top_p,
                "max_tokens": max_tokens,
                "response_model": response_model,
                "response_id": response_id,
                "finish_reasons": finish_reasons,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": total_tokens,
                "prompt_cost_usd": prompt_cost_usd,
                "completion_cost_usd": completion_cost_usd,
                "total_cost_usd": total_cost_usd,
                "ttft_ms": ttft_ms,
            }
        )
        if not self._capture_content:
            self._drop_contents()

    def response(self, response: Any) -> None:
        """Read a provider's response: the answer, model, finish reasons and token counts.

        Objects of the SDKs of OpenAI (chat completions, completions, responses, embeddings) and
        Anthropic (messages) are known, and mappings or objects with the same fields, as many other
        providers and gateways return. Another object is ignored, and a text is the completion.
        """
        self._try(self._take_response, response)

    def _take_response(self, response: Any) -> None:
        if isinstance(response, str):
            self._read({"completion": response})
        else:
            self._read(read_response(response))

    def first_token(self) -> None:
        """Note that the first token has arrived now; `stream` does this by itself."""
        self._given.setdefault("ttft_ms", self._elapsed_ms())

    def _take_call(self, arguments: Mapping[str, Any]) -> None:
        fields = self._fields
        if isinstance(model := arguments.get("model"), str):
            fields.setdefault("model", model)
        for name in _REQUEST:
            if isinstance(arguments.get(name), (int, float)):
                fields.setdefault(name, arguments[name])
        if not self._capture_content:
            return
        if not fields.keys() & {"prompt", "input_messages"}:
            fields |= _prompt_of(arguments)
        for name in _INSTRUCTIONS:
            if isinstance(told := arguments.get(name), (str, list, tuple)) and told:
                fields.setdefault("system_instructions", told)
        tools = arguments.get("tools")
        if isinstance(tools, (list, tuple)):  # functions are of agents, which describe them later
            described = [PlainJson().of(tool) for tool in tools if isinstance(tool, Mapping)]
            if described:
                self._attributes.setdefault(_TOOLS, described)

    def _take_result(self, result: object) -> None:
        if result is None or self._given.keys() & _ANSWERS or self._fields.keys() & _ANSWERS:
            return
        if isinstance(result, str):
            self._read({"completion": result})
        elif found := read_response(result):
            self._read(found)
        elif self._capture_content and not isinstance(PlainJson().of(result), str):
            # Of an object that has no form in JSON, a text would tell only what it is.
            self._read({"completion": jsonb.dumps(result, "completion").decode()})

    def _take_item(self, item: object) -> None:
        if self._streamed is None:
            self._streamed = StreamedAnswer()
        if self._streamed.add(item):
            self.first_token()

    def _read(self, found: Mapping[str, Any]) -> None:
        if attributes := found.get("attributes"):
            for key, value in attributes.items():
                self._attributes.setdefault(key, value)
        self._given.update(
            (key, value)
            for key, value in found.items()
            if key != "attributes"
            and value is not None
            and (self._capture_content or key not in _CONTENTS)
        )

    def _drop_contents(self) -> None:
        for name in _CONTENTS:
            self._fields.pop(name, None)

    def _elapsed_ms(self) -> float:
        return (self._now() - self.start_time).total_seconds() * 1000

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        if self._streamed is not None:
            streamed, self._streamed = self._streamed, None
            self._read({**streamed.fields(), **self._given})
        given, fields = self._given, self._fields
        if fields.keys() & _ANSWERS:
            given = {key: value for key, value in given.items() if key not in _ANSWERS}
        elif "output_messages" in given:
            given.pop("completion", None)
        known = {**given, **fields}
        known.setdefault("model", known.get("response_model", _UNKNOWN))
        self._given, self._fields = {}, known  # a value that is refused is removed from there
        writer.write_span_from_llm(
            LlmSpan(
                **known,
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_span_id=self.parent_span_id,
                start_time=self.start_time,
                end_time=end_time,
                error=error,
                status_message=None if error is None else error_text(error),
                attributes=self._attributes,
                events=self._events,
            )
        )


def _prompt_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt among the arguments of a function, as a field of `LlmSpan`."""
    for name in _PROMPTS:
        match arguments.get(name):
            case str() as prompt:
                return {"prompt": prompt}
            case list() | tuple() as messages:
                return {"input_messages": _kept(messages)}
    only = next(iter(arguments.values())) if len(arguments) == 1 else None
    return {"prompt": only} if isinstance(only, str) else {}


def _kept(messages: Any) -> Any:
    """The messages as they are now: the application adds the answer to its list."""
    return list(messages) if isinstance(messages, (list, tuple)) else messages
