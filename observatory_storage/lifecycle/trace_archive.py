"""Archives traces, and deletes those that have not changed since they were read.

The versions of a trace's rows are read before it is exported. It is deleted while it is locked, if
the versions are still the same: so nobody has added to it since. The others are archived once more,
into another file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.errors import NotFound, translated
from observatory_storage.lifecycle.archive import Archive, range_label
from observatory_storage.lifecycle.retention_results import ArchiveFile
from observatory_storage.lifecycle.trace_expiry import ExpiredTrace, TraceExpiry
from observatory_storage.models import Trace
from observatory_storage.otlp.export import export_traces
from observatory_storage.otlp.trace_values import trace_values_request
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.transaction import Source
from observatory_storage.tables import TRACES
from observatory_storage.wording import counted

__all__ = ["archive_and_delete"]

_IN_A_FILE: Final = 100_000
_EXPORTED_AT_A_TIME: Final = 100
# Writers of these traces wait while their versions are compared.
_DELETED_AT_A_TIME: Final = 1_000
_SPANS_OF_A_REQUEST: Final = 200
_ATTEMPTS: Final = 5
_T = TypeVar("_T")
_Versions = tuple[Any, ...]


def archive_and_delete(
    expiry: TraceExpiry, archive: Archive, lower: datetime, upper: datetime
) -> tuple[list[ArchiveFile], bool]:
    """Archive and delete the traces that are old enough and start before the end of a range.

    Args:
        expiry: deletes them.
        archive: where files are written.
        lower, upper: the range, which the names of the files have.

    Returns:
        The files, and whether all such traces are gone. Those that keep changing stay until the
        next run.
    """
    source = expiry.run.source
    files: list[ArchiveFile] = []
    for _ in range(_ATTEMPTS):
        while True:
            traces = _unspared(expiry, upper)
            if not traces:
                return files, True
            if expiry.run.deadline.is_over:
                return files, False
            content = _Content(source, traces)
            name = f"traces-{range_label(lower, upper)}"
            files.append(archive.write(name, content.requests(), content.count))
            expiry.run.progress(
                f"archived {counted(content.count(), 'trace')} in {files[-1].path.name}"
            )
            before = expiry.deleted
            for some in _chunks(traces, _DELETED_AT_A_TIME):
                expiry.delete(some, content.unchanged)
            if expiry.deleted - before < len(traces):
                break  # some have changed meanwhile
    return files, True


def _unspared(expiry: TraceExpiry, until: datetime) -> list[ExpiredTrace]:
    """The traces that go, at most as many as one file has."""
    found: list[ExpiredTrace] = []
    for traces in expiry.batches(_DELETED_AT_A_TIME, until):
        with translated(), expiry.run.source.engine.connect() as connection:
            kept = expiry.spared(connection, [trace.id for trace in traces])
        found += [trace for trace in traces if trace.id not in kept]
        if len(found) >= _IN_A_FILE:
            break
    return found


class _Content:
    """The content of one file, with the versions of the rows in it."""

    def __init__(self, source: Source, traces: Sequence[ExpiredTrace]) -> None:
        self._source = source
        self._traces = traces
        self._versions: dict[UUID, _Versions] = {}
        self._statement = _versions_of_traces(source.schema)

    def count(self) -> int:
        return len(self._versions)

    def requests(self) -> Iterator[dict[str, Any]]:
        for traces in _chunks(self._traces, _EXPORTED_AT_A_TIME):
            yield from self._requests_of(traces)

    def unchanged(self, connection: sa.Connection, traces: Sequence[ExpiredTrace]) -> set[UUID]:
        """The traces among these that are as they were archived."""
        now = self._read(connection, traces)
        return {key for key, versions in now.items() if self._versions.get(key) == versions}

    def _requests_of(self, traces: Sequence[ExpiredTrace]) -> Iterator[dict[str, Any]]:
        while True:
            with translated(), self._source.engine.connect() as connection:
                versions = self._read(connection, traces)
                own = list(map(dict, connection.execute(_OWN, {"ids": list(versions)}).mappings()))
            if not versions:
                return
            exported = export_traces(
                self._source, ids=list(versions), batch_size=_SPANS_OF_A_REQUEST
            )
            try:
                first = next(exported, None)
            except NotFound:
                continue  # one was deleted meanwhile: without it, once more
            self._versions |= versions
            if first is not None:
                yield first
            yield from exported
            if own:
                yield trace_values_request(own)
            return

    def _read(
        self, connection: sa.Connection, traces: Sequence[ExpiredTrace]
    ) -> dict[UUID, _Versions]:
        given = {
            "ids": [trace.id for trace in traces],
        }
        return {key: tuple(rest) for key, *rest in connection.execute(self._statement, given)}


# The traces with values that no span determines.
_OWN: Final = sa.select(*(TRACES.table.c[name] for name in TRACES.columns)).where(
    Trace.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(Trace.id.type))),
    sa.or_(
        Trace.lead_span_id.is_(None),
        Trace.status_message.is_not(None),
        Trace.attributes != {},
        Trace.resource_attributes != {},
    ),
)


def _versions_of_traces(schema: str) -> sa.TextClause:
    """For each trace: the version of its row, the counts of its spans and events, their versions.

    The counts are taken within the present bounds of the trace.
    """
    quoted = quoted_name(schema)
    version = "CAST(CAST({}.xmin AS text) AS bigint)"

    def of(table: str, start: str) -> str:
        return (
            f"LATERAL (SELECT count(*), sum({version.format('r')}) FROM {quoted}.{table} r"  # noqa: S608
            f" WHERE r.trace_id = t.id AND r.{start} BETWEEN t.start_time"
            f" AND coalesce(t.last_span_start, t.start_time)) AS {table} (number, versions)"
        )

    return sa.text(
        f"SELECT t.id, {version.format('t')}, trace_spans.number, trace_spans.versions,"  # noqa: S608
        " trace_events.number, trace_events.versions"
        f" FROM {quoted}.traces t, {of('trace_spans', 'start_time')},"
        f" {of('trace_events', 'span_start_time')}"
        " WHERE t.id = ANY(CAST(:ids AS uuid[]))"
    )


def _chunks(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some
