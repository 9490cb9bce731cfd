"""The section `sampling`: which traces writers keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import Fraction
from observatory_storage.config.fields import Env


class SamplingConfig(ConfigModel):
    """Which traces `TraceWriter` keeps, if its `WriterConfig` does not say it.

    Without a share, all traces are kept. The settings are those of `TailSampling`. The share alone
    may stand for the section, as ``sampling: 0.1`` does in a file.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("sampling",)
    main_key = "share"

    share: Annotated[Fraction | None, Env("OBSERVATORY_SAMPLING_SHARE")] = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the traces that writers keep, beside those below; none: all traces.",
    )
    keep_errors: Annotated[bool, Env("OBSERVATORY_SAMPLING_KEEP_ERRORS")] = Field(
        default=True, description="Whether every trace with a failed span is kept."
    )
    slower_than_secs: Annotated[Fraction | None, Env("OBSERVATORY_SAMPLING_SLOWER_THAN_SECS")] = (
        Field(default=None, ge=0, description="Every trace that takes more seconds is kept.")
    )
    costlier_than_usd: Annotated[Fraction | None, Env("OBSERVATORY_SAMPLING_COSTLIER_THAN_USD")] = (
        Field(default=None, ge=0, description="Every trace that costs more US dollars is kept.")
    )
    decision_wait_secs: Annotated[Fraction, Env("OBSERVATORY_SAMPLING_DECISION_WAIT_SECS")] = Field(
        default=30.0,
        gt=0,
        description="Seconds after which a trace is decided although its root has not ended.",
    )
