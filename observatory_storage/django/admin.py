"""Traces, spans and log records in Django's admin, to read only."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.views.main import PAGE_VAR
from django.db import ProgrammingError
from django.db.models import Q
from django.http import HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html

from observatory_storage.django.admin_lists import (
    OpenEndedPaginator,
    PeriodFilter,
    ServiceFilter,
    StatusFilter,
    UncountedChangeList,
    page_number_in,
    span_id_in,
    trace_id_in,
)
from observatory_storage.django.app_pool import unit_of_work
from observatory_storage.django.models import Log, Span, Trace
from observatory_storage.django.store_names import database_alias
from observatory_storage.errors import NotFound, StorageError

__all__ = ["LogAdmin", "SpanAdmin", "TraceAdmin"]

_MOST_SPANS: Final = 2000
_BAR_PIXELS: Final = 200
_MOST_OF_TEXT: Final = 200  # the characters of a message in a list


def pretty(value: Any) -> str:
    """JSON as text in lines."""
    if not value:
        return "-"
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return str(format_html("<pre>{}</pre>", text))


class StoredAdmin(admin.ModelAdmin):
    """The admin of a view of the store: nothing can be added, changed or deleted.

    Attributes:
        time_column: the column that rows are ordered by, which the store has an index on.
        json_columns: the columns that are shown as lines of JSON.
    """

    time_column = "start_time"
    json_columns: tuple[str, ...] = ("attributes", "resource_attributes")
    actions = None
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()  # by no column but the one with an index
    search_fields = ("name",)

    def has_add_permission(self, request: Any) -> bool:
        """Never."""
        del request
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Never."""
        del request, obj
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Never."""
        del request, obj
        return False

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        """With the permission, if Django can reach the store's database."""
        return database_alias() is not None and bool(super().has_view_permission(request, obj))

    def has_module_permission(self, request: Any) -> bool:
        """The same as for the lists."""
        return self.has_view_permission(request)

    def get_ordering(self, request: Any) -> tuple[str, ...]:
        """The newest first."""
        del request
        return (f"-{self.time_column}",)

    def get_paginator(self, request: Any, queryset: Any, per_page: int, *_: Any, **__: Any) -> Any:
        """One that reads a page and counts nothing."""
        number = page_number_in(request.GET.get(PAGE_VAR, ""))
        return OpenEndedPaginator(queryset, per_page, number)

    def get_changelist(self, request: Any, **_: Any) -> type[UncountedChangeList]:
        """The list that goes with the paginator."""
        del request
        return UncountedChangeList

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """The list, or what to do if the store has no tables yet."""
        try:
            return super().changelist_view(request, extra_context)
        except ProgrammingError as error:
            text = f"The store cannot be read. Is it migrated? manage.py observatory_check: {error}"
            messages.error(request, text)
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:index"))

    def get_fields(self, request: Any, obj: Any = None) -> list[str]:
        """All columns, those of JSON as lines."""
        del request, obj
        shown = {name: f"{name}_lines" for name in self.json_columns}
        names = (field.name for field in self.model._meta.local_fields)
        return [shown.get(name, name) for name in names]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        """All that are shown."""
        return self.get_fields(request, obj)

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> Any:
        """The rows of the trace with the id, or those that match the text."""
        del request
        trace_id = trace_id_in(search_term)
        if trace_id is not None:
            return queryset.filter(trace_id=trace_id), False
        return queryset.filter(self.matching(search_term)) if search_term else queryset, False

    def matching(self, text: str) -> Q:
        """The rows that a text finds."""
        return Q(**{f"{self.search_fields[0]}__icontains": text})

    def url_of(self, row: Any) -> str:
        """The page of the row."""
        return self._page_of(self.model, row.pk)

    def _page_of(self, model: Any, key: object) -> str:
        name = f"{self.admin_site.name}:observatory_{model._meta.model_name}_change"
        return str(reverse(name, args=(key,)))

    @admin.display(description="attributes")
    def attributes_lines(self, row: Any) -> str:
        """The attributes as lines."""
        return pretty(row.attributes)

    @admin.display(description="resource")
    def resource_attributes_lines(self, row: Any) -> str:
        """The attributes of the resource as lines."""
        return pretty(row.resource_attributes)


class StoredInTraceAdmin(StoredAdmin):
    """The admin of a view whose rows belong to a trace."""

    def get_fields(self, request: Any, obj: Any = None) -> list[str]:
        """All columns, with a link to the trace."""
        names = super().get_fields(request, obj)
        return ["trace", *(name for name in names if name not in ("trace_id", "payload_digests"))]

    @admin.display(description="trace")
    def trace(self, row: Any) -> str:
        """A link to the trace."""
        if row.trace_id is None:
            return "-"
        link = self._page_of(Trace, row.trace_id)
        return str(format_html('<a href="{}">{}</a>', link, row.trace_id.hex))


