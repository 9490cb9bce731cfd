"""A process that writes its share of a workload, in threads, and tells how far it is."""

from __future__ import annotations

import logging
import multiprocessing as mp
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from observatory_storage.config import PoolConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.errors import StorageError, Timeout
from observatory_storage.pool import StoragePool
from observatory_storage.writers import TraceWriter, WriterConfig, WriteStats
from tests.soak.workload import Workload
from tests.writers.helpers import Row

__all__ = ["Process", "Report", "Task", "running", "until"]

_CHUNK: Final = 20
_CHUNKS_A_FLUSH: Final = 10
_ALL: Final = 2**62  # rounds: to the end
_T = TypeVar("_T")
# A process that has imported all this, from which others fork: each starts at once.
_SERVER: Final = mp.get_context("forkserver")


@dataclass(frozen=True)
class Task:
    """What a process is to write.

    Attributes:
        first: the number of its first thread among all the writers of the workload.
        done: for each of its threads, how many spans of its share are done with already.
        acknowledge: flush after every round, tell how many those are now, and go on only as far
            as allowed.
    """

    url: str
    workload: Workload
    first: int
    threads: int
    config: WriterConfig
    retry: RetryConfig
    deadline_secs: float
    done: tuple[int, ...] = ()
    acknowledge: bool = False
    statement_timeout_ms: int = 0


@dataclass
class Report:
    """What a process says of itself at its end."""

    committed: int
    spooled: int
    sent: int
    stats: WriteStats


@dataclass
class Process:
    """A writing process, seen from outside.

    Attributes:
        sent: how many spans it has handed to its writer.
        done: for each thread, how many of them a flush has acknowledged.
        flushes: how many flushes it has told of.
    """

    task: Task
    sent: int = 0
    done: tuple[int, ...] = ()
    flushes: int = 0
    report: Report | None = None
    failure: str | None = None
    _messages: Connection = field(init=False)
    _gate: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.task.done or (0,) * self.task.threads
        self._messages, theirs = _SERVER.Pipe(duplex=False)
        their_gate, self._gate = _SERVER.Pipe(duplex=False)
        self.process = _SERVER.Process(
            target=_run, args=(self.task, theirs, their_gate), daemon=True
        )
        self.process.start()
        theirs.close()
        their_gate.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def allow(self, rounds: int) -> None:
        """Let it go on for so many rounds."""
        self._gate.send(rounds)

    def finish(self) -> Report:
        """Let it end, and wait for that."""
        with suppress(BrokenPipeError):  # it has ended already, and may have told why
            self._gate.send(_ALL)
        self._ended()
        assert self.process.exitcode == 0, self.failure
        assert self.report is not None
        return self.report

    def kill(self) -> None:
        """SIGKILL; what it had told before is known after this."""
        self.process.kill()
        self._ended()

    def close(self) -> None:
        if self.process.is_alive():
            self.kill()
        self._messages.close()
        self._gate.close()
        self.process.close()

    def _ended(self) -> None:
        self.process.join(self.task.deadline_secs)
        self._reader.join(self.task.deadline_secs)
        assert not self._reader.is_alive()

    def _read(self) -> None:
        while True:
            try:
                kind, value = self._messages.recv()
            except (EOFError, OSError):
                return
            match kind:
                case "sent":
                    self.sent += value
                case "flushed":
                    self.done = value
                    self.flushes += 1
                case "report":
                    self.report = value
                case _:
                    self.failure = value


@contextmanager
def running(tasks: Iterable[Task]) -> Iterator[list[Process]]:
    """The processes of these tasks; none outlives the block."""
    _SERVER.set_forkserver_preload([__name__])
    processes: list[Process] = []
    try:
        for task in tasks:
            processes.append(Process(task))  # noqa: PERF401 - those that started must be ended
        yield processes
    finally:
        for process in processes:
            process.close()


def until(
    condition: Callable[[], bool], processes: Iterable[Process], deadline_secs: float
) -> None:
    """Wait for something that living processes bring about.

    Raises:
        AssertionError: one of them failed, or the deadline is over.
    """
    deadline = time.monotonic() + deadline_secs
    processes = list(processes)
    while not condition():
        for process in processes:
            assert process.failure is None, process.failure
            assert process.process.is_alive(), process.process.exitcode
        assert time.monotonic() < deadline, [process.sent for process in processes]
        time.sleep(0.002)


