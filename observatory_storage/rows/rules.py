"""The rules of the configuration: what of a row is written, and whether it is.

Every way of writing calls `Rules.applied` on the rows that it is given, before it prepares them. So
nothing that a rule removes is ever in a buffer, in a spool file or in the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids
from observatory_storage.config import RulesConfig
from observatory_storage.errors import ValidationError
from observatory_storage.llm.contents import is_content, reports_messages
from observatory_storage.models import TraceEvent
from observatory_storage.rows.attribute_keys import with_keys
from observatory_storage.rows.drop_conditions import Condition
from observatory_storage.rows.prepare import prepare
from observatory_storage.rows.redaction import Redaction
from observatory_storage.rows.row import as_mapping
from observatory_storage.rows.text_columns import glob
from observatory_storage.tables import (
    DATA_POINTS,
    EVENTS,
    LOGS,
    METRICS,
    SPANS,
    TableDefinition,
)

__all__ = ["Rules"]

_SIGNALS: Final = {
    SPANS.name: "spans",
    EVENTS.name: "events",
    LOGS.name: "logs",
    METRICS.name: "metrics",
    DATA_POINTS.name: "metrics",
}
_NAMES: Final = {LOGS.name: "event_name"}
_MOST_METRICS: Final = 100_000
_MOST_KNOWN_KEYS: Final = 10_000
_METRIC_ID: Final = METRICS.position["id"]
_POINT_ID: Final = DATA_POINTS.position["id"]
_UNKNOWN: Final = object()


class Rules:
    """The compiled rules. One object serves all threads.

    Args:
        config: the section of the configuration.
    """

    def __init__(self, config: RulesConfig) -> None:
        self._conditions = [Condition.of(rule) for rule in config.drop]
        self._dropped_keys = [glob(key) for key in config.drop_attributes]
        self._renamed = dict(config.rename_attributes)
        self._redaction = Redaction(config.redact) if config.redact else None
        self._drops_contents = config.drop_contents
        self._new_keys: dict[str, str | None] = {}
        # The ids of metrics to which rules give another id, which is None for a dropped metric.
        self._metrics: dict[UUID, UUID | None] = {}

    @classmethod
    def of(cls, config: RulesConfig) -> Rules | None:
        """The rules of a configuration; None if it has none."""
        return None if config.is_empty else cls(config)

    def applied(self, table: TableDefinition, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The row as it is to be written, or None to drop it. The given row does not change."""
        if self._is_dropped(table, row, row.get("scope_name")):
            if table is METRICS:
                self._remember_metric(row, None)
            return None
        if table is DATA_POINTS and self._metrics:
            metric_id = self._metric_of(row)
            if metric_id is None:
                return None
            row = {**row, "metric_id": metric_id}
        changed = self._changed(table, row)
        if changed is row:
            return row
        if table is METRICS:
            changed = {key: value for key, value in changed.items() if key != "id"}
            self._remember_metric(row, changed)
        elif table is DATA_POINTS and row.get("id") is None:
            # Points whose attributes become equal stay apart.
            changed = _with_id_of(row, changed)
        return changed

    # -- dropping --------------------------------------------------------------------------------

    def _is_dropped(self, table: TableDefinition, row: Mapping[str, Any], scope: object) -> bool:
        signal = _SIGNALS.get(table.name)
        if signal is None or not self._conditions:
            return False
        name = row.get(_NAMES.get(table.name, "name"))
        return any(
            condition.is_met(table, signal, scope, name, row) for condition in self._conditions
        )

    def _remember_metric(self, row: Mapping[str, Any], changed: Mapping[str, Any] | None) -> None:
        """Note what becomes of the id by which data points may name the metric."""
        try:
            given = prepare(METRICS, row).values[_METRIC_ID]
            new = None if changed is None else prepare(METRICS, changed).values[_METRIC_ID]
        except ValidationError:  # preparing the row reports it
            return
        if given != new and len(self._metrics) < _MOST_METRICS:
            self._metrics[given] = new

    def _metric_of(self, point: Mapping[str, Any]) -> Any:
        given = point.get("metric_id")
        try:
            known = self._metrics.get(ids.uuid_of(given, field="metric_id"), _UNKNOWN)
        except ValidationError:
            return given
        return given if known is _UNKNOWN else known

    # -- changing --------------------------------------------------------------------------------

    def _changed(self, table: TableDefinition, row: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = self._cleaned(table, row)
        events = changed.get("events")
        if table is SPANS and isinstance(events, (list, tuple)) and events:
            kept = list(self._events(events, row.get("scope_name")))
            if len(kept) < len(events) or any(map(_differs, kept, events)):
                changed = {**changed, "events": kept}
        return self._without_contents(table, changed) if self._drops_contents else changed

    def _events(self, events: Sequence[Any], scope: object) -> Iterator[Any]:
        for event in events:
            try:
                given = event if type(event) is dict else as_mapping(event, TraceEvent)
            except ValidationError:  # preparing the span reports it
                yield event
                continue
            if not self._is_dropped(EVENTS, given, scope):
                cleaned = self._cleaned(EVENTS, given)
                yield event if cleaned is given else cleaned

    def _cleaned(self, table: TableDefinition, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._dropped_keys or self._renamed:
            row = with_keys(row, self._new_key)
        return row if self._redaction is None else self._redaction.row(table.name, row)

    def _new_key(self, key: str) -> str | None:
        try:
            return self._new_keys[key]
        except KeyError:
            is_dropped = any(pattern.match(key) for pattern in self._dropped_keys)
            new = None if is_dropped else self._renamed.get(key, key)
            if len(self._new_keys) < _MOST_KNOWN_KEYS:
                self._new_keys[key] = new
            return new

    # -- contents --------------------------------------------------------------------------------

    def _without_contents(
        self, table: TableDefinition, row: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if table is LOGS:
            return _log_without_contents(row)
        if table is EVENTS:
            return _event_without_contents(row)
        stripped = with_keys(row, _unless_content)
        if table is not SPANS:
            return stripped
        events = row.get("events")
        if isinstance(events, (list, tuple)):
            kept = [
                _event_without_contents(
                    event if type(event) is dict else as_mapping(event, TraceEvent)
                )
                if isinstance(event, (Mapping, TraceEvent))
                else event
                for event in events
            ]
            if any(map(_differs, kept, events)):
                stripped = {**stripped, "events": kept}
        return row if stripped is row else _with_facts(row, stripped)


def _with_facts(row: Mapping[str, Any], stripped: Mapping[str, Any]) -> Mapping[str, Any]:
    """The span without contents, with the columns that are read from them."""
    try:
        facts = prepare(SPANS, row).as_dict()
    except ValidationError:  # preparing the row reports it
        return stripped
    del facts["attributes"], facts["trace_id"]
    facts.pop("events", None)
    known = {column: value for column, value in facts.items() if value is not None}
    return known | {column: value for column, value in stripped.items() if value is not None}


def _with_id_of(row: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return {**changed, "id": prepare(DATA_POINTS, row).values[_POINT_ID]}
    except ValidationError:  # preparing the row reports it
        return changed


def _unless_content(key: str) -> str | None:
    return None if is_content(key) else key


def _event_without_contents(event: Mapping[str, Any]) -> Mapping[str, Any]:
    name = event.get("name")
    return with_keys(event, lambda key: None if is_content(key, name) else key)


def _log_without_contents(row: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = row.get("attributes")
    name = row.get("event_name")
    if name is None and isinstance(attributes, Mapping):
        name = attributes.get("event.name")
    stripped = with_keys(row, lambda key: None if is_content(key, name) else key)
    if not reports_messages(name) or (row.get("body") is row.get("body_json") is None):
        return stripped
    stripped = {**stripped, "body": None, "body_json": None}
    notes = stripped.get("otlp")
    if isinstance(notes, Mapping) and "body" in notes:
        stripped["otlp"] = {key: note for key, note in notes.items() if key != "body"}
    return stripped


def _differs(one: object, other: object) -> bool:
    return one is not other
