"""The section `spool`: where writers keep rows that cannot be written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import Directory, Integer
from observatory_storage.config.fields import Env


class SpoolConfig(ConfigModel):
    """The spool of buffered writers, handlers and exporters whose arguments name none.

    The directory alone may stand for the section, as ``spool: /var/lib/app/spool`` does in a file.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("spool",)
    main_key = "directory"

    directory: Annotated[Directory | None, Env("OBSERVATORY_SPOOL_DIR")] = Field(
        default=None,
        description="Directory on a local disk for rows that cannot be written; none: no spool.",
    )
    max_bytes: Annotated[Integer, Env("OBSERVATORY_SPOOL_MAX_BYTES")] = Field(
        default=2**30,
        ge=1,
        lt=2**63,
        description="The maximum total size of the files in this directory.",
    )
