"""The steps of maintenance, in the order in which a run takes them."""

from __future__ import annotations

from typing import Final

from observatory_storage.lifecycle.maintenance import Step
from observatory_storage.lifecycle.usage import settle_marked_usage

__all__ = ["STEPS"]

STEPS: Final[tuple[Step, ...]] = (("settle_usage", settle_marked_usage),)
"""What writers wait for comes first, what may take long comes last."""
