"""Which attributes of a span are read for its LLM columns, and in which order.

The spans of an instrumentation mostly have the same keys, so the answer is kept for each
combination of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from observatory_storage.llm.aliases import readers_of

__all__ = ["PLANS", "ReadingPlans", "Step"]

# The key of an attribute; the column that it may give; how its value is converted; and the steps
# from the value to a value within it, or nothing.
Step = tuple[Any, str, Callable[[object], Any], tuple[str, ...]]

# At most about 2 MB of keys.
_MOST_PLANS: Final = 512
_MOST_CHARACTERS: Final = 4096


class ReadingPlans:
    """The attributes to read, by the keys of a span, in the order of their precedence."""

    def __init__(self) -> None:
        self._plans: dict[tuple[object, ...], tuple[Step, ...]] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def of(self, attributes: Mapping[str, Any]) -> tuple[Step, ...]:
        """The steps that read these attributes. For each column, the first valid value counts."""
        keys: tuple[object, ...] = tuple(attributes)
        plans = self._plans
        plan = plans.get(keys)
        if plan is None:
            readers = readers_of(attributes)
            plan = tuple((key, one.column, one.read, one.path) for key, one in readers)
            if sum(len(key) for key in keys if isinstance(key, str)) <= _MOST_CHARACTERS:
                if len(plans) >= _MOST_PLANS:
                    plans.clear()
                plans[keys] = plan
        return plan

    def forget(self) -> None:
        """Make all plans anew, since the tables of aliases have changed."""
        # Not cleared: a thread may be adding a plan of the former tables.
        self._plans = {}


PLANS: Final = ReadingPlans()
"""The plans of all spans. `own_aliases` changes the tables that they are made of."""
