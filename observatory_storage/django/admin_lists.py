"""Lists of the admin over tables of any size: they count nothing, and read one page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Page, Paginator
from django.db import DataError
from django.utils import timezone

from observatory_storage import ids
from observatory_storage.django.app_pool import unit_of_work
from observatory_storage.errors import StorageError, ValidationError

__all__ = [
    "OpenEndedPaginator",
    "PeriodFilter",
    "ServiceFilter",
    "StatusFilter",
    "UncountedChangeList",
    "page_number_in",
    "span_id_in",
    "trace_id_in",
]

_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_MOST_DIGITS: Final = 9  # of the number of a page, since PostgreSQL counts rows in a bigint


def trace_id_in(text: str) -> Any:
    """The trace whose id was typed, in any of its usual forms; None if the text is no id."""
    plain = text.strip().replace("-", "").lower()
    try:
        return ids.trace_uuid(plain) if _ID.fullmatch(plain) else None
    except ValidationError:  # all zeros
        return None


def span_id_in(text: str) -> str | None:
    """The text if it is the id of a span."""
    return text if _SPAN_ID.fullmatch(text) else None


def page_number_in(text: str) -> int:
    """The number of a page; the first for a text that is none.

    Raises:
        IncorrectLookupParameters: the number is too large.
    """
    if not text.isdecimal():
        return 1
    if len(text) > _MOST_DIGITS:
        raise IncorrectLookupParameters("there are not so many pages")
    return int(text)


class OpenEndedPaginator(Paginator):
    """Reads the rows of one page and one more, by which it knows whether another page follows.

    So its count is that of the rows up to there.
    """

    def __init__(self, rows: Any, per_page: int, page_number: int) -> None:
        super().__init__(rows, per_page)
        self._page_number = max(1, page_number)

    @cached_property
    def _rows(self) -> list[Any]:
        start = (self._page_number - 1) * self.per_page
        return list(self.object_list[start : start + self.per_page + 1])

    @cached_property
    def count(self) -> int:
        """The number of rows up to the end of this page, and one if more follow."""
        before: int = (self._page_number - 1) * self.per_page
        return before + len(self._rows)

    def page(self, number: Any) -> Page:
        """The page that was read."""
        return self._get_page(self._rows[: self.per_page], self.validate_number(number), self)


class UncountedChangeList(ChangeList):
    """A list with links to newer and older rows instead of the number of all pages."""

    def get_results(self, request: Any) -> None:
        """Read the page.

        Raises:
            IncorrectLookupParameters: PostgreSQL cannot compare with a parameter, such as a text
                with a NUL. Django then leads back to the whole list.
        """
        try:
            super().get_results(request)
        except DataError as error:
            raise IncorrectLookupParameters(error) from error
        # The number of results is not known; the search form shows none if these are equal.
        self.full_result_count = self.result_count
        has_older = self.result_count > self.page_num * self.list_per_page
        self.newer_link = self._link_to(self.page_num - 1) if self.page_num > 1 else None
        self.older_link = self._link_to(self.page_num + 1) if has_older else None

    def _link_to(self, number: int) -> str:
        return str(self.get_query_string({PAGE_VAR: number}))

    def url_for_result(self, result: Any) -> str:
        """The page of a row, by the key that its admin looks it up by."""
        return str(self.model_admin.url_of(result))


class PeriodFilter(SimpleListFilter):
    """Rows of the last week, or of another time: PostgreSQL reads the partitions of that alone."""

    title = "time"
    parameter_name = "period"
    _PERIODS: Final = {
        "hour": ("Past hour", timedelta(hours=1)),
        "day": ("Past day", timedelta(days=1)),
        "week": ("Past 7 days", timedelta(days=7)),
        "month": ("Past 30 days", timedelta(days=30)),
        "any": ("Any time", None),
    }
    _DEFAULT: Final = "week"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """The periods."""
        del request
        self._column = model_admin.time_column
        return [(name, title) for name, (title, _) in self._PERIODS.items()]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The periods, one of which always holds."""
        chosen = self._chosen()
        for name, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: name})
            yield {"selected": name == chosen, "query_string": query, "display": title}

    def queryset(self, request: Any, queryset: Any) -> Any:
        """The rows of the period. A trace that is searched by its id may be of any time."""
        length = self._PERIODS[self._chosen()][1]
        if length is None or trace_id_in(request.GET.get("q", "")) is not None:
            return queryset
        return queryset.filter(**{f"{self._column}__gte": timezone.now() - length})

    def _chosen(self) -> str:
        value = self.value()
        return value if value in self._PERIODS else self._DEFAULT


class StatusFilter(SimpleListFilter):
    """Rows with a status."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """The statuses of OpenTelemetry."""
        del request, model_admin
        return [("error", "error"), ("ok", "ok"), ("unset", "unset")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        """The rows with the status."""
        del request
        value = self.value()
        if not value:
            return queryset
        if value not in dict(self.lookup_choices):
            raise IncorrectLookupParameters(f"status={value!r}: there is no such status")
        return queryset.filter(status=value)


class ServiceFilter(SimpleListFilter):
    """Rows of a service. The store has an index to find their names without reading all rows."""

    title = "service"
    parameter_name = "service_name"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """The services that have spans."""
        del request, model_admin
        try:
            with unit_of_work() as uow:
                return [(name, name) for name in uow.traces.services()]
        except StorageError:
            return []  # the list itself tells what is wrong

    def queryset(self, request: Any, queryset: Any) -> Any:
        """The rows of the service."""
        del request
        return queryset.filter(service_name=self.value()) if self.value() else queryset
