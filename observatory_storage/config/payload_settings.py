"""The section `payloads`: where large values are stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import Integer
from observatory_storage.config.fields import Env

PayloadMode = Literal["inline", "compressed"]


class PayloadsConfig(ConfigModel):
    """Where the large values of spans, events and log records are stored, such as prompts.

    The mode alone may stand for the section, as ``payloads: compressed`` does in a file.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("payloads",)
    main_key = "mode"

    mode: Annotated[PayloadMode, Env("OBSERVATORY_PAYLOADS", "OBSERVATORY_PAYLOADS_MODE")] = Field(
        default="inline",
        description="inline: in their rows. compressed: beside them, many together in a frame.",
    )
    threshold_bytes: Annotated[Integer, Env("OBSERVATORY_PAYLOADS_THRESHOLD_BYTES")] = Field(
        default=1_200,
        ge=0,
        le=2**31 - 1,
        description="Bytes of attributes that a row may keep. Larger ones are moved to a frame.",
    )
    convert_stored: Annotated[bool, Env("OBSERVATORY_PAYLOADS_CONVERT_STORED")] = Field(
        default=False,
        description="Whether maintenance moves the values of closed partitions as mode says.",
    )
