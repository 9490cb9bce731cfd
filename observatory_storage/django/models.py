"""Models of the store's SQL views, to read with Django's ORM and in its admin.

Their columns are those of docs/sql-views.md. Django neither creates nor migrates them, and they
cannot be saved or deleted.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import models

from observatory_storage.django.store_names import database_alias, qualified

__all__ = ["Log", "Span", "Trace", "follow_schema"]

_VIEWS: Final = {
    "Trace": "observatory_traces",
    "Span": "observatory_spans",
    "Log": "observatory_logs",
}


class StoredManager(models.Manager):
    """Reads from the database that the store is in, also if that is not the default one."""

    def get_queryset(self) -> Any:
        """All rows."""
        queryset = super().get_queryset()
        alias = database_alias()
        return queryset if alias is None else queryset.using(alias)


class StoredModel(models.Model):
    """A row of a view, which can only be read."""

    objects = StoredManager()

    class Meta:
        """There is no table of this class."""

        abstract = True

    def save(self, *_: Any, **__: Any) -> None:
        """Refuse to.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} is a view of the store: write with a writer")

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        """Refuse to.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} is a view of the store: delete with a unit of work")


def _text(**options: Any) -> models.TextField:
    return models.TextField(null=True, blank=True, **options)


class Trace(StoredModel):
    """A trace with totals over its spans."""

    trace_id = models.UUIDField(primary_key=True)
    given_trace_id = models.TextField()
    name = _text()
    service_name = _text(verbose_name="service")
    start_time = models.DateTimeField(null=True)
    end_time = models.DateTimeField(null=True)
    duration_ms = models.FloatField(null=True)
    status = _text()
    status_message = _text()
    span_count = models.BigIntegerField(verbose_name="spans")
    error_count = models.BigIntegerField(verbose_name="errors")
    total_tokens = models.BigIntegerField(null=True, verbose_name="tokens")
    total_cost_usd = models.DecimalField(
        null=True, max_digits=38, decimal_places=18, verbose_name="cost (USD)"
    )
    last_span_start = models.DateTimeField(null=True)
    attributes = models.JSONField(null=True)
    resource_attributes = models.JSONField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        """The view."""

        managed = False
        db_table = qualified(_VIEWS["Trace"])
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.name or 'trace'} {self.trace_id.hex}"


class Span(StoredModel):
    """A span with its facts and attributes.

    The views have no single column that is unique. ``span_id`` is unique within its trace; look a
    span up by both.
    """

    span_id = models.TextField(primary_key=True)
    trace_id = models.UUIDField()
    parent_span_id = _text()
    name = models.TextField()
    kind = _text()
    service_name = _text(verbose_name="service")
    start_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True)
    duration_ms = models.FloatField(null=True)
    status = _text()
    status_message = _text()
    error_type = _text()
    operation = _text()
    provider = _text()
    model = _text()
    response_model = _text()
    agent_name = _text()
    tool_name = _text()
    finish_reason = _text()
    prompt_name = _text()
    user_id = _text(verbose_name="user")
    session_id = _text(verbose_name="session")
    environment = _text()
    is_model_call = models.BooleanField()
    prompt_tokens = models.BigIntegerField(null=True)
    completion_tokens = models.BigIntegerField(null=True)
    total_tokens = models.BigIntegerField(null=True, verbose_name="tokens")
    total_cost_usd = models.DecimalField(
        null=True, max_digits=38, decimal_places=18, verbose_name="cost (USD)"
    )
    ttft_ms = models.FloatField(null=True, verbose_name="time to first token (ms)")
    attributes = models.JSONField(null=True)
    payload_digests = models.JSONField(null=True)
    links = models.JSONField(null=True)
    resource_attributes = models.JSONField(null=True)
    scope_name = _text()
    scope_version = _text()

    class Meta:
        """The view."""

        managed = False
        db_table = qualified(_VIEWS["Span"])
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.name} {self.span_id}"


class Log(StoredModel):
    """A log record."""

    log_id = models.UUIDField(primary_key=True)
    timestamp = models.DateTimeField()
    level = models.TextField()
    service_name = _text(verbose_name="service")
    body = _text()
    body_json = models.JSONField(null=True)
    event_name = _text()
    trace_id = models.UUIDField(null=True)
    span_id = _text()
    attributes = models.JSONField(null=True)
    resource_attributes = models.JSONField(null=True)
    scope_name = _text()

    class Meta:
        """The view."""

        managed = False
        db_table = qualified(_VIEWS["Log"])
        default_permissions = ("view",)
        verbose_name = "log record"

    def __str__(self) -> str:
        return f"{self.level} {self.body or self.event_name or self.log_id}"


_MODELS: Final = (Trace, Span, Log)


def follow_schema() -> None:
    """Read from the schema that the settings name now: a test has overridden one."""
    for model in _MODELS:
        model._meta.db_table = qualified(_VIEWS[model.__name__])
        for field in model._meta.local_fields:
            field.__dict__.pop("cached_col", None)  # it has the name of the table
