"""Makes the rows of plain spans column by column, which costs less than mapping each of them.

A span is plain if its columns and its attributes hold all that it says. All others are left to the
thorough mapping in `traces`, which makes equal rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import ABSENT, plain_map
from observatory_storage.otlp.message_types import STATUSES, present
from observatory_storage.otlp.resource_scope import Origin
from observatory_storage.otlp.span_ids import NO_SPAN, ids_of
from observatory_storage.rows import Row, prepare_span_columns

__all__ = ["PLAIN_COLUMNS", "RARE_FIELDS", "PlainSpans", "plain_span_rows", "rare_of"]

# Fields without a column. SDKs send flags with every span.
RARE_FIELDS: Final = (
    *("trace_state", "flags", "dropped_attributes_count", "dropped_events_count"),
    "dropped_links_count",
)
rare_of: Final = attrgetter(*RARE_FIELDS)

# Each span has its own values of these columns, besides attributes and notes.
PLAIN_COLUMNS: Final = (
    *("trace_id", "span_id", "parent_span_id", "name", "kind", "status", "status_message"),
    *("start_time", "start_ns", "end_time", "end_ns"),
)
# Whether a span has no status, and its rare fields.
Noted: TypeAlias = tuple[bool, str, int, int, int, int]


class PlainSpans:
    """Collects what columns hold of plain spans that have one resource and scope.

    Args:
        count: how many spans there are, plain or not.
        origin: the columns of the resource and the scope.
    """

    def __init__(self, count: int, origin: Origin) -> None:
        self._count = count
        self._origin = origin
        self._shared = _encoded_origin(origin)
        self._notes: dict[tuple[Any, ...], bytes | None] = {}
        self._places: list[int] = []
        self._values: list[tuple[Any, ...]] = []
        self._attributes: list[dict[str, Any]] = []

    @property
    def are_possible(self) -> bool:
        """Whether spans of this resource and scope can be plain."""
        return self._shared is not None

    def add(
        self, index: int, values: tuple[Any, ...], noted: Noted, attributes: dict[str, Any]
    ) -> None:
        """Add a plain span.

        Args:
            index: which of the spans it is.
            values: those of `PLAIN_COLUMNS`.
            noted: whether it has no status, and its `RARE_FIELDS`.
            attributes: its attributes.
        """
        if noted not in self._notes:  # those of most spans are equal
            encoded = _encoded_notes(self._origin.otlp, noted)
            if encoded is None:
                return
            self._notes[noted] = encoded or None
        self._places.append(index)
        self._values.append((*values, self._notes[noted]))
        self._attributes.append(attributes)

    def rows(self) -> list[Row | None]:
        """The rows of the spans; None for each that is not plain."""
        made: list[Row | None] = [None] * self._count
        if not self._values or self._shared is None:
            return made
        count, attributes = len(self._values), self._attributes
        encoded, odd = jsonb.encode_many(attributes, "attributes")
        named = zip(*self._values, strict=True)
        columns = dict(zip((*PLAIN_COLUMNS, "otlp"), map(list, named), strict=True))
        columns |= {name: [value] * count for name, value in self._shared.items()}
        columns["attributes"] = encoded
        prepared = prepare_span_columns(
            columns, attributes, [self._origin.columns["resource_attributes"]] * count
        )
        for index, ready, plain in zip(self._places, prepared, attributes, strict=True):
            made[index] = ready.knowing(plain)
        for at in odd:
            made[self._places[at]] = None
        return made


def plain_span_rows(spans: Sequence[Any], origin: Origin) -> list[Row | None]:
    """The rows of spans that have one resource and scope; None for each that is not plain.

    Args:
        spans: messages; an error for each that could not be read.
        origin: the columns of the resource and the scope.
    """
    found = PlainSpans(len(spans), origin)
    for index, span in enumerate(spans if found.are_possible else ()):
        if isinstance(span, ValidationError) or span.events or span.links:
            continue
        try:
            values = _values(span)
            plain, note = plain_map(span.attributes, "attributes")
        except ValidationError:
            continue
        if values is not None and note is None:
            noted = present(span, "status") is None, *rare_of(span)
            found.add(index, values, noted, plain)
    return found.rows()


def _encoded_origin(origin: Origin) -> dict[str, Any] | None:
    """The columns of the resource and scope with JSON encoded, or None if it has to be repaired."""
    columns = dict(origin.columns)
    for name in ("resource_attributes", "scope_attributes"):
        encoded, repairs, plain = jsonb.convert(columns[name], name)
        if repairs or plain is not columns[name]:
            return None
        columns[name] = encoded
    return columns


def _values(span: Any) -> tuple[Any, ...] | None:
    """The values of `PLAIN_COLUMNS` of a message, or None if the span is not plain.

    Raises:
        ValidationError: the span is not valid.
    """
    trace_id, span_id, parent = ids_of(span)
    start, end, kind = span.start_time_unix_nano, span.end_time_unix_nano, span.kind
    name, whole_name = protojson.named(span.name)
    if (
        not start
        or 0 < end < start
        or not 0 <= kind < len(KINDS)
        or whole_name is not None
        or parent == NO_SPAN
    ):
        return None
    status = present(span, "status")
    code, message = 0, None
    if status is not None:
        code, message = status.code, status.message or None
        if not 0 <= code < len(STATUSES):
            return None
    end_time, end_ns = protojson.moment(end) if end else (None, 0)
    return (
        *(ids.trace_uuid(trace_id), span_id, parent or None, name, KINDS[kind], STATUSES[code]),
        *(message, *protojson.moment(start), end_time, end_ns),
    )


def _encoded_notes(of_origin: dict[str, Any], noted: Noted) -> bytes | None:
    """The notes of a span, which may be none; None if they have to be repaired."""
    is_status_absent, *rare = noted
    # They are in the order of the thorough mapping, so that both encode the same.
    notes = of_origin | {"status": ABSENT} if is_status_absent else of_origin
    if any(rare):
        given = zip(RARE_FIELDS, rare, strict=True)
        notes = notes | {field: value for field, value in given if value}
    if not notes:
        return b""
    encoded, repairs = jsonb.encode(notes, "otlp")
    return None if repairs else encoded
