"""What the console shows while handlers store records."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from observatory_storage import StorageHandler
from observatory_storage.last_resort import LastResort


@contextmanager
def storing_logger() -> Iterator[logging.Logger]:
    """A logger that the handlers of the test runner do not hear, with one that stores."""
    logger = logging.getLogger("shop_of_last_resort")
    logger.propagate = False
    logger.setLevel("INFO")
    storing = StorageHandler()
    logger.addHandler(storing)
    logger.addHandler(LastResort())
    # Nothing is stored in this test: the handler lets no record pass.
    storing.addFilter(lambda _: False)
    try:
        yield logger
    finally:
        logger.handlers.clear()
        storing.close()


def test_warnings_are_shown_once_if_all_handlers_store(capsys: pytest.CaptureFixture[str]) -> None:
    with storing_logger() as logger:
        logger.info("served")
        below = logger.getChild("orders")
        below.warning("sold out")
        # A second one below does not repeat it.
        below.addHandler(LastResort())
        below.error("closed")
        below.handlers.clear()
    assert capsys.readouterr().err == "sold out\nclosed\n"


def test_another_handler_has_them_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with storing_logger() as logger:
        logger.addHandler(logging.StreamHandler(console := io.StringIO()))
        logger.warning("sold out")
    assert (console.getvalue(), capsys.readouterr().err) == ("sold out\n", "")


def test_who_turns_the_last_resort_off_sees_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    with storing_logger() as logger:
        logger.warning("sold out")
    assert capsys.readouterr().err == ""


def test_a_handler_that_stores_keeps_the_warnings_of_this_package_visible() -> None:
    StorageHandler().close()
    handlers = logging.getLogger("observatory_storage").handlers
    assert [type(handler) for handler in handlers] == [LastResort]