@admin.register(Trace)
class TraceAdmin(StoredAdmin):
    """Traces, and on the page of a trace its spans."""

    list_display = (
        *("name", "service_name", "start_time", "duration", "status", "span_count"),
        *("error_count", "total_tokens", "total_cost_usd"),
    )
    list_filter = (PeriodFilter, StatusFilter, ServiceFilter)
    search_help_text = "An id, or a part of the name"

    def get_fields(self, request: Any, obj: Any = None) -> list[str]:
        """The spans, then all columns."""
        return ["spans", *super().get_fields(request, obj)]

    @admin.display(description="duration")
    def duration(self, trace: Trace) -> str:
        """The duration in milliseconds."""
        return _milliseconds(trace.duration_ms)

    @admin.display(description="spans")
    def spans(self, trace: Trace) -> str:
        """The spans as a tree, with links to their pages."""
        if trace.span_count > _MOST_SPANS:
            return f"{trace.span_count} spans: manage.py observatory trace {trace.trace_id.hex}"
        try:
            with unit_of_work() as uow:
                tree = uow.traces.get_tree(trace.trace_id)
        except NotFound:
            return "no spans"
        except StorageError as error:
            return f"the spans cannot be read: {error}"
        scale = _BAR_PIXELS / max(1, tree.duration_ns)
        rows = [
            {
                "span": node.span,
                "indent": "\u2003" * node.depth,
                "link": self._page_of(Span, _key_of(node.span)),
                "duration": _milliseconds(node.duration_ns and node.duration_ns / 1e6),
                "left": f"{node.offset_ns * scale:.1f}",
                "width": f"{max(1.0, (node.duration_ns or 0) * scale):.1f}",
            }
            for node in tree.nodes
        ]
        context = {"rows": rows, "all": _BAR_PIXELS}
        return str(render_to_string("admin/observatory/spans.html", context))


@admin.register(Span)
class SpanAdmin(StoredInTraceAdmin):
    """Spans."""

    json_columns = ("attributes", "resource_attributes", "links")
    list_display = (
        *("name", "service_name", "start_time", "duration", "status", "model"),
        *("total_tokens", "total_cost_usd", "trace"),
    )
    list_filter = (PeriodFilter, StatusFilter, ServiceFilter)
    search_help_text = "The id of a trace, a part of the name, or a model, user or session"

    def get_queryset(self, request: Any) -> Any:
        """Spans without their large columns, which only the page of one needs."""
        return super().get_queryset(request).defer("attributes", "links", "resource_attributes")

    def matching(self, text: str) -> Q:
        """The spans whose names have the text, or one of whose facts is the text."""
        facts = Q(model=text) | Q(user_id=text) | Q(session_id=text)
        return facts | super().matching(text)

    def get_object(self, request: Any, object_id: str, from_field: Any = None) -> Any:
        """The span by the ids of its trace and its own."""
        del from_field
        first, _, last = object_id.partition(":")
        trace_id, span_id = trace_id_in(first), span_id_in(last)
        if trace_id is None or span_id is None:
            return None
        # Whole, since Django would load a column that is left out by the span's own id alone.
        spans = self.get_queryset(request).defer(None)
        return spans.filter(trace_id=trace_id, span_id=span_id).first()

    def url_of(self, row: Any) -> str:
        """The page of the span, by the ids of its trace and its own."""
        return self._page_of(Span, _key_of(row))

    @admin.display(description="duration")
    def duration(self, span: Span) -> str:
        """The duration in milliseconds."""
        return _milliseconds(span.duration_ms)

    @admin.display(description="attributes")
    def attributes_lines(self, row: Span) -> str:
        """The attributes as lines. Large values, which the view has as previews, are read whole."""
        if not row.payload_digests:
            return pretty(row.attributes)
        try:
            with unit_of_work() as uow:
                return pretty(uow.traces.get_span(row.trace_id, row.span_id).attributes)
        except StorageError:
            return pretty(row.attributes)

    @admin.display(description="links")
    def links_lines(self, row: Span) -> str:
        """The links as lines."""
        return pretty(row.links)


@admin.register(Log)
class LogAdmin(StoredInTraceAdmin):
    """Log records."""

    time_column = "timestamp"
    json_columns = ("attributes", "resource_attributes", "body_json")
    list_display = ("timestamp", "level", "service_name", "text", "trace")
    list_filter = (PeriodFilter, ServiceFilter)
    search_fields = ("body",)
    search_help_text = "The id of a trace, or a part of the text"

    @admin.display(description="message")
    def text(self, record: Log) -> str:
        """The message, shortened."""
        text = record.body or record.event_name or json.dumps(record.body_json, ensure_ascii=False)
        return text if len(text) <= _MOST_OF_TEXT else f"{text[:_MOST_OF_TEXT]}…"

    @admin.display(description="body")
    def body_json_lines(self, row: Log) -> str:
        """The body as lines."""
        return pretty(row.body_json)


def _key_of(span: Any) -> str:
    return f"{span.trace_id.hex}:{span.span_id}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"
