"""`LlmSpan`: one call to a language model, written by hand."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, cast

from sqlalchemy.orm.attributes import init_collection

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.llm import messages
from observatory_storage.llm import span_validation as checks
from observatory_storage.llm.aliases import NESTED, PLAIN, READ_AS
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.llm.extract import Course, add_totals, facts
from observatory_storage.llm.readers import (
    read_amount,
    read_duration,
    read_text,
    read_tokens,
    reader_of,
)
from observatory_storage.models import STATUSES, TraceEvent, TraceSpan

__all__ = ["LlmSpan", "columns_of_attributes"]

_MICROSECOND: Final = timedelta(microseconds=1)
_UNKNOWN_SERVICE: Final = "unknown_service"

_CHECK_OF_READER: Final[dict[Callable[[object], Any], Callable[[str, object], None]]] = {
    read_text: checks.name,
    read_tokens: checks.count,
    read_amount: checks.amount,
    read_duration: checks.milliseconds,
}
# Checks of fields that are not columns, or whose check does not follow from the column's type.
_CHECKS: Final[dict[str, Callable[[str, object], None]]] = {
    **dict.fromkeys(("name", "service_name"), checks.name),
    **dict.fromkeys(("status_message", "prompt", "completion"), checks.text),
    **dict.fromkeys(("start_time", "end_time"), checks.time),
    **dict.fromkeys(("temperature", "top_p"), checks.number),
    **dict.fromkeys(("attributes", "resource_attributes"), checks.attributes),
    "duration_ms": checks.milliseconds,
    "max_tokens": checks.count,
    "finish_reasons": checks.texts,
    "events": checks.events,
}

_NEVER_NONE: Final = frozenset({"attributes", "resource_attributes", "events"})

# Field -> the attribute that it becomes. A field that is missing here becomes the first alias of
# its column.
_ATTRIBUTES: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    # OpenTelemetry has no names for costs, so these are OpenInference's.
    "prompt_cost_usd": "llm.cost.prompt",
    "completion_cost_usd": "llm.cost.completion",
    "total_cost_usd": "llm.cost.total",
}
# Fields that are not written as they are: `environment` goes into the resource, `ttft_ms` becomes
# seconds.
_WRITTEN_BY_HAND: Final = frozenset({"environment", "ttft_ms"})


class _Prepared:  # what is made of a span once, and is no field of it
    __slots__ = ("_contents",)
    _contents: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSpan(_Prepared):
    """One call to a language model, for `TraceWriter.write_span_from_llm`.

    Only `model` is required.

    Identity: missing ids are generated at random when the object is created, so writing the same
    object again replaces its span. `trace_id` may be any text or UUID. `span_id` and
    `parent_span_id` are 16 hex digits. The default of `name` is "{operation} {model}".

    Time: pass `start_time` (with a time zone), and `end_time` or `duration_ms`. Without
    `start_time`, the call ends at `end_time` (the default is now) and starts `duration_ms` earlier.
    Without `end_time` and `duration_ms`, the end is unknown.

    Content: pass `prompt` or `input_messages`, and `completion` or `output_messages`. A message is
    a text, or a mapping with a role and either parts (OpenTelemetry) or content (chat APIs), or an
    object of a provider's SDK with such fields (a model of pydantic, a dataclass).

    Usage: token counts include cached and reasoning tokens. Costs are in US dollars. A total that
    is not given is the sum of the given prompt and completion values. Omit usage for a span that
    summarizes other spans (``operation="invoke_agent"``), because it is stored as given and sums
    would count it twice.

    The constructor raises a `ValidationError` that names the field, its value and the rule.
    """

    model: str
    provider: str | None = None
    operation: str = "chat"
    name: str | None = None
    trace_id: str | uuid.UUID | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    service_name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_ms: float | None = None
    status: str | None = None
    status_message: str | None = None
    error: BaseException | str | None = None
    prompt: str | None = field(default=None, repr=False)
    completion: str | None = field(default=None, repr=False)
    input_messages: Sequence[Any] | None = field(default=None, repr=False)
    output_messages: Sequence[Any] | None = field(default=None, repr=False)
    system_instructions: str | Sequence[Any] | None = field(default=None, repr=False)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: Sequence[str] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_cost_usd: Decimal | float | str | None = None
    completion_cost_usd: Decimal | float | str | None = None
    total_cost_usd: Decimal | float | str | None = None
    ttft_ms: float | None = None
    user_id: str | None = None
    session_id: str | None = None
    environment: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    resource_attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[TraceEvent | Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        self._check()
        self._settle_identity()
        # The end is left as given, so that `dataclasses.replace` can still move the start.
        start_time, _ = checks.interval(self.start_time, self.end_time, self.duration_ms)
        _set(self, "start_time", start_time)
        self._settle_outcome()

    def to_span(self) -> TraceSpan:
        """Create the span of this call: kind "client", with GenAI attributes and the LLM columns.

        Events given as mappings become `TraceEvent` instances with the key of the span. Instances
        are used as they are.
        """
        start_time, end_time = checks.interval(self.start_time, self.end_time, self.duration_ms)
        trace_id = cast("str | uuid.UUID", self.trace_id)  # set by the constructor
        key = {"trace_id": ids.trace_uuid(trace_id), "span_id": self.span_id}
        attributes, resource = self._attributes(), self._resource_attributes()
        span = TraceSpan.of_columns(
            {
                **key,
                "parent_span_id": self.parent_span_id,
                "name": self.name,
                "kind": "client",
                "service_name": self.service_name,
                "start_time": start_time,
                "start_ns": 0,
                "end_time": end_time,
                "end_ns": 0,
                "duration_us": end_time and (end_time - start_time) // _MICROSECOND,
                "duration_ns": 0,
                "status": self.status,
                "status_message": self.status_message,
                "attributes": attributes,
                "links": [],
                "resource_attributes": resource,
                "scope_attributes": {},
                **self._columns(attributes, resource, end_time),
            }
        )
        if not self.events:
            init_collection(span, "events")
            return span
        span.events = [
            event
            if isinstance(event, TraceEvent)
            else TraceEvent(
                **{"timestamp": start_time, "timestamp_ns": 0, "attributes": {}, **event},
                **key,
                span_start_time=start_time,
                span_start_ns=0,
                position=position,
            )
            for position, event in enumerate(self.events)
        ]
        return span

    def _check(self) -> None:
        for required in ("model", "operation"):
            if getattr(self, required) is None:
                raise ValidationError(required, None, "is required")
        names_are_valid = checks.are_names(_names_of(self))
        for field_name, check in _OTHER_CHECKS if names_are_valid else _ALL_CHECKS.items():
            value = getattr(self, field_name)
            if value is not None or field_name in _NEVER_NONE:
                check(field_name, value)
        for short, full in (("prompt", "input_messages"), ("completion", "output_messages")):
            if getattr(self, short) is not None and getattr(self, full) is not None:
                raise ValidationError(short, getattr(self, short), f"says the same as {full}")
        _set(self, "_contents", self._made_contents())

    def _settle_identity(self) -> None:
        if self.trace_id is None:
            _set(self, "trace_id", ids.new_trace_id())
        else:
            ids.trace_uuid(self.trace_id)
        _set(
            self,
            "span_id",
            ids.new_span_id() if self.span_id is None else ids.span_id(self.span_id),
        )
        if self.parent_span_id is not None:
            _set(self, "parent_span_id", ids.span_id(self.parent_span_id, "parent_span_id"))
        if self.name is None:
            # The name of the model may make this too long for the column.
            # `str.__str__`, since the text of an enum's member may be its name.
            name = f"{str.__str__(self.operation)} {str.__str__(self.model)}"
            _set(self, "name", name if checks.fits(name) else self.operation)
        if self.service_name is None:
            named = self.resource_attributes.get("service.name")
            _set(self, "service_name", named if checks.fits(named) else _UNKNOWN_SERVICE)

    def _settle_outcome(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise ValidationError("status", self.status, f"must be one of {', '.join(STATUSES)}")
        if self.error is None:
            _set(self, "status", self.status or "unset")
            return
        if not isinstance(self.error, (BaseException, str)):
            raise ValidationError("error", self.error, "must be an exception or text")
        if self.status not in (None, "error"):
            raise ValidationError("status", self.status, "must be error where an error is given")
        _set(self, "status", "error")
        if self.status_message is None:
            _set(self, "status_message", str(self.error) or type(self.error).__name__)

    def _made_contents(self) -> dict[str, list[dict[str, Any]]]:
        contents: dict[str, list[dict[str, Any]]] = {}
        given = self.prompt if self.input_messages is None else self.input_messages
        if given is not None:
            contents["gen_ai.input.messages"] = messages.input_messages(given, "input_messages")
        given = self.completion if self.output_messages is None else self.output_messages
        if given is not None:
            contents["gen_ai.output.messages"] = messages.output_messages(
                given, "output_messages", self.finish_reasons or ()
            )
        if self.system_instructions is not None:
            contents["gen_ai.system_instructions"] = messages.instructions(
                self.system_instructions, "system_instructions"
            )
        return contents

    def _attributes(self) -> dict[str, Any]:
        values = zip(_ATTRIBUTE_KEYS, _written(self), strict=True)
        attributes = {**self.attributes, **{key: v for key, v in values if v is not None}}
        for field_name, key in _AMOUNT_ATTRIBUTES:
            if (amount := getattr(self, field_name)) is not None:
                attributes[key] = _plain(read_amount(amount))
        if self.ttft_ms is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = self.ttft_ms / 1000
        if self.finish_reasons is not None:
            attributes["gen_ai.response.finish_reasons"] = list(self.finish_reasons)
        if self.error is not None:
            attributes.setdefault("error.type", _error_type(self.error))
        if not hasattr(self, "_contents"):  # a copy, or unpickled
            _set(self, "_contents", self._made_contents())
        for key, parts in self._contents.items():
            attributes[key] = [*parts]  # a copy: a change of one span is not one of the next
        return attributes

    def _resource_attributes(self) -> dict[str, Any]:
        resource = dict(self.resource_attributes)
        if self.service_name != _UNKNOWN_SERVICE:
            resource["service.name"] = self.service_name
        if self.environment is not None:
            resource["deployment.environment.name"] = self.environment
        return resource

    def _columns(
        self, attributes: dict[str, Any], resource: dict[str, Any], end_time: datetime | None
    ) -> dict[str, Any]:
        if PLAIN.keys().isdisjoint(self.attributes) and NESTED.keys().isdisjoint(self.attributes):
            # What the fields say as columns needs not be read from their attributes.
            attributes = {key: attributes[key] for key in _READ_ATTRIBUTES if key in attributes}
        start_time = cast("datetime", self.start_time)  # set by the constructor
        duration_us = None if end_time is None else (end_time - start_time) // _MICROSECOND
        columns = facts(
            attributes,
            name=self.name or "",
            scope_name=None,
            resource_attributes=resource,
            course=Course(start_time, duration_us, self.status == "error", self.events),
        )
        for column, value in zip(_COLUMNS, _columns_of(self), strict=True):
            if value is not None:
                columns[column] = read_amount(value) if column in _AMOUNTS else value
        for column in _FOLDED:
            if columns.get(column) is not None:
                columns[column] = READ_AS[column](columns[column]) or columns[column]
        if self.ttft_ms is not None:
            columns["ttft_ms"] = float(self.ttft_ms)
        add_totals(columns)
        return _NO_COLUMNS | columns


# The LLM columns that are fields too; the others come from the attributes alone.
_COLUMNS: Final = tuple(each.name for each in fields(LlmSpan) if each.name in ALIASES)
# Columns with one spelling for all that senders use.
_FOLDED: Final = ("operation", "provider")
_AMOUNTS: Final = frozenset(column for column in _COLUMNS if reader_of(column) is read_amount)
_ALL_CHECKS: Final = _CHECKS | {name: _CHECK_OF_READER[reader_of(name)] for name in _COLUMNS}
_names_of = attrgetter(*(name for name, check in _ALL_CHECKS.items() if check is checks.name))
_OTHER_CHECKS: Final = tuple(
    (name, check) for name, check in _ALL_CHECKS.items() if check is not checks.name
)
_ALL_ATTRIBUTES: Final = {
    name: ALIASES[name][0] for name in _COLUMNS if name not in _WRITTEN_BY_HAND
} | _ATTRIBUTES
# Attributes that are written, and give columns that are not fields.
_READ_ATTRIBUTES: Final = PLAIN.keys() & (
    {"gen_ai.response.finish_reasons", "error.type"}
    | {key for name, key in _ALL_ATTRIBUTES.items() if name not in _COLUMNS}
)
_NO_COLUMNS: Final[dict[str, Any]] = dict.fromkeys((*ALIASES, "token_details"))
_ATTRIBUTE_KEYS: Final = tuple(_ALL_ATTRIBUTES.values())
_AMOUNT_ATTRIBUTES: Final = tuple(
    (name, key) for name, key in _ALL_ATTRIBUTES.items() if name in _AMOUNTS
)
_written = attrgetter(*_ALL_ATTRIBUTES)
_columns_of = attrgetter(*_COLUMNS)


def columns_of_attributes(call: LlmSpan, span: TraceSpan) -> dict[str, Any]:
    """The LLM columns of a call's span that are read from its attributes."""
    return {
        column: span.__dict__[column]
        for column in (*ALIASES, "token_details")
        if getattr(call, column, None) is None
    }


def _set(span: LlmSpan, field_name: str, value: object) -> None:
    object.__setattr__(span, field_name, value)


def _plain(amount: Decimal | None) -> float | str | None:
    """The amount for JSON: a number, or text if a double would lose digits."""
    if amount is None:
        return None
    number = float(amount)
    return number if Decimal(repr(number)) == amount else str(amount)


def _error_type(error: BaseException | str) -> str:
    """OpenTelemetry's `error.type`: the exception's full name, or "_OTHER" if unknown."""
    if isinstance(error, str):
        return "_OTHER"
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
