"""``check``: checks the configuration, the servers and the schema, and advises on failures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import click
import sqlalchemy as sa
from rich.text import Text

from observatory_storage import migrate
from observatory_storage.cli.advice import advice_for, connection_advice, redis_advice
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import Output
from observatory_storage.cli.formatting import clean
from observatory_storage.cli.maintain_command import summary
from observatory_storage.cli.read_server_check import WrongReadServer, read_server_state
from observatory_storage.cli.table_rights import PRIVILEGES, SESSION, lacking_to_write
from observatory_storage.config import StorageConfig
from observatory_storage.errors import ConfigError, StorageError, translated
from observatory_storage.health import HealthReport, check_redis
from observatory_storage.layout import PARTITIONED, existing
from observatory_storage.lifecycle.maintenance import last_runs
from observatory_storage.models import Base, LogFrame, MaintenanceRun, PayloadFrame
from observatory_storage.payloads import zstd_module
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import TraceFilters
from observatory_storage.serialization import to_json
from observatory_storage.unit_of_work import UnitOfWork
from observatory_storage.wording import counted

__all__ = ["command"]

logger = logging.getLogger(__name__)

_MARKS = {"ok": ("✓", "+", "green"), "failed": ("✗", "x", "bold red"), "skipped": ("-", "-", "dim")}


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step of the check."""

    name: str
    result: Literal["ok", "failed", "skipped"]
    detail: str
    advice: str | None = None


@click.command("check", cls=StorageCommand)
@json_option
@common_options
@click.pass_obj
def command(state: State) -> None:
    """Check configuration, servers, migrations, permissions and a sample query.

    The exit code is 1 when a step failed. Each failure comes with advice.
    """
    output = state.output()
    steps = []
    for step in _Check(state).steps():
        steps.append(step)
        if not output.json:
            _show(output, step)
    failed = sum(step.result == "failed" for step in steps)
    if output.json:
        output.write({"ok": not failed, "steps": steps})
    else:
        verdict = f"{failed} of {len(steps)} steps failed" if failed else "everything is in order"
        output.show(Text(verdict, style="bold red" if failed else "bold green"))
    if failed:
        raise click.exceptions.Exit(1)


