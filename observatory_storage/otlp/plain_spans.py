"""Makes the rows of plain spans column by column, which costs less than mapping each of them.

A span is plain if its columns and its attributes hold all that it says. All others are left to the
thorough mapping in `traces`, which makes equal rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import KINDS
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import ABSENT, plain_map
from observatory_storage.otlp.message_types import STATUSES, present
from observatory_storage.otlp.resource_scope import Origin
from observatory_storage.otlp.span_ids import NO_SPAN, ids_of
from observatory_storage.rows import Row, prepare_span_columns

__all__ = ["RARE_FIELDS", "plain_span_rows", "rare_of"]

# Fields without a column. SDKs send flags with every span.
RARE_FIELDS: Final = (
    *("trace_state", "flags", "dropped_attributes_count", "dropped_events_count"),
    "dropped_links_count",
)
rare_of: Final = attrgetter(*RARE_FIELDS)

_COLUMNS: Final = (
    *("trace_id", "span_id", "parent_span_id", "name", "kind", "status", "status_message"),
    *("start_time", "start_ns", "end_time", "end_ns", "otlp"),
)


def plain_span_rows(spans: Sequence[Any], origin: Origin) -> list[Row | None]:
    """The rows of spans that have one resource and scope; None for each that is not plain.

    Args:
        spans: messages; an error for each that could not be read.
        origin: the columns of the resource and the scope.
    """
    made: list[Row | None] = [None] * len(spans)
    shared = _encoded_origin(origin)
    if shared is None:
        return made
    notes: dict[tuple[Any, ...], bytes | None] = {}
    places: list[int] = []
    rows: list[tuple[Any, ...]] = []
    attributes: list[dict[str, Any]] = []
    for index, span in enumerate(spans):
        if isinstance(span, ValidationError) or span.events or span.links:
            continue
        try:
            row = _row(span, origin.otlp, notes)
            plain, note = plain_map(span.attributes, "attributes")
        except ValidationError:
            continue
        if row is not None and note is None:
            places.append(index)
            rows.append(row)
            attributes.append(plain)
    if not rows:
        return made
    encoded, odd = jsonb.encode_many(attributes, "attributes")
    columns = dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    columns |= {name: [value] * len(rows) for name, value in shared.items()}
    columns["attributes"] = encoded
    prepared = prepare_span_columns(
        columns, attributes, [origin.columns["resource_attributes"]] * len(rows)
    )
    for index, ready, plain in zip(places, prepared, attributes, strict=True):
        made[index] = ready.knowing(plain)
    for at in odd:
        made[places[at]] = None
    return made


def _encoded_origin(origin: Origin) -> dict[str, Any] | None:
    """The columns of the resource and scope with JSON encoded, or None if it has to be repaired."""
    columns = dict(origin.columns)
    for name in ("resource_attributes", "scope_attributes"):
        encoded, repairs, plain = jsonb.convert(columns[name], name)
        if repairs or plain is not columns[name]:
            return None
        columns[name] = encoded
    return columns


def _row(
    span: Any, of_origin: dict[str, Any], known_notes: dict[tuple[Any, ...], bytes | None]
) -> tuple[Any, ...] | None:
    """The values of `_COLUMNS`, or None if the span is not plain.

    Args:
        span: a message.
        of_origin: the notes of its resource and scope.
        known_notes: the notes of earlier spans, encoded, by what they note.

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
    noted = status is None, *rare_of(span)
    if noted not in known_notes:  # those of most spans are equal
        encoded = _encoded_notes(of_origin, noted)
        if encoded is None:
            return None
        known_notes[noted] = encoded or None
    otlp = known_notes[noted]
    start_time, start_ns = protojson.moment(start)
    end_time, end_ns = protojson.moment(end) if end else (None, 0)
    return (
        *(ids.trace_uuid(trace_id), span_id, parent or None, name, KINDS[kind], STATUSES[code]),
        *(message, start_time, start_ns, end_time, end_ns, otlp),
    )


def _encoded_notes(of_origin: dict[str, Any], noted: tuple[Any, ...]) -> bytes | None:
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
