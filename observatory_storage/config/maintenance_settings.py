"""The section `maintenance`: whether the pool maintains the store by itself, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.durations import Duration
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError


class MaintenanceConfig(ConfigModel):
    """A background thread that calls `StoragePool.maintain`.

    Switch it on if nothing else calls `maintain` regularly, such as cron or Celery beat. Of all
    processes that have it on, one at a time maintains the store.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("maintenance",)

    background: Annotated[bool, Env("MAINTENANCE_BACKGROUND")] = Field(
        default=False, description="Whether a thread of the pool maintains the store."
    )
    interval: Annotated[Duration, Env("MAINTENANCE_INTERVAL")] = Field(
        default=timedelta(minutes=1), description="Time from one run of the thread to the next."
    )
    max_duration: Annotated[Duration, Env("MAINTENANCE_MAX_DURATION")] = Field(
        default=timedelta(minutes=5), description="Time after which a run of the thread stops."
    )

    @field_validator("interval", "max_duration")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise RuleError("must be at least 1s")
        return value
