"""`observe_llm` and `observe`: record calls to models, and steps around them, by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from observatory_storage.errors import ValidationError
from observatory_storage.llm import LlmSpan
from observatory_storage.recording.observed_call import ObservedCall
from observatory_storage.recording.observed_step import OPERATIONS, ObservedStep, StepKind
from observatory_storage.recording.observer import Observer
from observatory_storage.recording.shared_writer import Destination, target_of

__all__ = ["observe", "observe_llm"]


def observe_llm(
    pool: Destination = None,
    *,
    provider: str | None = None,
    model: str | None = None,
    operation: str | None = None,
    name: str | None = None,
    service_name: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    environment: str | None = None,
    prompt: str | None = None,
    input_messages: Sequence[Any] | None = None,
    system_instructions: str | Sequence[Any] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    capture_content: bool = True,
    parent: str | None = None,
) -> Observer[ObservedCall]:
    """Record calls to a language model, as a decorator or a context manager.

    A call becomes an `LlmSpan` when it ends. It is a child of the call or step around it, or of
    OpenTelemetry's active span, and inherits the service, session, user and environment of the call
    or step around it. Storing never makes the application wait or fail.

    Example::

        with observe_llm(pool, provider="openai", model="gpt-5", input_messages=messages) as call:
            response = client.chat.completions.create(model="gpt-5", messages=messages)
            call.response(response)

        @observe_llm(pool, provider="anthropic", model="claude-sonnet-5")
        def ask(messages: list[dict]) -> anthropic.types.Message:
            return client.messages.create(model="claude-sonnet-5", messages=messages)

    Of a decorated function, the arguments ``messages``, ``prompt``, ``input``, ``question``,
    ``query`` or ``text`` are the prompt, or the only argument if it is a text; and ``model``,
    ``temperature``, ``top_p``, ``max_tokens``, ``instructions`` (or ``system``) and ``tools`` what
    they say, also among ``**kwargs``. Its result is read as
    `ObservedCall.response` does. If it is a generator or returns an iterator, the call ends with
    the iterator.

    Args:
        pool: the pool to store into. All calls of a pool share one `TraceWriter`, which is closed
            with the pool or when the process ends. It may be a `TraceWriter` of your own, which
            should not block when it is full; or a function that returns one of both, which is
            called when a call ends. None is the pool that this process shares, with the settings of
            the environment.
        provider: the provider, such as "openai".
        model: the model that is asked for.
        operation: "chat", "embeddings", "text_completion" or another operation. The default is what
            the response tells, or else "chat".
        name: the name of the span; the default is "{operation} {model}".
        service_name: the service.
        session_id: the session or conversation.
        user_id: the user.
        environment: the deployment environment, such as "production".
        prompt: the prompt, as a text.
        input_messages: the prompt, as messages; see `LlmSpan`.
        system_instructions: the system instructions.
        temperature: the temperature that is asked for.
        top_p: the share of probable tokens that is asked for.
        max_tokens: the maximum number of tokens that is asked for.
        attributes: further attributes of the span.
        capture_content: whether prompts and completions are stored.
        parent: the ``traceparent`` header of a request, whose trace is continued. A malformed
            header is ignored.

    Raises:
        ValidationError: an argument is not valid.
    """
    target = target_of(pool, "observe_llm")
    fields: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "operation": operation,
        "name": name,
        "service_name": service_name,
        "session_id": session_id,
        "user_id": user_id,
        "environment": environment,
        "prompt": prompt,
        "input_messages": input_messages,
        "system_instructions": system_instructions,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
    }
    given = _checked(fields, attributes, parent, capture_content)

    def begin(_function: str | None) -> ObservedCall:
        return ObservedCall(target, fields, given, parent=parent, capture_content=capture_content)

    return Observer(begin, wraps_iterators=True)


def observe(
    pool: Destination = None,
    *,
    name: str | None = None,
    kind: StepKind = "step",
    service_name: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    environment: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    capture_content: bool = True,
    parent: str | None = None,
) -> Observer[ObservedStep]:
    """Record a step that is no call to a model: a request, a tool, a retrieval, an agent.

    A step becomes a span when it ends. Calls and steps within it are its children, and inherit its
    service, session, user and environment. Storing never makes the application wait or fail.

    Example::

        @observe(pool, kind="tool")
        def weather(city: str) -> dict:
            return requests.get(f"https://weather.example/{city}").json()

        with observe(pool, name="answer", session_id=session, user_id=user):
            ...

    Of a decorated function, the arguments are the input of the step and the result its output.

    Args:
        pool: the pool to store into, as for `observe_llm`.
        name: the name of the span; the default is the name of the function, or the kind.
        kind: "step", "agent", "chain", "tool", "retrieval", "rerank" or "embedding".
        service_name: the service.
        session_id: the session or conversation.
        user_id: the user.
        environment: the deployment environment, such as "production".
        attributes: further attributes of the span.
        capture_content: whether inputs and outputs are stored.
        parent: the ``traceparent`` header of a request, whose trace is continued. A malformed
            header is ignored.

    Raises:
        ValidationError: an argument is not valid.
    """
    target = target_of(pool, "observe")
    if kind not in OPERATIONS:
        raise ValidationError("kind", kind, f"must be one of {', '.join(get_args(StepKind))}")
    fields: dict[str, Any] = {
        "name": name,
        "service_name": service_name,
        "session_id": session_id,
        "user_id": user_id,
        "environment": environment,
    }
    given = _checked(fields, attributes, parent, capture_content)
    operation, name_key = OPERATIONS[kind]

    def begin(function: str | None) -> ObservedStep:
        named = name or function or kind
        own = {"gen_ai.operation.name": operation} if operation is not None else {}
        if name_key is not None:
            own[name_key] = named
        return ObservedStep(
            target,
            {**fields, "name": named},
            {**own, **given},
            parent=parent,
            capture_content=capture_content,
        )

    return Observer(begin, wraps_iterators=False)


def _checked(
    fields: Mapping[str, Any],
    attributes: Mapping[str, Any] | None,
    parent: object,
    capture_content: object,
) -> dict[str, Any]:
    """Check the arguments of both, and return the attributes.

    Raises:
        ValidationError: one is not valid.
    """
    own = {} if attributes is None else attributes
    given = {key: value for key, value in fields.items() if value is not None}
    LlmSpan(**{"model": "model", **given, "attributes": own})
    if parent is not None and not isinstance(parent, str):
        raise ValidationError("parent", parent, "must be a traceparent header, or None")
    if not isinstance(capture_content, bool):
        raise ValidationError("capture_content", capture_content, "must be true or false")
    return dict(own)
