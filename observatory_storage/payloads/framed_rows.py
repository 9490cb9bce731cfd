"""Reads rows whose large values stand in frames, with their whole content."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa
from msgspec import Raw
from msgspec.json import Decoder
from sqlalchemy.orm import Session

from observatory_storage.payloads.content_words import is_content
from observatory_storage.payloads.frame_keys import owner_of
from observatory_storage.payloads.frame_sets import OF_LOGS, OF_SPANS
from observatory_storage.payloads.framed_reading import (
    FramedKind,
    given_hours,
    is_framed_within,
    may_have,
)
from observatory_storage.payloads.log_values import whole_columns
from observatory_storage.payloads.moved_values import preview_of
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.tables import EVENTS, LOGS, SPANS

__all__ = ["WholeLog", "WholeRow", "framed_logs", "framed_rows"]

_raw: Final = Decoder(dict[str, Raw])


def _rows() -> sa.CompoundSelect[Any]:
    """The rows with frames of the given hours that match the pattern of their hour."""
    given = given_hours()
    selected = []
    for table, start_name, ns_name in (
        (SPANS.table, "start_time", "start_ns"),
        (EVENTS.table, "span_start_time", "span_start_ns"),
    ):
        rows, start = table.c, table.c[start_name]
        of_event = "position" in rows
        attributes = sa.cast(rows.attributes, sa.Text)
        selected.append(
            sa.select(
                given.c.numbers.label("number"),
                rows.trace_id,
                rows.span_id,
                start.label("start_time"),
                rows[ns_name].label("start_ns"),
                (rows.position if of_event else sa.cast(sa.null(), sa.Integer)).label("position"),
                (rows.name if of_event else sa.cast(sa.null(), sa.Text)).label("event_name"),
                rows.payload_frame,
                attributes.label("attributes"),
            )
            .join_from(given, table, is_framed_within(given.c, rows, start))
            .where(may_have(attributes, given.c.lacking))
        )
    return sa.union_all(*selected)


def _logs() -> sa.Select[Any]:
    """As `_rows`, the log records."""
    given = given_hours()
    rows = LOGS.table.c
    attributes, body = sa.cast(rows.attributes, sa.Text), sa.cast(rows.body_json, sa.Text)
    text = attributes.concat(sa.func.coalesce(body, "")).concat(sa.func.coalesce(rows.body, ""))
    return (
        sa.select(
            given.c.numbers.label("number"),
            *(rows.trace_id, rows.id, rows.timestamp, rows.timestamp_ns, rows.payload_frame),
            *(rows.span_id, rows.event_name, rows.body),
            attributes.label("attributes"),
            body.label("body_json"),
        )
        .join_from(given, LOGS.table, is_framed_within(given.c, rows, rows.timestamp))
        .where(may_have(text, given.c.lacking))
    )


class WholeRow(NamedTuple):
    """A span or an event that refers to a frame.

    Attributes:
        trace_id, span_id, start_time, start_ns: the key of the span.
        event_name: None if it is the span itself.
        content: the JSON text of its whole attributes that may be prompts or completions, by name.
    """

    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int
    event_name: str | None
    content: Mapping[str, bytes]


class WholeLog(NamedTuple):
    """A log record that refers to a frame.

    Attributes:
        attributes, body_json: the JSON text of the whole columns.
    """

    trace_id: UUID
    span_id: str | None
    timestamp: datetime
    event_name: str | None
    body: str | None
    attributes: bytes
    body_json: bytes | None


def framed_rows(
    connection: sa.Connection | Session,
    keys: Collection[HourKey],
    wanted: Sequence[Sequence[bytes]] = ((),),
) -> dict[HourKey, list[WholeRow]]:
    """The spans and events of these hours of traces that refer to frames.

    It runs two statements. What cannot be read of a frame is logged; its rows have previews.

    Args:
        wanted: lists of runs of ASCII letters and digits, in lower case. Only the rows are found
            whose attributes have all runs of one of the lists, in any case.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    return _SPANS.read(connection, keys, wanted)


def framed_logs(
    connection: sa.Connection | Session,
    keys: Collection[HourKey],
    wanted: Sequence[Sequence[bytes]] = ((),),
) -> dict[HourKey, list[WholeLog]]:
    """As `framed_rows`, the log records of these hours of traces that refer to frames."""
    return _LOGS.read(connection, keys, wanted)


def _with_content(row: Any, values: Mapping[str, bytes]) -> WholeRow:
    content = {}
    for key, raw in _raw.decode(row.attributes).items():
        if is_content(key):
            stored, value = bytes(raw), values.get(key)
            is_moved = value is not None and orjson.loads(stored) == preview_of(value)
            content[key] = value if value is not None and is_moved else stored
    start = row.start_time.astimezone(UTC)
    return WholeRow(row.trace_id, row.span_id, start, row.start_ns, row.event_name, content)


def _whole_log(row: Any, values: Mapping[str, bytes]) -> WholeLog:
    columns = whole_columns(row.attributes, row.body_json, values)
    moment = row.timestamp.astimezone(UTC)
    return WholeLog(row.trace_id, row.span_id, moment, row.event_name, row.body, *columns)


_SPANS: Final = FramedKind(
    OF_SPANS,
    _rows(),
    lambda row: owner_of(row.span_id, row.start_time, row.start_ns, row.position),
    lambda row: row.attributes,
    _with_content,
)
_LOGS: Final = FramedKind(
    OF_LOGS,
    _logs(),
    lambda row: owner_of(row.id.hex, row.timestamp, row.timestamp_ns),
    lambda row: f"{row.attributes} {row.body_json or ''} {row.body or ''}",
    _whole_log,
)
