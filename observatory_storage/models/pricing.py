"""The prices of models, valid in time."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import JSON, NAME, Base, now

__all__ = ["ModelPricing"]


def _per_million(tokens: str) -> Mapped[Decimal | None]:
    return mapped_column(doc=f"US dollars per million {tokens}.")


class ModelPricing(Base):
    """What the calls of a model cost, from one moment until another.

    `load_prices` and `load_package_prices` write these rows. A row says what the tokens of a kind
    cost, where that differs from the price of their side: ``input_usd_per_mtok`` or
    ``output_usd_per_mtok``. NULL is not zero: tokens without a price have no cost.
    """

    __tablename__ = "model_pricing"
    _shown = "provider model service_tier valid_from valid_to source"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True,
        doc="Computed from source, provider, model, service tier and `valid_from`.",
    )
    source: Mapped[str] = mapped_column(
        NAME, doc='"user", or the name and version of the package that the price comes from.'
    )
    provider: Mapped[str | None] = mapped_column(
        NAME, doc="The provider, as in `TraceSpan.provider`; NULL for any."
    )
    model: Mapped[str] = mapped_column(NAME, doc="The name of the model.")
    aliases: Mapped[list[Any]] = mapped_column(
        JSON,
        server_default=text("'[]'"),
        doc="Other names of the model; `*` stands for any characters.",
    )
    service_tier: Mapped[str | None] = mapped_column(
        NAME, doc="The service tier, such as `batch` or `flex`; NULL for the standard one."
    )
    valid_from: Mapped[datetime | None] = mapped_column(
        doc="The first moment at which it is valid; NULL for no beginning."
    )
    valid_to: Mapped[datetime | None] = mapped_column(
        doc="The first moment at which it is valid no more; NULL for no end."
    )
    input_usd_per_mtok: Mapped[Decimal | None] = _per_million("input tokens")
    output_usd_per_mtok: Mapped[Decimal | None] = _per_million("output tokens")
    cache_read_usd_per_mtok: Mapped[Decimal | None] = _per_million("tokens read from a cache")
    cache_write_usd_per_mtok: Mapped[Decimal | None] = _per_million("tokens written to a cache")
    cache_write_1h_usd_per_mtok: Mapped[Decimal | None] = _per_million(
        "tokens written to a cache for an hour"
    )
    reasoning_usd_per_mtok: Mapped[Decimal | None] = _per_million("reasoning tokens")
    input_audio_usd_per_mtok: Mapped[Decimal | None] = _per_million("audio tokens of the input")
    output_audio_usd_per_mtok: Mapped[Decimal | None] = _per_million("audio tokens of the output")
    input_image_usd_per_mtok: Mapped[Decimal | None] = _per_million("image tokens of the input")
    output_image_usd_per_mtok: Mapped[Decimal | None] = _per_million("image tokens of the output")
    input_video_usd_per_mtok: Mapped[Decimal | None] = _per_million("video tokens of the input")
    output_video_usd_per_mtok: Mapped[Decimal | None] = _per_million("video tokens of the output")
    usd_per_request: Mapped[Decimal | None] = mapped_column(
        doc="US dollars per call, in addition to its tokens."
    )
    tiers: Mapped[list[Any]] = mapped_column(
        JSON,
        server_default=text("'[]'"),
        doc="Other prices above a number of input tokens, as docs/pricing.md describes them.",
    )
    loaded_at: Mapped[datetime] = now("When the row was loaded or changed.")

    __table_args__ = (CheckConstraint("valid_from < valid_to", name="validity"),)
