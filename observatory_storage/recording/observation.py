"""`Observation`: a call or step of an application while it runs, which becomes a span."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast, overload

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.recording import span_context
from observatory_storage.recording.exception_attributes import (
    error_text,
    exception_attributes,
    type_name,
)
from observatory_storage.recording.observed_stream import AsyncObservedStream, ObservedStream
from observatory_storage.recording.shared_writer import (
    losses,
    repairs,
    run_unnested,
    service_of,
    writer_of,
)
from observatory_storage.recording.span_context import SpanContext, to_traceparent
from observatory_storage.writers import TraceWriter

__all__ = ["Observation", "current_observation"]

T = TypeVar("T")

_INHERITED: Final = ("service_name", "session_id", "user_id", "environment")
_SESSION: Final = {"session_id": "session.id", "user_id": "user.id"}
_RESOURCE: Final = {
    "service_name": "service.name",
    "environment": "deployment.environment.name",
}
_MOST_REPAIRS: Final = 10


def current_observation() -> Observation | None:
    """The innermost call or step that is being observed here; None outside of all.

    Use it where a decorator observes the function::

        @observe(pool)
        def answer(question: str) -> str:
            if (step := current_observation()) is not None:
                step.update(user_id=user_of_request())
    """
    return cast("Observation | None", span_context.current.get())


class Observation:
    """A call or step that is being observed. It becomes a span when it ends.

    Its methods never raise because of storing, and never wait for the database. A value that cannot
    be stored is left out, and reported at most once a minute in the log
    ``observatory_storage.recording``.

    Attributes:
        context: the ids of the span.
        parent_span_id: the id of the span around it, or None if it begins a trace.
        entered_by: the context manager that will leave it; None if there is none.
        around: the observation in which it is active; None if there is none, or it has ended.
        seen_in_opentelemetry: OpenTelemetry's span that was active when it became active.
        start_time: when it began.
    """

    def __init__(
        self,
        target: Callable[[], object],
        fields: Mapping[str, Any],
        attributes: Mapping[str, Any],
        *,
        parent: str | None,
        capture_content: bool,
    ) -> None:
        self._target = target
        self._fields = {key: value for key, value in fields.items() if value is not None}
        self._attributes = dict(attributes)
        self._events: list[dict[str, Any]] = []
        self._capture_content = capture_content
        self._error: BaseException | None = None
        self._open_streams = 0
        self._has_left = self._is_finished = False
        self.entered_by: object = None
        self.around: Observation | None = None
        self._attached: tuple[Any, Any] | None = None
        self.seen_in_opentelemetry: SpanContext | None = None
        self._join_trace(None if parent is None else span_context.from_traceparent(parent))
        self.start_time = datetime.now(UTC)
        self._started = time.perf_counter()

    def _join_trace(self, remote: SpanContext | None) -> None:
        parent = remote or span_context.active_span()
        around = current_observation()
        if around is not None and remote is None:
            for name in _INHERITED:
                if name in around._fields:
                    self._fields.setdefault(name, around._fields[name])
        self.parent_span_id = None if parent is None else parent.span_id
        if parent is None:
            self.context = SpanContext(ids.new_trace_id(), ids.new_span_id())
        else:
            self.context = SpanContext(parent.trace_id, ids.new_span_id(), parent.flags)

    # -- what the application reads and tells ----------------------------------------------------

    @property
    def trace_id(self) -> str:
        """The id of the trace: 32 hex digits."""
        return self.context.trace_id

    @property
    def span_id(self) -> str:
        """The id of the span: 16 hex digits."""
        return self.context.span_id

    @property
    def traceparent(self) -> str:
        """The ``traceparent`` header with which another service continues the trace."""
        return to_traceparent(self.context)

    def update(
        self,
        *,
        name: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        environment: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell more about it. None leaves a value as it is.

        Args:
            name: the name of the span.
            session_id: the session or conversation. What begins within this observation from now
                on inherits it, and so it does the next two.
            user_id: the user.
            environment: the deployment environment, such as "production".
            attributes: attributes of the span, beside those that it has.
        """
        given = {"name": name, "session_id": session_id, "user_id": user_id}
        self._set({**given, "environment": environment})
        if attributes is not None:
            self._try(self._attributes.update, attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the span."""
        self._attributes[key] = value

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event to the span, at the present time."""
        self._events.append(
            {"name": name, "timestamp": self._now(), "attributes": attributes or {}}
        )

    def fail(self, error: BaseException) -> None:
        """Give the span the status "error", for an exception that the application handles itself.

        An exception that leaves the function or the ``with`` block does this by itself.
        """
        self._error = error

    @overload
    def stream(self, source: Iterable[T]) -> ObservedStream[T]: ...
    @overload
    def stream(self, source: AsyncIterable[T]) -> AsyncObservedStream[T]: ...
    def stream(
        self, source: Iterable[T] | AsyncIterable[T]
    ) -> ObservedStream[T] | AsyncObservedStream[T]:
        """Observe an iterator while the application consumes it.

        The returned iterator yields the same items, and has all other attributes of the given one.
        The span ends with the iterator, even if the ``with`` block has ended before.
        """
        self._open_streams += 1
        if isinstance(source, AsyncIterable):
            return AsyncObservedStream(self, source)
        return ObservedStream(self, source)

    # -- its course ------------------------------------------------------------------------------

    def enter(self) -> None:
        """Become the active span of this context; not for applications to call."""
        self.around = current_observation()
        span_context.current.set(self)
        self._attached = span_context.attach(self.context)
        self.seen_in_opentelemetry = span_context.opentelemetry_span()

    def suspend(self) -> None:
        """Be no longer active, and not ended; not for applications to call."""
        # Not by a token: a generator may be closed in another context than it began in.
        inner = current_observation()
        while inner is not None and inner is not self:
            inner = inner.around
        if inner is self:
            span_context.current.set(self.around)
        span_context.restore(self._attached, is_ours=inner is self)
        self._attached = None

    def leave(self, error: BaseException | None = None) -> None:
        """End, unless a stream goes on; not for applications to call."""
        self.suspend()
        self._has_left = True
        if isinstance(error, GeneratorExit):  # the consumer has seen enough
            error = None
        if error is not None or not self._open_streams:
            self._finish(error)

    def take_item(self, item: object) -> None:
        """Note an item of a stream; not for applications to call."""
        self._try(self._take_item, item)

    def end_stream(self, error: BaseException | None = None) -> None:
        """Note the end of a stream; not for applications to call."""
        self._open_streams -= 1
        if error is not None:
            self._error = error
        if self._has_left and not self._open_streams:
            self._finish(None)

    def take_call(self, arguments: Mapping[str, Any]) -> None:
        """Note the arguments of an observed function; not for applications to call."""
        self._try(self._take_call, arguments)

    def take_result(self, result: object) -> None:
        """Note the result of an observed function; not for applications to call."""
        self._try(self._take_result, result)

    def _try(self, take: Callable[[Any], object], value: Any) -> None:
        try:
            take(value)
        except Exception as problem:  # noqa: BLE001 - the value's own code may raise anything
            repairs.add(problem)

    def _take_item(self, item: Any) -> None:
        raise NotImplementedError

    def _take_call(self, arguments: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _take_result(self, result: Any) -> None:
        raise NotImplementedError

    def _set(self, fields: Mapping[str, Any]) -> None:
        self._fields.update({key: value for key, value in fields.items() if value is not None})

    def _now(self) -> datetime:
        # By the clock that is never set back, so that no span ends before it starts.
        return self.start_time + timedelta(seconds=time.perf_counter() - self._started)

    def _finish(self, error: BaseException | None) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        self.around = None  # a job that schedules its next run would keep all runs
        run_unnested(lambda: self._store(error or self._error))

    def _store(self, error: BaseException | None) -> None:
        try:
            end_time = self._now()
            if error is not None:
                self._events.append(
                    {
                        "name": "exception",
                        "timestamp": end_time,
                        "attributes": exception_attributes(error),
                    }
                )
            writer = writer_of(self._target())
            if (service_name := service_of(writer)) is not None:
                self._fields.setdefault("service_name", service_name)
            self._write_what_is_valid(writer, end_time, error)
        except Exception as problem:  # noqa: BLE001 - the application goes on without the span
            losses.add(problem)
        # A task that was begun within may keep this object for long, but needs only these.
        self._fields = {key: self._fields[key] for key in _INHERITED if key in self._fields}
        self._attributes, self._events, self._error = {}, [], None

    def _write_what_is_valid(
        self, writer: TraceWriter, end_time: datetime, error: BaseException | None
    ) -> None:
        for _ in range(_MOST_REPAIRS):
            try:
                self._write(writer, end_time, error)
                return
            except ValidationError as refused:
                # A span without one value is better than none.
                field = refused.field.partition("[")[0].partition(".")[0]
                if field == "events" and self._events:
                    self._events = []
                elif self._fields.pop(field, None) is None:
                    raise
                repairs.add(refused)
        self._write(writer, end_time, error)

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        raise NotImplementedError

    def _write_row(
        self,
        writer: TraceWriter,
        end_time: datetime,
        error: BaseException | None,
        *,
        name: str,
        kind: str,
    ) -> None:
        """Write a span with the fields and attributes. It has failed if it has ``error.type``."""
        fields, attributes = self._fields, self._attributes
        attributes |= {key: fields[name] for name, key in _SESSION.items() if name in fields}
        if error is not None:
            attributes.setdefault("error.type", type_name(error))
        writer.write_span(
            {
                "trace_id": self.trace_id,
                "span_id": self.span_id,
                "parent_span_id": self.parent_span_id,
                "name": name,
                "kind": kind,
                "service_name": fields.get("service_name"),
                "start_time": self.start_time,
                "end_time": end_time,
                "status": "error" if "error.type" in attributes else "unset",
                "status_message": None if error is None else error_text(error),
                "attributes": attributes,
                "resource_attributes": {
                    key: fields[name] for name, key in _RESOURCE.items() if name in fields
                },
                "events": [
                    {**event, "position": position} for position, event in enumerate(self._events)
                ],
            }
        )
