"""Queries for sessions, which are groups of traces, with their totals."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import astuple
from typing import Final

from observatory_storage import SessionFilters, SessionSummary
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.reading.dataset import Dataset
from tests.benchmarks.reading.question import PAGE, Arguments, Hand, Question, Rows, window

__all__ = ["SESSIONS"]


def _user(data: Dataset, chance: random.Random) -> Arguments:
    return {"user_id": data.any_trace(chance).asked.user}


def _day(data: Dataset, chance: random.Random) -> Arguments:
    return window(data, chance, 1)


def _ask(uow: UnitOfWork, arguments: Arguments) -> Iterable[SessionSummary]:
    return uow.traces.list_sessions(SessionFilters(**arguments, limit=PAGE))


def _statement(last: str, conditions: str) -> str:
    """A page of sessions with totals. `last` selects the sessions and their last span times."""
    return f"""
        WITH last AS ({last} ORDER BY 1 DESC, 2 DESC LIMIT {PAGE + 1}),
        carrier AS MATERIALIZED (
            SELECT s.session_id, s.trace_id, s.start_time, s.user_id, s.service_name
            FROM trace_spans s WHERE s.session_id IS NOT NULL
              AND s.session_id = ANY (ARRAY(SELECT session_id FROM last)) {conditions}
        ),
        fact AS (
            SELECT session_id, min(start_time) AS first, max(start_time) AS last,
                   array_agg(DISTINCT user_id) FILTER (WHERE user_id IS NOT NULL) AS users,
                   array_agg(DISTINCT service_name) AS services
            FROM carrier GROUP BY session_id
        ),
        total AS (
            SELECT session_id, count(*) AS traces,
                   count(*) FILTER (WHERE status = 'error') AS failed,
                   sum(span_count) AS spans, sum(error_count) AS errors,
                   sum(total_tokens) AS tokens, sum(total_cost_usd) AS cost
            FROM (SELECT DISTINCT session_id, trace_id FROM carrier) one
            JOIN traces t ON t.id = one.trace_id
            GROUP BY session_id
        )
        SELECT session_id, f.first, f.last, f.users, f.services,
               traces, failed, spans, errors, tokens, cost
        FROM fact f JOIN total USING (session_id) ORDER BY f.last DESC, session_id DESC
    """


_OF_USER: Final = _statement(
    """
    SELECT max(start_time), session_id FROM trace_spans
    WHERE session_id IS NOT NULL AND session_id IN (
        SELECT session_id FROM trace_spans WHERE user_id = %(user_id)s AND session_id IS NOT NULL
    )
    GROUP BY session_id
    """,
    "",
)
_IN_TIME: Final = "AND s.start_time >= %(start_time)s AND s.start_time < %(end_time)s"
# For each span, newest first: does its session have a later span?
_OF_DAY: Final = _statement(
    f"""
    SELECT DISTINCT s.start_time, s.session_id FROM trace_spans s LEFT JOIN LATERAL (
        SELECT 1 AS found FROM trace_spans o
        WHERE o.session_id = s.session_id AND o.session_id IS NOT NULL
          AND o.start_time > s.start_time AND o.start_time < %(end_time)s
        LIMIT 1
    ) later ON true
    WHERE later.found IS NULL AND s.session_id IS NOT NULL {_IN_TIME}
    """,
    _IN_TIME,
)


def _by_hand_of_user(connection: Hand, arguments: Arguments) -> Rows:
    return _page(connection, _OF_USER, arguments)


def _by_hand_of_day(connection: Hand, arguments: Arguments) -> Rows:
    return _page(connection, _OF_DAY, arguments)


def _page(connection: Hand, statement: str, arguments: Arguments) -> Rows:
    found = connection.execute(statement, arguments).fetchall()[:PAGE]
    return [(*row[:3], tuple(row[3] or ()), tuple(row[4]), *row[5:]) for row in found]


def _rows(page: Iterable[SessionSummary]) -> Rows:
    return [astuple(one) for one in page]


SESSIONS: Final = (
    Question("sessions of a user", _user, _ask, _by_hand_of_user, _rows),
    Question("sessions of a day, the last active first", _day, _ask, _by_hand_of_day, _rows),
)
