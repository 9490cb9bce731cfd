"""Removes exemplars from data points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from observatory_storage.models import MetricDataPoint

__all__ = ["without_exemplars"]

_NOTES: Final = "exemplars"  # the key in `otlp` of the notes on exemplars, by index


def without_exemplars(
    is_deleted: Callable[[sa.ColumnElement[str]], sa.ColumnElement[bool]],
    pairs: Sequence[dict[str, Any]],
) -> sa.Update:
    """The statement that removes the matching exemplars from all data points.

    Args:
        is_deleted: the condition on the id, in hex, of a trace whose exemplars are removed.
        pairs: attribute pairs; an exemplar that has one of them is removed.
    """
    each = (
        sa.func.jsonb_array_elements(MetricDataPoint.exemplars)
        .table_valued(sa.column("value", JSONB), with_ordinality="ordinality")
        .render_derived(name="exemplar")
    )
    trace_id = sa.func.lower(sa.func.replace(each.c.value["trace_id"].astext, "-", ""))
    goes = sa.or_(
        is_deleted(trace_id),
        *(each.c.value["attributes"].contains(pair) for pair in pairs),
    )
    stays = sa.not_(sa.func.coalesce(goes, False))
    return (
        sa.update(MetricDataPoint)
        .where(
            MetricDataPoint.exemplars.is_not(None),
            sa.select(sa.literal(1)).select_from(each).where(goes).exists(),
        )
        .values(exemplars=_remaining(each, stays), otlp=_notes(each, stays))
        .execution_options(synchronize_session=False)
    )


def _remaining(each: Any, stays: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    ordered = aggregate_order_by(each.c.value, each.c.ordinality)
    return sa.select(sa.func.jsonb_agg(ordered)).select_from(each).where(stays).scalar_subquery()


def _notes(each: Any, stays: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    """The column `otlp`, with the notes moved to the new indexes of their exemplars."""
    otlp = MetricDataPoint.otlp
    place = sa.func.row_number().over(order_by=each.c.ordinality) - 1
    moved = (
        sa.select((each.c.ordinality - 1).label("before"), place.label("now"))
        .select_from(each)
        .where(stays)
        .subquery("moved")
    )
    note = otlp[_NOTES][sa.cast(moved.c.before, sa.Text)]
    notes = (
        sa.select(sa.func.jsonb_object_agg(sa.cast(moved.c.now, sa.Text), note))
        .select_from(moved)
        .where(note.is_not(None))
        .scalar_subquery()
    )
    others = otlp.op("-", return_type=JSONB())(sa.cast(_NOTES, sa.Text))
    with_notes = sa.func.jsonb_set(others, sa.literal([_NOTES], ARRAY(sa.Text)), notes)
    return sa.case(
        (
            otlp[_NOTES].is_not(None),
            sa.func.nullif(sa.func.coalesce(with_notes, others), sa.literal({}, JSONB)),
        ),
        else_=otlp,
    )
