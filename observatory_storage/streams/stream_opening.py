"""Checks the arguments of `StoragePool.stream`, and opens the stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from sqlalchemy import Engine

from observatory_storage.config import STREAM_SIGNALS
from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.repositories.reading import validation
from observatory_storage.streams.entry_sources import ConsumerSource, EntrySource, StreamSource
from observatory_storage.streams.live_stream import LiveStream, StreamGap
from observatory_storage.streams.row_selection import FILTERS, Selection, Store
from observatory_storage.streams.stream_client import stream_client
from observatory_storage.streams.streamed_signals import STREAMED, key_prefix

__all__ = ["StreamStore", "callback", "open_stream", "seconds"]

_RESUME_ID: Final = re.compile(r"(\d{1,19}-\d{1,19})(?::(\d{1,4}))?")


class StreamStore(Store, Protocol):
    """The attributes of a pool that streams need."""

    @property
    def engine(self) -> Engine: ...
    @property
    def schema(self) -> str: ...


def open_stream(
    store: StreamStore,
    signal: Any,
    filters: Any,
    fields: Mapping[str, Any],
    *,
    after: str | None,
    group: str | None,
    consumer: str | None,
    timeout: Any,
    claim_after: Any,
    on_gap: Callable[[StreamGap], object] | None,
) -> LiveStream[Any]:
    """Open a stream; see `StoragePool.stream`."""
    validation.required_text("signal", signal)
    validation.choice("signal", signal, STREAM_SIGNALS)
    if "limit" in fields:
        raise ValidationError("limit", fields["limit"], "does not apply to a stream")
    callback("on_gap", on_gap)
    wanted = FILTERS[signal].of(filters, fields)
    if store.config.redis.url is None:
        raise ConfigError("redis.url: a stream needs Redis; tail() works without it")
    key = STREAMED[signal].key(key_prefix(store.engine, store.schema))
    entry_id, first = _position(after)
    source: EntrySource
    if group is None:
        if consumer is not None:
            raise ValidationError("consumer", consumer, "needs group")
        source = StreamSource(key, entry_id, first)
    else:
        for name, value in (("group", group), ("consumer", consumer)):
            if value is not None and not validation.required_text(name, value):
                raise ValidationError(name, value, "must not be empty")
        if first:
            raise ValidationError("after", after, "must be $ or 0 with a group")
        held = seconds("claim_after", claim_after)
        source = ConsumerSource(key, entry_id, group, consumer, held)
    return LiveStream(
        stream_client(store.config.redis, blocks=True),
        STREAMED[signal],
        source,
        Selection(store, STREAMED[signal], wanted),
        timeout_secs=None if timeout is None else seconds("timeout", timeout),
        on_gap=on_gap,
    )


def seconds(field: str, value: Any) -> float:
    """A positive duration in seconds, given as a number of them or as a timedelta."""
    return validation.bucket(field, value).total_seconds()


def callback(field: str, value: Any, *, required: bool = False) -> None:
    """Refuse what cannot be called."""
    if not callable(value) and (required or value is not None):
        raise ValidationError(field, value, "must be callable")


def _position(after: Any) -> tuple[str, int]:
    if after is None or after in ("$", "0"):
        return after or "$", 0
    match = _RESUME_ID.fullmatch(after) if isinstance(after, str) else None
    if match is None:
        raise ValidationError("after", after, "must be $, 0 or the id of an entry")
    return match[1], int(match[2] or 0)
