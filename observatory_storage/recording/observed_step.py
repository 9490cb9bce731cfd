"""`ObservedStep`: a step that is no call to a model, such as a tool, a retrieval or a chain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from observatory_storage import jsonb
from observatory_storage.plain_json import PlainJson
from observatory_storage.recording.exception_attributes import error_text, type_name
from observatory_storage.recording.observation import Observation
from observatory_storage.writers import TraceWriter

__all__ = ["OPERATIONS", "ObservedStep", "StepKind"]

StepKind = Literal["step", "agent", "chain", "tool", "retrieval", "rerank", "embedding"]
# Kind -> the operation of OpenTelemetry, and the attribute for its name.
OPERATIONS: Final[dict[str, tuple[str | None, str | None]]] = {
    "step": (None, None),
    "agent": ("invoke_agent", "gen_ai.agent.name"),
    "chain": ("invoke_workflow", "gen_ai.workflow.name"),
    "tool": ("execute_tool", "gen_ai.tool.name"),
    "retrieval": ("retrieval", None),
    "rerank": ("rerank", None),
    "embedding": ("embeddings", None),
}
_TOOL: Final = "execute_tool"
_KEYS: Final = {"input": "input.value", "output": "output.value"}
_KEYS_OF_TOOL: Final = {
    "input": "gen_ai.tool.call.arguments",
    "output": "gen_ai.tool.call.result",
}
_MOST_ITEMS: Final = 10_000
_SESSION: Final = {"session_id": "session.id", "user_id": "user.id"}


class ObservedStep(Observation):
    """A step that `observe` observes; see `Observation`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._items: list[object] = []

    def update(
        self,
        *,
        name: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        environment: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        input: Any = None,  # noqa: A002 - the name that users look for
        output: Any = None,
    ) -> None:
        """Tell more about the step. None leaves a value as it is.

        Args:
            name: the name of the span.
            session_id: the session or conversation. What begins within this step from now on
                inherits it, and so it does the next two.
            user_id: the user.
            environment: the deployment environment, such as "production".
            attributes: attributes of the span, beside those that it has.
            input: what the step was given, in any types that become JSON.
            output: what it returned.
        """
        super().update(
            name=name,
            session_id=session_id,
            user_id=user_id,
            environment=environment,
            attributes=attributes,
        )
        if input is not None:
            self._add_content("input", input)
        if output is not None:
            self._add_content("output", output)

    def take_call(self, arguments: Mapping[str, Any]) -> None:
        """Note the arguments of an observed function; not for applications to call."""
        self._add_content("input", arguments)

    def take_result(self, result: object) -> None:
        """Note the result of an observed function; not for applications to call."""
        # What the application has told itself is better.
        if result is not None and self._keys["output"] not in self._attributes:
            self._add_content("output", result)

    def take_item(self, item: object) -> None:
        """Note an item of a stream; not for applications to call."""
        if self._capture_content and len(self._items) < _MOST_ITEMS:
            self._items.append(item)

    @property
    def _keys(self) -> Mapping[str, str]:
        return _KEYS_OF_TOOL if self._is_tool else _KEYS

    @property
    def _is_tool(self) -> bool:
        return self._attributes.get("gen_ai.operation.name") == _TOOL

    def _add_content(self, side: str, value: object) -> None:
        if not self._capture_content:
            return
        key = self._keys[side]
        # Converted now, because the application may change the value before the step ends.
        if self._is_tool:
            self._attributes[key] = PlainJson().of(value)
        elif isinstance(value, str):
            self._attributes[key] = value
        else:
            self._attributes[key] = jsonb.dumps(value, side).decode()
            self._attributes[f"{side}.mime_type"] = "application/json"

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        fields, attributes = self._fields, self._attributes
        if self._items:
            items, self._items = self._items, []
            is_text = all(isinstance(item, str) for item in items)
            self.take_result("".join(map(str, items)) if is_text else items)
        for field, key in _SESSION.items():
            if field in fields:
                attributes[key] = fields[field]
        resource = {}
        if "service_name" in fields:
            resource["service.name"] = fields["service_name"]
        if "environment" in fields:
            resource["deployment.environment.name"] = fields["environment"]
        name = fields.get("name") or attributes.get("gen_ai.operation.name") or "step"
        if error is not None:
            attributes.setdefault("error.type", type_name(error))
        writer.write_span(
            {
                "trace_id": self.trace_id,
                "span_id": self.span_id,
                "parent_span_id": self.parent_span_id,
                "name": name,
                "kind": "internal",
                "service_name": fields.get("service_name"),
                "start_time": self.start_time,
                "end_time": end_time,
                "status": "unset" if error is None else "error",
                "status_message": None if error is None else error_text(error),
                "attributes": attributes,
                "resource_attributes": resource,
                "events": [
                    {**event, "position": position} for position, event in enumerate(self._events)
                ],
            }
        )
