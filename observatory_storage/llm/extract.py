"""The LLM columns of a span, read from its attributes. Called once for every span: a hot path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context
from typing import Any, Final, NamedTuple

from observatory_storage.llm.aliases import ENVIRONMENT_OF_RESOURCE, SCOPED
from observatory_storage.llm.dialects import USAGE_COLUMNS
from observatory_storage.llm.event_facts import fill_from_events
from observatory_storage.llm.first_token import COMPLETION_START, fitting, milliseconds_until
from observatory_storage.llm.readers import (
    MAX_INT64,
    read_provider,
    read_text,
    structure,
    value_at,
)
from observatory_storage.llm.reading_plans import PLANS, Step
from observatory_storage.llm.token_details import take_details

__all__ = [
    "LITELLM_SCOPES",
    "NAMED_BY_KIND",
    "NAMING_KINDS",
    "UNKNOWN_COURSE",
    "Course",
    "Courses",
    "add_totals",
    "complete",
    "facts",
]

# Precise enough to add any two amounts exactly, and without the traps of the caller's context.
_EXACT: Final = Context(prec=400, traps=[])
_NO_READERS: Final[dict[str, Any]] = {}

# Spans of these scopes name a model as LiteLLM does, after its provider: "openai/gpt-4o-mini".
LITELLM_SCOPES: Final = frozenset(
    {"litellm", "openinference.instrumentation.litellm", "gcp.vertex.agent"}
)
# Operations in which a span of some dialects has the name of its agent or tool -> the column of
# that name, and the attributes that mark the dialects.
NAMED_BY_KIND: Final = {"invoke_agent": "agent_name", "execute_tool": "tool_name"}
NAMING_KINDS: Final = (
    *("langfuse.observation.type", "mlflow.spanType", "langsmith.span.kind"),
    *("openinference.span.kind", "traceloop.span.kind"),
)


class Course(NamedTuple):
    """When a span ran, how it ended, and what happened in it.

    Attributes:
        start_time: when it started.
        duration_us: how many microseconds it took; None if it has not ended.
        is_error: whether its status is an error.
        events: its events.
    """

    start_time: Any = None
    duration_us: int | None = None
    is_error: bool = False
    events: Sequence[Any] = ()


class Courses(NamedTuple):
    """The same for many spans, column by column; None for a column that is unknown."""

    start_times: Sequence[Any]
    durations_us: Sequence[int | None] | None
    statuses: Sequence[Any] | None
    events: Sequence[Sequence[Any] | None]

    def at(self, index: int) -> Course:
        """The course of one of the spans."""
        return Course(
            self.start_times[index],
            None if self.durations_us is None else self.durations_us[index],
            self.statuses is not None and self.statuses[index] == "error",
            self.events[index] or (),
        )


UNKNOWN_COURSE: Final = Course()


def facts(
    attributes: Mapping[str, Any],
    *,
    name: str,
    scope_name: str | None,
    resource_attributes: Mapping[str, Any],
    course: Course = UNKNOWN_COURSE,
) -> dict[str, Any]:
    """Read the LLM columns of a span from its attributes and events. Unknown columns are absent.

    It reads all dialects (see `dialects`). Tokens are int, costs `Decimal` in US dollars,
    ``ttft_ms`` float in milliseconds, ``token_details`` a dict, all others str. A total that is not
    reported is the sum of the reported prompt and completion values. A value of the wrong type or
    size counts as absent; nothing is raised.
    """
    found: dict[str, Any] = {}
    _read(attributes, PLANS.of(attributes), found)
    for key, reader in SCOPED.get(scope_name or "", _NO_READERS).items():
        if reader.column not in found and key in attributes:
            value = reader.read(attributes[key])
            if value is not None:
                found[reader.column] = value
    if found or course.events or COMPLETION_START in attributes:
        complete(found, attributes, name, scope_name, course)
    if not found.keys().isdisjoint(USAGE_COLUMNS):
        add_totals(found)
    if "environment" not in found:
        for key in ENVIRONMENT_OF_RESOURCE:
            if key in resource_attributes:
                environment = read_text(resource_attributes[key])
                if environment is not None:
                    found["environment"] = environment
                    break
    return found


def complete(
    found: dict[str, Any],
    attributes: Mapping[str, Any],
    name: object,
    scope_name: object,
    course: Course,
) -> None:
    """Complete what the attributes of a span say by themselves, and correct it.

    Args:
        found: the facts, as they were read from single attributes.
        attributes: the attributes of the span.
        name: the name of the span.
        scope_name: the name of its instrumentation scope.
        course: when the span ran, how it ended, and its events.
    """
    reported = found.get("ttft_ms")
    if reported is not None:
        in_unit = fitting(reported, course.duration_us)
        if in_unit is None:
            del found["ttft_ms"]
        else:
            found["ttft_ms"] = in_unit
    elif COMPLETION_START in attributes and course.start_time is not None:
        passed = milliseconds_until(
            attributes[COMPLETION_START], course.start_time, course.duration_us
        )
        if passed is not None:
            found["ttft_ms"] = passed
    if course.events:
        fill_from_events(
            found, course.events, course.start_time, course.duration_us, course.is_error
        )
    if "model" not in found and "response_model" in found:
        found["model"] = found["response_model"]
    if scope_name in LITELLM_SCOPES:
        _correct_litellm(found, attributes, scope_name)
    named = NAMED_BY_KIND.get(found.get("operation", ""))
    if named is not None and named not in found:
        entity = _name_of_kind(attributes, name)
        if entity is not None:
            found[named] = entity
    take_details(found, attributes, scope_name)


def _correct_litellm(
    found: dict[str, Any], attributes: Mapping[str, Any], scope_name: object
) -> None:
    """LiteLLM names models after their provider, and calls a chat a completion."""
    for column in ("model", "response_model"):
        provider, slash, model = found.get(column, "").partition("/")
        if slash and model and read_provider(provider) == found.get("provider"):
            found[column] = model
    is_completion = attributes.get("llm.request.type") == "completion"
    if scope_name == "litellm" and is_completion and found.get("operation") == "text_completion":
        found["operation"] = "chat"


def _name_of_kind(attributes: Mapping[str, Any], name: object) -> str | None:
    """The name of the agent or tool of a span that is of such a kind."""
    entity = read_text(attributes.get("traceloop.entity.name"))
    if entity is not None or "traceloop.span.kind" in attributes:
        return entity
    return read_text(name) if any(kind in attributes for kind in NAMING_KINDS) else None


def add_totals(columns: dict[str, Any]) -> None:
    """Add absent totals: the sums of the known prompt and completion values, zeros included."""
    if "total_tokens" not in columns:
        sides = columns.get("prompt_tokens"), columns.get("completion_tokens")
        if sides != (None, None):
            total = (sides[0] or 0) + (sides[1] or 0)
            if total <= MAX_INT64:
                columns["total_tokens"] = total
    if "total_cost_usd" not in columns:
        prompt, completion = columns.get("prompt_cost_usd"), columns.get("completion_cost_usd")
        if prompt is not None and completion is not None:
            columns["total_cost_usd"] = _EXACT.add(prompt, completion)
        elif prompt is not None or completion is not None:
            columns["total_cost_usd"] = completion if prompt is None else prompt


def _read(attributes: Mapping[str, Any], plan: Iterable[Step], found: dict[str, Any]) -> None:
    """Find for each column the first valid value by rank."""
    structures: dict[str, Any] = {}
    for key, column, read, path in plan:
        if column in found:
            continue
        value = attributes[key]
        if path:
            if key not in structures:
                structures[key] = structure(value)
            value = value_at(structures[key], path)
        value = read(value)
        if value is not None:
            found[column] = value