# -- in the process ------------------------------------------------------------------------------


def _run(task: Task, messages: Any, gate: Any) -> None:
    # It warns of every attempt that fails, and they are many.
    logging.getLogger("observatory_storage").setLevel(logging.ERROR)
    try:
        _Work(task, messages, gate).run()
    except BaseException:
        messages.send(("failed", traceback.format_exc()))
        raise


def _settings(task: Task) -> StorageConfig:
    return StorageConfig(
        postgres=PostgresConfig.from_url(task.url, statement_timeout_ms=task.statement_timeout_ms),
        pool=PoolConfig(min_connections=0),
        retry=task.retry,
    )


class _Work:
    def __init__(self, task: Task, messages: Connection, gate: Connection) -> None:
        self._task = task
        self._gate = gate
        self._messages = messages
        self._lock = threading.Lock()
        self._report = Report(0, 0, 0, WriteStats())
        self._done = list(task.done or (0,) * task.threads)
        self._allowed = 0
        self._deadline = time.monotonic() + task.deadline_secs

    def run(self) -> None:
        task = self._task
        with (
            StoragePool(_settings(task), connect=False) as pool,
            ThreadPoolExecutor(task.threads) as threads,
        ):
            writer = TraceWriter(pool, task.config)
            write = self._acknowledged if task.acknowledge else self._freely
            write(writer, threads)
            # Until the last fault is over.
            self._wait_for(_ALL)
            self._flush(writer)
            result = writer.close()
            assert (result.committed, writer.buffer_stats().buffered) == (0, 0)
            self._report.stats = writer.write_stats()
            self._tell("report", self._report)

    def _freely(self, writer: TraceWriter, threads: ThreadPoolExecutor) -> None:
        """Each thread at its own pace, with a flush now and then."""

        def write(thread: int) -> None:
            for number, chunk in enumerate(_chunks(self._share(thread)), 1):
                writer.write_spans(chunk)
                self._wrote(thread, len(chunk))
                if (number + thread) % _CHUNKS_A_FLUSH == 0:
                    self._flush(writer)

        for ended in [threads.submit(write, n) for n in range(self._task.threads)]:
            ended.result()

    def _acknowledged(self, writer: TraceWriter, threads: ThreadPoolExecutor) -> None:
        """Round for round, with a flush after each that tells what is safe."""
        shares = [_chunks(self._share(thread)) for thread in range(self._task.threads)]

        def write(thread: int) -> bool:
            chunk = next(shares[thread], [])
            writer.write_spans(chunk)
            self._wrote(thread, len(chunk))
            return bool(chunk)

        for number in count(1):
            self._wait_for(number)
            if not any(list(threads.map(write, range(self._task.threads)))):
                break
            self._flush(writer)
            self._tell("flushed", tuple(self._done))

    def _wait_for(self, rounds: int) -> None:
        while self._allowed < rounds:
            self._allowed += self._gate.recv()

    def _share(self, thread: int) -> Iterator[Row]:
        return self._task.workload.share(self._task.first + thread, self._done[thread])

    def _wrote(self, thread: int, spans: int) -> None:
        with self._lock:
            self._done[thread] += spans
            self._report.sent += spans
            self._messages.send(("sent", spans))

    def _tell(self, kind: str, value: object) -> None:
        with self._lock:
            self._messages.send((kind, value))

    def _flush(self, writer: TraceWriter) -> None:
        # With a spool there is no failure of the database that a flush may raise.
        spooling = self._task.config.spool_dir is not None
        result = writer.flush() if spooling else self._patiently(writer.flush)
        with self._lock:
            self._report.committed += result.committed
            self._report.spooled += result.spooled

    def _patiently(self, action: Callable[[], _T]) -> _T:
        """Again while the database is away, or statements take too long."""
        while True:
            try:
                return action()
            except StorageError as error:
                passing = error.retryable or isinstance(error, Timeout)
                if not passing or time.monotonic() > self._deadline:
                    raise


def _chunks(spans: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(spans, _CHUNK)):
        yield chunk
