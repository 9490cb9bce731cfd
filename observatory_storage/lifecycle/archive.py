"""Files that rows are written to before they are deleted: OTLP in JSON lines, in zstd.

A file gets its name when it is complete and on the disk. A run that is killed leaves a hidden
file, which the next run replaces. A complete file is never replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from observatory_storage.errors import ConfigError, StorageError
from observatory_storage.lifecycle.retention_results import ArchiveFile
from observatory_storage.lifecycle.stored_partitions import bound
from observatory_storage.otlp.compression import zstd_module

__all__ = ["Archive", "range_label"]

_ENDING: Final = ".jsonl.zst"


class Archive:
    """A directory of archived rows.

    Args:
        directory: it is made if it is not there.

    Raises:
        ConfigError: zstd is not installed, or the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._zstd = zstd_module()
        except ConfigError as error:
            raise ConfigError(f"retention.archive: {error}") from None
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(None, "Permission denied")
        except OSError as error:
            raise ConfigError(f"retention.archive: {directory}: {error.strerror}") from None

    def write(
        self, name: str, requests: Iterable[dict[str, Any]], items: Callable[[], int]
    ) -> ArchiveFile:
        """Write a file, and return when it is on the disk.

        Args:
            name: its name without the ending. If there is such a file, a number is added.
            requests: OTLP requests.
            items: tells how many items they have, when all have been written.

        Raises:
            StorageError: the file cannot be written.
        """
        partial = self._directory / f".{name}{_ENDING}.partial"
        try:
            with partial.open("wb") as file:
                with self._zstd.ZstdFile(file, "wb") as compressed:
                    for request in requests:
                        line = json.dumps(request, separators=(",", ":"))
                        compressed.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            path = self._free_path(name)
            partial.rename(path)
            self._sync_directory()
            return ArchiveFile(path, items(), path.stat().st_size)
        except StorageError:  # of which Timeout is an OSError too
            raise
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StorageError(f"the archive {partial} cannot be written: {error}") from error

    def _free_path(self, name: str) -> Path:
        numbered = (f"{name}-{number}" for number in count(2))
        paths = (self._directory / f"{each}{_ENDING}" for each in chain([name], numbered))
        return next(path for path in paths if not path.exists())

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def range_label(lower: datetime, upper: datetime) -> str:
    """A range in the name of a file: ``20260131``, ``20260131T0500-20260131T0600``."""
    if bound(lower) is None:
        return f"until-{_label(upper)}"
    if bound(upper) is None:
        return f"from-{_label(lower)}"
    if _is_midnight(lower) and (upper - lower).days == 1 and _is_midnight(upper):
        return _label(lower)
    return f"{_label(lower)}-{_label(upper)}"


def _is_midnight(moment: datetime) -> bool:
    return moment.timetz().replace(tzinfo=None) == datetime.min.time()


def _label(moment: datetime) -> str:
    return f"{moment:%Y%m%d}" if _is_midnight(moment) else f"{moment:%Y%m%dT%H%M%S}"
