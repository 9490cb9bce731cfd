"""A hook that keeps what it is told."""

from __future__ import annotations

import pytest

from observatory_storage.operations import StoreOperation
from observatory_storage.pool import StoragePool


class Seen:
    """The operations that a pool reported, in their order."""

    def __init__(self) -> None:
        self.all: list[StoreOperation] = []

    def on_operation(self, operation: StoreOperation, /) -> None:
        self.all.append(operation)

    def of(self, operation: str) -> list[StoreOperation]:
        return [one for one in self.all if one.operation == operation]

    def one(self, operation: str) -> StoreOperation:
        (found,) = self.of(operation)
        return found


@pytest.fixture
def seen(pool: StoragePool) -> Seen:
    seen = Seen()
    pool.add_hook(seen)
    return seen
