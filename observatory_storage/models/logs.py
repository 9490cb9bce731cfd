"""Log records."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    and_,
    any_,
    case,
    event,
    func,
    or_,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.orm.attributes import flag_modified, get_history, set_committed_value
from sqlalchemy.sql.elements import ColumnElement

from observatory_storage.models import search_words
from observatory_storage.models.base import JSON, NAME, Base, fraction, json_object, now
from observatory_storage.models.severities import LEVELS, SEVERITIES, names_from

if TYPE_CHECKING:
    from observatory_storage.models.traces import Trace

__all__ = ["IS_ERROR", "IS_STRUCTURED", "LogRecord"]

# A tsvector holds at most 1 MB. A longer body is stored whole, and found by its beginning.
_SEARCHED_CHARACTERS: Final = 100_000
# The predicate of an index: a record is an error, as `LogRecord.is_at_least` writes this condition.
IS_ERROR: Final = (
    f"severity_number >= {LEVELS['ERROR']} OR severity_number IS NULL AND upper(severity_text) IN ("
    + ", ".join(f"'{name}'" for name in names_from(LEVELS["ERROR"]))
    + ")"
)
# The predicate of an index: a record has more to search than a text body. Older SDKs give the name
# of an event as an attribute. `LogRecord.is_structured` writes the same condition.
IS_STRUCTURED: Final = (
    "body_json IS NOT NULL OR event_name IS NOT NULL OR attributes ? 'event.name'"
)


class LogRecord(Base):
    """A log record. ``body`` contains a text body, ``body_json`` any other body.

    Times have microseconds; ``timestamp_ns`` has the remaining nanoseconds (0-999).
    """

    __tablename__ = "logs"
    _shown = "timestamp severity_text service_name body trace_id"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, doc="As given, or random; OTLP ingestion computes it from the content."
    )
    timestamp: Mapped[datetime] = mapped_column(primary_key=True, doc="The time of the record.")
    timestamp_ns: Mapped[int] = fraction("The nanoseconds beyond `timestamp`.")
    observed_timestamp: Mapped[datetime | None] = mapped_column(
        doc="The time at which the collection system observed it."
    )
    severity_number: Mapped[int | None] = mapped_column(
        SmallInteger,
        doc="OpenTelemetry's SeverityNumber, 1 (TRACE) to 24 (FATAL4), as it was sent.",
    )
    severity_text: Mapped[str | None] = mapped_column(
        NAME, doc="The level name that the source uses."
    )
    body: Mapped[str | None] = mapped_column(doc="The message.")
    body_json: Mapped[Any | None] = mapped_column(JSON, doc="A body that is not text.")
    event_name: Mapped[str | None] = mapped_column(NAME, doc="The name of the event type.")
    service_name: Mapped[str] = mapped_column(NAME, doc="The resource's `service.name`.")
    trace_id: Mapped[uuid.UUID | None] = mapped_column(doc="The `id` of its trace.")
    span_id: Mapped[str | None] = mapped_column(
        NAME, doc="The `span_id` of the span in which it was logged."
    )
    trace_flags: Mapped[int | None] = mapped_column(doc="W3C trace flags; 1 means sampled.")
    attributes: Mapped[dict[str, Any]] = json_object("Its attributes.")
    resource_attributes: Mapped[dict[str, Any]] = json_object(
        "Attributes of the resource (process, host, service) that reported it."
    )
    scope_name: Mapped[str | None] = mapped_column(NAME, doc="The instrumentation scope: a logger.")
    scope_version: Mapped[str | None] = mapped_column(NAME, doc="The scope's version.")
    scope_attributes: Mapped[dict[str, Any]] = json_object("The scope's attributes.")
    otlp: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="OTLP fields without a column: dropped counts, schema URLs and types."
    )
    payload_frame: Mapped[int | None] = mapped_column(
        doc="The `id` of the log frame that has its large values; None if it has them itself."
    )
    payload_digests: Mapped[dict[str, Any] | None] = mapped_column(
        JSON,
        doc="The digests of the values in the log frame: for `attributes` and `body_json`, by the"
        " keys of their values.",
    )
    created_at: Mapped[datetime] = now("When the row was first written.")

    trace: Mapped[Trace | None] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="foreign(LogRecord.trace_id) == Trace.id",
        doc="Its trace.",
        info={"call": "uow.traces.get(log.trace_id)"},
    )

    @staticmethod
    def search_vector(body: ColumnElement[Any]) -> ColumnElement[Any]:
        """The expression of the full-text index. A search must use the same expression."""
        return search_words.words_of(func.left(body, text(str(_SEARCHED_CHARACTERS))))

    @classmethod
    def is_structured(cls) -> ColumnElement[bool]:
        """The condition that a record is an event, or that its body is not text."""
        is_named = cls.attributes.op("?", is_comparison=True)(text("'event.name'"))
        return or_(cls.body_json.is_not(None), cls.event_name.is_not(None), is_named)

    @classmethod
    def severity(cls) -> ColumnElement[int | None]:
        """The severity number, or the number of ``severity_text`` if there is none."""
        named = case(SEVERITIES, value=func.upper(cls.severity_text))
        return func.coalesce(cls.severity_number, named)

    @classmethod
    def is_at_least(cls, least: Any, names: Any) -> ColumnElement[bool]:
        """The condition on `severity` that the index of errors can serve.

        Args:
            least: the least number.
            names: the names from this number on, as an array; see `severities.names_from`.
        """
        named = func.upper(cls.severity_text) == any_(names)
        return or_(cls.severity_number >= least, and_(cls.severity_number.is_(None), named))

    __table_args__ = (
        PrimaryKeyConstraint("timestamp", "id"),
        Index("ix_logs_service_name", "service_name", "timestamp"),
        Index("ix_logs_created_at", "created_at"),
        Index(
            "ix_logs_errors",
            "service_name",
            "timestamp",
            postgresql_where=text(IS_ERROR),
        ),
        Index(
            "ix_logs_trace_id",
            "trace_id",
            "timestamp",
            postgresql_where=text("trace_id IS NOT NULL"),
        ),
        # A search for words reads these records where it finds no index of their words.
        Index(
            "ix_logs_event_name",
            "event_name",
            "timestamp",
            postgresql_where=text(IS_STRUCTURED),
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )


# The index covers all rows, not only those with a body: PostgreSQL keeps no statistics of the
# expression of a partial index, and would estimate that each word occurs in 0.5 % of the records.
Index(
    "ix_logs_body",
    LogRecord.search_vector(LogRecord.__table__.c.body),
    postgresql_using="gin",
)


@event.listens_for(LogRecord, "before_update")
def _leave_frame(_mapper: object, _connection: object, row: LogRecord) -> None:
    """Note in the row that its whole values, which a session writes, stand in it from now on.

    The same as for spans, see `models.trace_spans`. A frame is found by the trace, so the values
    also come back when the record gets another one.
    """
    changing = ("attributes", "body_json", "trace_id")
    is_whole = vars(row).get("payload_frame", ...) is None and "body_json" in vars(row)
    if is_whole and any(get_history(row, name).has_changes() for name in changing):
        for name in ("payload_frame", "payload_digests"):
            set_committed_value(row, name, None)
            flag_modified(row, name)
        for name in ("attributes", "body_json"):
            flag_modified(row, name)
