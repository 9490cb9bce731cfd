"""Which attributes are read is kept for each combination of keys, within bounds."""

from __future__ import annotations

from typing import Any

from observatory_storage.llm.reading_plans import ReadingPlans


def read(plans: ReadingPlans, attributes: dict[str, Any]) -> list[tuple[Any, str]]:
    return [(key, column) for key, column, _, _ in plans.of(attributes)]


def test_the_attribute_that_wins_is_read_first() -> None:
    plans = ReadingPlans()
    attributes = {"llm.model_name": "b", "other": 1, "gen_ai.request.model": "a"}
    expected = [("gen_ai.request.model", "model"), ("llm.model_name", "model")]
    assert read(plans, attributes) == expected
    assert read(plans, dict(reversed(attributes.items()))) == expected


def test_a_plan_is_kept_for_other_values_of_the_same_keys() -> None:
    plans = ReadingPlans()
    assert plans.of({"user.id": "a", "x": 1}) is plans.of({"user.id": 7, "x": None})
    plan = plans.of({"user.id": "a"})
    plans.forget()
    assert plans.of({"user.id": "a"}) is not plan


def test_plans_of_long_or_ever_new_keys_are_not_kept() -> None:
    plans = ReadingPlans()
    long = {"user.id": "a", "x" * 5000: 1}
    assert read(plans, long) == [("user.id", "user_id")]
    assert plans.of(long) is not plans.of(long)
    for number in range(5000):
        assert read(plans, {"user.id": "a", f"key {number}": 1}) == [("user.id", "user_id")]
    assert len(plans) <= 512


def test_keys_that_are_not_text_are_not_read() -> None:
    odd: dict[Any, Any] = {1: "a", None: "b", ("user.id",): "c", "user.id": "d"}
    assert read(ReadingPlans(), odd) == [("user.id", "user_id")]
