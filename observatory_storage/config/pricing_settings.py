"""The section `pricing`: whether costs are computed from stored prices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.fields import Env


class PricingConfig(ConfigModel):
    """How the costs of model calls are computed.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("pricing",)

    compute_costs: Annotated[bool, Env("PRICING_COMPUTE_COSTS")] = Field(
        default=True,
        description="Whether writers compute costs from stored prices where spans tell none.",
    )
