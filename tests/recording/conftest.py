"""A pool whose retries do not make a test wait, and the loggers of tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from observatory_storage import StorageHandler, StoragePool
from tests.writers.helpers import quick_pool


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


@pytest.fixture
def logger_with() -> Iterator[Callable[[logging.Handler], logging.Logger]]:
    """A logger with nothing but this handler, for one test."""
    logger = logging.getLogger("shop.orders")
    logger.setLevel(1)
    logger.propagate = False

    def with_handler(handler: logging.Handler) -> logging.Logger:
        logger.addHandler(handler)
        return logger

    yield with_handler
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def handler(pool: StoragePool) -> StorageHandler:
    return StorageHandler(pool, service_name="shop")


@pytest.fixture
def logger(
    handler: StorageHandler, logger_with: Callable[[logging.Handler], logging.Logger]
) -> logging.Logger:
    return logger_with(handler)
