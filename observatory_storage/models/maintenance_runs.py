"""What the runs of maintenance did, and when."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import JSON, NAME, Base, now

__all__ = ["MaintenanceRun"]


class MaintenanceRun(Base):
    """One run of `StoragePool.maintain`."""

    __tablename__ = "maintenance_runs"
    _shown = "started_at finished_at host pid error"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, doc="A random UUID.")
    started_at: Mapped[datetime] = now("When the run began.")
    finished_at: Mapped[datetime | None] = mapped_column(
        doc="When it ended; None while it is under way, and if it was killed."
    )
    as_of: Mapped[datetime] = mapped_column(doc="The time that ages were counted from.")
    host: Mapped[str] = mapped_column(NAME, doc="The host on which it ran.")
    pid: Mapped[int] = mapped_column(Integer, doc="The process id on that host.")
    steps: Mapped[list[Any]] = mapped_column(
        JSON,
        server_default=text("'[]'"),
        doc="What each finished step did: its name, seconds, result and error.",
    )
    error: Mapped[str | None] = mapped_column(doc="The first error of a step, if one failed.")

    __table_args__ = (Index("ix_maintenance_runs_started_at", "started_at"),)