class _Failed(Exception):
    """A step failed: what is wrong, and what to do about it."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


class _Check:
    """The steps in order. A step is skipped when another one that it needs has failed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._config: StorageConfig | None = None
        self._pool: StoragePool | None = None
        self._health: HealthReport | None = None
        self._migrated: bool | None = None
        self._unreadable: list[str] | None = None

    def steps(self) -> Iterator[Step]:
        """Run them."""
        with ExitStack() as stack:
            yield self._step("configuration", self._configuration, needs=True)
            yield self._step("connection", lambda: self._connect(stack), needs=self._config)
            yield self._step("PostgreSQL", self._postgres, needs=self._pool)
            yield self._step("replica", self._replica, needs=self._pool)
            yield self._step("Redis", self._redis, needs=self._config)
            yield self._step("migrations", self._migrations, needs=self._pool)
            yield self._step("tables", self._tables, needs=self._migrated)
            yield self._step("maintenance", self._maintenance, needs=self._unreadable)
            yield self._step("pool", self._statistics, needs=self._pool)
            yield self._step("query", self._query, needs=self._migrated)

    def _step(self, name: str, run: Callable[[], str], *, needs: Any) -> Step:
        if needs is None:
            return Step(name, "skipped", "skipped: a step above failed")
        try:
            return Step(name, "ok", run())
        except _Failed as failure:
            logger.debug("step %s failed", name, exc_info=True)
            return Step(name, "failed", str(failure), failure.advice)
        except StorageError as error:
            logger.debug("step %s failed", name, exc_info=True)
            return Step(name, "failed", str(error), advice_for(error, self._state) or None)

    def _configuration(self) -> str:
        try:
            config = self._state.config()
        except StorageError as error:
            raise _Failed(
                str(error), "Correct the setting; .env.example lists all of them."
            ) from error
        if config.payloads.mode == "compressed":
            zstd_module()
        self._config = config
        postgres = config.postgres
        where = ", ".join(self._state.sources()) or "defaults only"
        return (
            f"{postgres.username}@{postgres.host}:{postgres.port}/{postgres.database}, schema"
            f" {postgres.schema_name}, ssl {postgres.ssl_mode}\nread from {where}"
        )

    def _connect(self, stack: ExitStack) -> str:
        assert self._config is not None
        began = time.perf_counter()
        try:
            pool = stack.enter_context(self._state.pool(connect=True))
        except ConfigError as error:  # the tables have another layout
            advice = f"Correct {self._state.variable('DB_LAYOUT')}, or migrate the tables."
            raise _Failed(str(error), advice) from error
        except StorageError as error:
            attempts = self._config.retry.max_attempts
            detail = f"{error} (up to {attempts} attempts)"
            raise _Failed(detail, connection_advice(error, self._config)) from error
        self._pool = pool
        return f"opened {counted(pool.stats().size, 'connection')} in {_milliseconds(began)}"

    def _postgres(self) -> str:
        assert self._pool is not None
        self._health = self._pool.health_check()
        postgres = self._health.postgres
        if not postgres.ok:
            raise _Failed(str(postgres.error), "The server stopped answering: look at its log.")
        return (
            f"version {postgres.version}, a {postgres.role},"
            f" answered in {postgres.latency_ms:.1f} ms"
        )

    def _replica(self) -> str:
        assert self._pool is not None
        if not self._pool.has_read_server or self._health is None:
            return f"none of its own ({self._state.variable('DATABASE_READ_URL')} is not set)"
        try:
            return read_server_state(self._pool, self._health)
        except WrongReadServer as error:
            raise _Failed(
                str(error), f"Correct {self._state.variable('DATABASE_READ_URL')}."
            ) from error

    def _redis(self) -> str:
        assert self._config is not None
        if self._config.redis.url is None:
            return f"not used ({self._state.variable('REDIS_URL')} is not set)"
        if self._health is not None:
            redis = self._health.redis
        else:
            # Redis is checked without PostgreSQL too, on a pool that does not connect to it.
            with self._state.pool() as pool:
                assert pool.redis is not None
                redis = check_redis(pool.redis)
        assert redis is not None
        if not redis.ok:
            raise _Failed(str(redis.error), redis_advice(self._state))
        return f"version {redis.version}, answered in {redis.latency_ms:.1f} ms"

    def _migrations(self) -> str:
        assert self._pool is not None
        waiting = migrate.pending(self._pool.engine, self._pool.schema)
        if waiting:
            at = migrate.current(self._pool.engine, self._pool.schema)
            raise _Failed(
                f"{len(waiting)} pending: the schema is at {at or 'no revision'}, the newest is"
                f" {migrate.head()}",
                f"Run: {self._state.command('migrate')}",
            )
        self._migrated = True
        return f"the schema is at the newest revision, {migrate.head()}"

    def _tables(self) -> str:
        assert self._pool is not None
        names = sorted(Base.metadata.tables)
        schema = self._pool.schema
        with translated(), self._pool.engine.connect() as connection:
            tables = connection.execute(PRIVILEGES, {"names": names, "schema": schema}).all()
            session = connection.execute(SESSION, {"schema": schema}).one()
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            is_ahead = all(
                any(each.holds(tomorrow) for each in existing(connection, schema, table))
                for table in PARTITIONED
            )
        missing = [row.name for row in tables if row.SELECT is None]
        if missing:
            raise _Failed(
                f"missing in schema {schema}: {', '.join(missing)}",
                "They were dropped or renamed after the migration: restore them.",
            )
        self._unreadable = [row.name for row in tables if not row.SELECT]
        lacking = lacking_to_write(tables)
        unreadable = f"{session.role} may not read {', '.join(self._unreadable)}"
        if self._unreadable and lacking:
            raise _Failed(unreadable, "Grant SELECT on them, or connect as their owner.")
        if session.read_only:
            reason = "transactions are read-only: a replica, or default_transaction_read_only"
        elif lacking:
            reason = f"{session.role} has no {lacking}"
        elif not all(row.owned for row in tables if row.name in PARTITIONED):
            if is_ahead:
                told = ["all signals can be written"]
                told += [unreadable] if self._unreadable else ["all tables can be read"]
                told += [
                    f"{session.role} does not own the tables, so"
                    f" `{self._state.command('maintain')}` has to run as their owner"
                ]
                return "\n".join(told)
            reason = f"{session.role} does not own the tables, so it cannot add partitions"
        elif not session.may_create:
            reason = f"{session.role} may not CREATE partitions in schema {schema}"
        else:
            return f"all {len(tables)} can be read and written"
        raise _Failed(
            f"all signals can be read, but not written: {reason}",
            "To write, connect to the primary as the owner of the tables or a member of that role."
            " A program that only reads needs no change.",
        )

    def _maintenance(self) -> str:
        assert self._pool is not None
        assert self._unreadable is not None
        if MaintenanceRun.__tablename__ in self._unreadable:
            return f"unknown: this role may not read {MaintenanceRun.__tablename__}"
        newest = last_runs(self._pool)
        if not newest:
            command = f"`{self._state.command('maintain')}`"
            return f"never run: call pool.maintain() or {command} every minute"
        run = newest[0]
        if run.error is not None:
            advice = f"Correct the cause, and run: {self._state.command('maintain')}"
            raise _Failed(f"failed at {to_json(run.started_at)}: {run.error}", advice)
        if run.finished_at is None:
            state = f"began at {to_json(run.started_at)} and is under way, or was ended"
        else:
            state = f"last run at {to_json(run.started_at)}"
        return "\n".join([state, *(_told(step) for step in run.steps)])

    def _statistics(self) -> str:
        assert self._pool is not None
        stats = self._pool.stats()
        return (
            f"{counted(stats.size, 'connection')} open: {stats.idle} idle, {stats.active} in use;"
            f" at least {stats.min}, at most {stats.max or 'any number'}"
        )

    def _query(self) -> str:
        assert self._pool is not None
        began = time.perf_counter()
        with self._pool.unit_of_work() as work:
            newest = work.traces.list(TraceFilters(limit=1))
            self._frames(work)
        found = (
            f"the newest trace is {newest[0].trace_id}" if newest else "no traces are stored yet"
        )
        return f"answered in {_milliseconds(began)}: {found}"

    def _frames(self, work: UnitOfWork) -> None:
        """Fail if frames are stored that cannot be opened: by other writers, or by another mode."""
        try:
            zstd_module()
        except ConfigError as error:
            # Asked only now, so that a role needs no rights on frames that it can open.
            frames = (sa.exists().select_from(model) for model in (PayloadFrame, LogFrame))
            if work.session.scalar(sa.select(sa.or_(*frames))):
                raise ConfigError(f"there are payload frames, and {error}") from error


def _show(output: Output, step: Step) -> None:
    mark, ascii_mark, style = _MARKS[step.result]
    if output.console.options.ascii_only:
        mark = ascii_mark
    line = Text(f"{mark} ", style=style)
    line.append(f"{step.name:<14}", style="bold" if step.result != "skipped" else "dim")
    first, *rest = step.detail.splitlines() or [""]
    line.append(clean(first), style="dim" if step.result == "skipped" else "")
    for each in rest:
        line.append(f"\n{'':<16}{clean(each.strip())}")
    if step.advice:
        line.append(f"\n{'':<16}{clean(step.advice)}", style="yellow")
    output.console.print(line, soft_wrap=True)


def _told(step: dict[str, Any]) -> str:
    return f"{step['name']}: {summary(step['result'])}, {step['duration_secs']:.1f} s"


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"
