"""A directory of files that hold prepared rows until the database can take them.

Every spool writes its own files and holds a lock (``flock``) on each. The kernel releases the lock
when the process ends, even by SIGKILL. So a file that is not locked has no owner, and another spool
may adopt it. A row is in the spool when its file has been synced to disk. A file is removed when
all of its rows are done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from observatory_storage.errors import ConfigError, StorageError
from observatory_storage.rows import Row
from observatory_storage.writers.spool import line_format

if sys.platform != "win32":
    import fcntl

__all__ = ["Chunk", "Spool"]

_log = logging.getLogger(__name__)
_SUFFIX: Final = ".spool"
_SET_ASIDE: Final = ".corrupt"
_LOCK: Final = ".lock"
# A file is removed as a whole, so that small ones give room back early.
_FILE_BYTES: Final = 8 * 1024 * 1024
_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700


class _File:
    """A file that this spool has locked.

    Attributes:
        size: the number of bytes with rows, all synced.
        position: the offset of the first row that is not done.
        own: whether this spool wrote the file; False if it was adopted.
        growing: whether more rows may be appended.
        damaged: the number of lines that could not be read.
    """

    __slots__ = ("damaged", "descriptor", "growing", "own", "path", "position", "size")

    def __init__(self, path: Path, descriptor: int, *, own: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0 if own else os.fstat(descriptor).st_size
        self.position = 0
        self.own = self.growing = own
        self.damaged = 0


class Chunk(NamedTuple):
    """The next rows of a spool. After writing them, pass the chunk to `Spool.done`.

    Attributes:
        rows: the rows; empty if none of the lines could be read.
        own: whether this spool wrote the rows; False if they were adopted.
        damaged: the number of lines that could not be read.
    """

    rows: list[Row]
    own: bool
    damaged: int
    file: _File
    end: int


class Spool:
    """A queue of rows on disk, first in, first out. It is thread-safe.

    Args:
        directory: the directory of the files. Other spools may share it, also those of other
            processes.
        target: names the database and schema. Only files with the same target are adopted.
        max_bytes: the maximum total size of all files in the directory.
    """

    def __init__(self, directory: Path, target: str, max_bytes: int) -> None:
        self._directory = directory
        self._ending = f".{zlib.crc32(target.encode()):08x}{_SUFFIX}"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._files: list[_File] = []
        self._last_created = 0

    def __repr__(self) -> str:
        return f"<Spool {self._directory}>"

    @property
    def empty(self) -> bool:
        """Whether the spool has no files."""
        return not self._files

    # `waiting_bytes` and `holds_own` copy the list, because another thread may remove files from
    # it.
    @property
    def waiting_bytes(self) -> int:
        """The number of bytes in its files that are not done."""
        return sum(file.size - file.position for file in tuple(self._files))

    def holds_own(self) -> bool:
        """Whether it contains rows that this spool wrote itself."""
        return any(file.own for file in tuple(self._files))

    def prepare(self) -> None:
        """Create the directory if it is missing, accessible to this user only.

        Raises:
            StorageError: the directory cannot be created or used.
        """
        if sys.platform == "win32":
            raise ConfigError("spool_dir: a spool needs the file locks of POSIX")
        with self._translated("be used"):
            if not self._directory.is_dir():
                self._directory.mkdir(_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
                _sync(self._directory.parent)
            with self._alone():
                pass

    def append(self, rows: Sequence[Row]) -> int:
        """Append rows. When the method returns, they are on disk.

        Returns how many texts were repaired because UTF-8 cannot hold them.

        Raises:
            StorageError: the size limit is reached, or the disk failed. None of the rows is stored.
        """
        encoded = [line_format.encode(row) for row in rows]
        data = b"".join([line for line, _ in encoded])
        with self._lock, self._translated("take rows"):
            with self._alone():
                self._check_space(len(data))
                file = self._growing() or self._create()
            try:
                _write(file.descriptor, data, file.size)
                os.fsync(file.descriptor)
                if file.size == 0:
                    _sync(self._directory)
            except OSError:
                # What a failed sync leaves on the disk is not known: nothing more goes in there.
                file.growing = False
                with contextlib.suppress(OSError):
                    os.ftruncate(file.descriptor, file.size)
                    if file.size == 0:
                        self._remove(file)
                raise
            file.size += len(data)
        return sum([repairs for _, repairs in encoded])

    def adopt(self) -> bool:
        """Adopt the files whose owners are gone, the oldest first; True if there were any.

        Raises:
            StorageError: the directory cannot be read.
        """
        with self._lock, self._translated("be read"), self._alone():
            held = {file.path.name for file in self._files}
            found = [
                file
                for path in sorted(self._directory.iterdir())
                if path.name.endswith(self._ending) and path.name not in held
                if (file := _adopted(path)) is not None
            ]
            # By their names, they are older than this spool's own files, so they come first.
            self._files[:0] = found
        return bool(found)

    def read(self, rows: int) -> Chunk | None:
        """Read about this many of the oldest rows that are not done; None if there are none.

        Events count as rows.

        Raises:
            StorageError: the disk failed.
        """
        with self._lock, self._translated("be read"):
            if not self._files:
                return None
            file = self._files[0]
            length = file.size - file.position
            data = os.pread(file.descriptor, length, file.position)
            found: list[Row] = []
            unknown: frozenset[str] = frozenset()
            weight = damaged = end = 0
            for record in line_format.read(data):
                end = min(record.end, length)
                if record.row is not None:
                    found.append(record.row)
                    weight += 1 + len(record.row.events or ())
                    unknown |= record.unknown
                elif record.torn:
                    _log.warning("%s ends within a row: its writer was killed", file.path)
                else:
                    damaged += 1
                    _log.warning("%s has a line that cannot be read: %s", file.path, record.problem)
                if weight >= rows:
                    break
            else:
                end = length
            if unknown:
                columns = ", ".join(sorted(unknown))
                _log.warning("%s has columns that are not written any more: %s", file.path, columns)
            return Chunk(found, file.own, damaged, file, file.position + end)

    def done(self, chunk: Chunk) -> None:
        """Remove the rows of the chunk, which were committed or refused for their data.

        Raises:
            StorageError: the disk failed; the rows will be read again.
        """
        file = chunk.file
        with self._lock, self._translated("be emptied"):
            if file not in self._files:  # released meanwhile: it will be read again from its start
                return
            file.position = chunk.end
            file.damaged += chunk.damaged
            if file.position >= file.size:
                self._remove(file)

    def release(self) -> None:
        """Unlock all files, so that another spool may adopt them."""
        with self._lock:
            while self._files:
                os.close(self._files.pop().descriptor)

    def abandon(self) -> None:
        """Forget all files in a forked child: they belong to the parent, which keeps its locks."""
        # Without the lock, which a thread of the parent may have held at the fork.
        for file in self._files:
            os.close(file.descriptor)
        self._files = []

    # -- files -----------------------------------------------------------------------------------

    def _growing(self) -> _File | None:
        last = self._files[-1] if self._files else None
        if last is None or not last.growing or last.size >= _FILE_BYTES:
            return None
        # Rows written to a file that was removed would be lost.
        return last if os.fstat(last.descriptor).st_nlink else None

    def _create(self) -> _File:
        self._last_created = max(time.time_ns(), self._last_created + 1)
        name = f"{self._last_created:020d}-{os.getpid()}-{secrets.token_hex(4)}{self._ending}"
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        file = _File(path, descriptor, own=True)
        self._files.append(file)
        return file

    def _remove(self, file: _File) -> None:
        with contextlib.suppress(FileNotFoundError):
            if file.damaged:
                aside = file.path.with_name(file.path.name + _SET_ASIDE)
                file.path.rename(aside)
                _log.error("%d lines could not be read; kept as %s", file.damaged, aside)
            else:
                file.path.unlink()
        self._files.remove(file)
        os.close(file.descriptor)

    def _check_space(self, needed: int) -> None:
        used = 0
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # just removed by its owner
                used += path.lstat().st_size
        if used + needed > self._max_bytes:
            raise StorageError(
                f"the spool {self._directory} is full: {used} bytes are in use and {needed} more"
                f" are needed, spool_max_bytes={self._max_bytes}",
                retryable=True,
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the directory's lock: no other process creates, adopts or measures files."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self._directory / _LOCK, flags, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Not by closing alone: a child that was forked meanwhile has it open too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextmanager
    def _translated(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"the spool {self._directory} cannot {purpose}: {error.strerror or error}"
            raise StorageError(message, retryable=True) from error


def _adopted(path: Path) -> _File | None:
    """The file, unless another process holds its lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):  # another user's, perhaps
            _log.warning("%s cannot be adopted: %s", path, error.strerror)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        # Its owner may have removed it between the two calls.
        if status.st_nlink and stat.S_ISREG(status.st_mode):
            return _File(path, descriptor, own=False)
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _write(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        position += written
        view = view[written:]


def _sync(directory: Path) -> None:
    """Sync the directory, so that new files survive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
