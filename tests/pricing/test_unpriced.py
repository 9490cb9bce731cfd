"""Models whose calls have tokens and no cost are listed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from observatory_storage import CopyWriter, StoragePool, UnpricedModel, ValidationError
from tests.pricing.spans_of_calls import a_call, price_model
from tests.writers.helpers import START, a_span


def at(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


def test_models_without_a_price_are_listed_those_with_most_tokens_first(pool: StoragePool) -> None:
    price_model(pool, 1)
    tier = "openai.response.service_tier"
    CopyWriter(pool).write_spans(
        [
            a_call(1, 1),
            a_call(1, 2, model="x", provider="p", attributes={tier: "Default"}),
            a_call(1, 3, model="x", provider="p", total_cost_usd=0, attributes={tier: ["flex"]}),
            a_call(1, 4, model="x", provider="p", total_cost_usd=Decimal(1)),
            a_call(1, 5, model="x", provider="p", attributes={tier: "Flex"}),
            a_call(1, 6, model=None, prompt_tokens=9000),
            a_call(1, 7, model="x", prompt_tokens=0, completion_tokens=0),
            a_span(1, 8, model="x"),
        ]
    )
    with pool.unit_of_work() as uow:
        assert uow.metrics.get_unpriced_models() == [
            UnpricedModel(None, None, None, 1, 9100, START + at(6), START + at(6)),
            UnpricedModel("p", "x", None, 2, 2200, START + at(2), START + at(3)),
            UnpricedModel("p", "x", "flex", 1, 1100, START + at(5), START + at(5)),
        ]
        (only,) = uow.metrics.get_unpriced_models(START + at(3), START + at(5))
        assert (only.model, only.span_count) == ("x", 1)
        assert len(uow.metrics.get_unpriced_models(limit=2)) == 2
        with pytest.raises(ValidationError, match="limit=0"):
            uow.metrics.get_unpriced_models(limit=0)
        with pytest.raises(ValidationError, match="end_time"):
            uow.metrics.get_unpriced_models(START, START - at(1))
