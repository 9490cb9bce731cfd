"""A row that is ready to write, and what it is made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy.orm.attributes import instance_state

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import Base
from observatory_storage.stored_json import decode_columns
from observatory_storage.tables import EVENTS, SPANS, TABLES, TableDefinition, Values, table_named

__all__ = ["Row", "as_mapping", "remember_id"]

(_ATTRIBUTES,) = SPANS.positions("attributes")
# Smaller attributes mostly stay in their row, see `PayloadsConfig.threshold_bytes`.
_LARGE_BYTES: Final = 1000
_STATE: Final = "_sa_instance_state"  # SQLAlchemy's own attribute of each instance


class Row(NamedTuple):
    """One row ready to write.

    Attributes:
        table: the name of its table.
        values: one value for each of the table's columns, in the order of the registry.
        events: for a span, its events' values; None where the span says nothing of its events.
        trace_text: for a span, its trace id as text.
        repairs: how many values were changed because PostgreSQL cannot hold them.
        attributes: for a span that is written before others can change them, its attributes as
            `values` has encoded them, if they are known.
    """

    table: str
    values: Values
    events: tuple[Values, ...] | None = None
    trace_text: str = ""
    repairs: int = 0
    attributes: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row by its columns' names with JSON decoded, as `on_rejected` gets it."""
        named = _named(table_named(self.table), self.values)
        if self.events is not None:
            named["events"] = [_named(EVENTS, event) for event in self.events]
        return named

    def knowing(self, attributes: Mapping[str, Any] | None) -> Row:
        """The span with the attributes that it was made from, if it may be worth to know them."""
        if self.repairs or len(self.values[_ATTRIBUTES]) < _LARGE_BYTES:
            return self
        table, values, events, trace_text, repairs, _ = self  # `_replace` costs three times as much
        return Row(table, values, events, trace_text, repairs, attributes)

    def with_clean_text(self) -> Row:
        """The row with its text as PostgreSQL can hold it; JSON was repaired when encoded."""
        values, repairs = _cleaned(self.values)
        events = self.events
        if events is not None:
            cleaned = [_cleaned(event) for event in events]
            events = tuple(event for event, _ in cleaned)
            repairs += sum(count for _, count in cleaned)
        text = jsonb.clean_text(self.trace_text)
        repairs += text != self.trace_text
        return Row(self.table, values, events, text, self.repairs + repairs)


def _named(table: TableDefinition, values: Values) -> dict[str, Any]:
    return {
        column: jsonb.decode(value) if column in table.json_columns else value
        for column, value in zip(table.columns, values, strict=True)
    }


def _cleaned(values: Values) -> tuple[Values, int]:
    cleaned = tuple(jsonb.clean_text(v) if isinstance(v, str) else v for v in values)
    return cleaned, sum(old != new for old, new in zip(values, cleaned, strict=True))


def as_mapping(row: object, model: type[Base]) -> dict[str, Any]:
    """The columns that an ORM instance or a mapping gives, as a new dict.

    Raises:
        ValidationError: the row is neither a mapping nor an instance of the model.
    """
    if isinstance(row, model):
        for column in instance_state(row).callables:  # columns that are not loaded
            if column in TABLES[model.__tablename__].position and column not in row.__dict__:
                raise ValidationError(
                    column, None, "was not loaded: read the row whole to write it"
                )
        if instance_state(row).key is not None:
            decode_columns(row.__dict__)
        given = row.__dict__.copy()
        given.pop(_STATE, None)
        if TABLES[model.__tablename__].attributes.issuperset(given):
            return given
        return {key: value for key, value in given.items() if key[0] != "_"}
    if isinstance(row, Mapping) and not isinstance(row, Base):  # not an instance of another model
        return dict(row)
    raise ValidationError(
        "row", row, f"must be a {model.__name__} or a mapping with its columns' names"
    )


def remember_id(row: object, prepared: Row) -> uuid.UUID | None:
    """Return the id of a prepared row, and set it on an ORM instance that had none."""
    table = TABLES[prepared.table]
    position = table.position.get("id")
    if position is None:
        return None
    given: uuid.UUID = prepared.values[position]
    if isinstance(row, table.model) and row.__dict__.get("id") is None:
        row.id = given  # type: ignore[attr-defined]  # the table has this column
    return given
