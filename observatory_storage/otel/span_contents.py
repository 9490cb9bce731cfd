"""Contents of spans that a completion hook was given, until their exporter takes them."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from observatory_storage.processes import PerProcess

__all__ = ["SpanContents", "add_contents"]

_logger = logging.getLogger(__name__)

Key = tuple[int, int]
Contents = Mapping[str, bytes]

# What is held for spans that never come, because their processor dropped them.
MOST_BYTES: Final = 64 * 2**20
# About what Python needs to hold the key and the dictionary of a span, and a value of it.
_BYTES_OF_SPAN: Final = 350
_BYTES_OF_VALUE: Final = 50

_exporters: Final[list[weakref.ref[SpanContents]]] = []
_warned: Final[set[str]] = set()


class _Held:
    def __init__(self) -> None:
        # Reentrant, because the garbage collector may end a stream, and thus a call, anywhere.
        self.lock = threading.RLock()
        self.contents: OrderedDict[Key, Contents] = OrderedDict()
        self.size = 0


class SpanContents:
    """The contents that one exporter may take, by trace id and span id.

    They are held in memory from the end of a call until its span is exported. If they become more
    than `most_bytes`, the oldest are dropped. A forked child begins with none: the spans of its
    parent are not its to export.

    Args:
        most_bytes: bytes of contents that are held.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held = PerProcess(_Held)
        _exporters.append(weakref.ref(self, _exporters.remove))

    def __bool__(self) -> bool:
        """Whether contents are held, of whatever span."""
        return bool(self._held.get().contents)

    def add(self, key: Key, contents: Contents) -> None:
        """Hold contents. Those that a span has already are kept if they are not given again."""
        held = self._held.get()
        dropped: Contents | None = None
        with held.lock:
            former = held.contents.pop(key, {})
            whole = {**former, **contents}
            growth = _size(whole) - _size(former)
            held.contents[key] = whole
            held.size += growth
            while held.size > self._most_bytes:
                _, dropped = held.contents.popitem(last=False)
                shrinkage = _size(dropped)
                held.size -= shrinkage
        if dropped is not None:
            _warn_once(
                "Contents of spans were dropped, because more than %d bytes were waiting for their "
                "spans. Does a processor drop spans?",
                self._most_bytes,
            )

    def take(self, key: Key) -> dict[str, str]:
        """The attributes with the contents of a span, which are held no longer."""
        held = self._held.get()
        with held.lock:
            contents = held.contents.pop(key, {})
            shrinkage = _size(contents)
            held.size -= shrinkage
        return {name: value.decode() for name, value in contents.items()}


def add_contents(key: Key, contents: Contents) -> None:
    """Give the contents of a span to each exporter of this process."""
    found = [exporter for each in tuple(_exporters) if (exporter := each()) is not None]
    for exporter in found:
        exporter.add(key, contents)
    if not found:
        _warn_once(
            "The completion hook stores nothing: this process has no PostgresSpanExporter. "
            "Set OTEL_TRACES_EXPORTER=postgresql, or call observatory_storage.otel.configure()."
        )


def _size(contents: Contents) -> int:
    if not contents:
        return 0
    return _BYTES_OF_SPAN + sum(_BYTES_OF_VALUE + len(value) for value in contents.values())


def _warn_once(message: str, *args: object) -> None:
    if message not in _warned:
        _warned.add(message)
        _logger.warning(message, *args)
