"""Taking exemplars out of data points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Text,
    Update,
    case,
    cast,
    column,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from observatory_storage.models import MetricDataPoint

__all__ = ["without_exemplars"]

_NOTES: Final = "exemplars"  # of the `otlp` column: by the exemplar's place, what JSON cannot say


def without_exemplars(trace_ids: Column[str | None], pairs: Sequence[dict[str, str]]) -> Update:
    """The statement that takes them out of all data points that have such.

    Args:
        trace_ids: a table's column with the ids, in hex, of traces whose exemplars go.
        pairs: attributes, any of which makes an exemplar go.
    """
    each = (
        func.jsonb_array_elements(MetricDataPoint.exemplars)
        .table_valued(column("value", JSONB), with_ordinality="ordinality")
        .render_derived(name="exemplar")
    )
    trace_id = func.lower(func.replace(each.c.value["trace_id"].astext, "-", ""))
    goes = or_(
        select(literal(1)).where(trace_ids == trace_id).exists(),
        *(each.c.value["attributes"].contains(pair) for pair in pairs),
    )
    stays = not_(func.coalesce(goes, False))
    return (
        update(MetricDataPoint)
        .where(
            MetricDataPoint.exemplars.is_not(None),
            select(literal(1)).select_from(each).where(goes).exists(),
        )
        .values(exemplars=_remaining(each, stays), otlp=_notes(each, stays))
        .execution_options(synchronize_session=False)
    )


def _remaining(each: Any, stays: ColumnElement[bool]) -> ColumnElement[Any]:
    ordered = aggregate_order_by(each.c.value, each.c.ordinality)
    return select(func.jsonb_agg(ordered)).select_from(each).where(stays).scalar_subquery()


def _notes(each: Any, stays: ColumnElement[bool]) -> ColumnElement[Any]:
    """The column `otlp`, with the notes at the new places of their exemplars."""
    otlp = MetricDataPoint.otlp
    place = func.row_number().over(order_by=each.c.ordinality) - 1
    moved = (
        select((each.c.ordinality - 1).label("before"), place.label("now"))
        .select_from(each)
        .where(stays)
        .subquery("moved")
    )
    note = otlp[_NOTES][cast(moved.c.before, Text)]
    notes = (
        select(func.jsonb_object_agg(cast(moved.c.now, Text), note))
        .select_from(moved)
        .where(note.is_not(None))
        .scalar_subquery()
    )
    others = otlp.op("-", return_type=JSONB())(cast(_NOTES, Text))
    with_notes = func.jsonb_set(others, literal([_NOTES], ARRAY(Text)), notes)
    return case(
        (
            otlp[_NOTES].is_not(None),
            func.nullif(func.coalesce(with_notes, others), literal({}, JSONB)),
        ),
        else_=otlp,
    )
