"""An embedded server leaves nothing behind, however its owner ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from observatory_embedded import (
    FAST_SETTINGS,
    EmbeddedPostgres,
    EmbeddedServerError,
    embedded_postgres,
)
from tests.embedded.server_owner import (
    ServerOwner,
    eventually,
    is_running,
    select_value,
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal_to_the_owner(number: signal.Signals) -> None:
    with ServerOwner() as owner:
        owner.process.send_signal(number)
        assert owner.left_nothing()


def test_nothing_is_left_after_ctrl_c_in_the_terminal() -> None:
    with ServerOwner() as owner:
        os.killpg(owner.process.pid, signal.SIGINT)
        assert owner.left_nothing()


def test_nothing_is_left_after_an_exception() -> None:
    with ServerOwner(inside="server.pid and print(server.pid, server.data_folder, "
               "server.url.partition('host=')[2], flush=True) or 1 / 0") as owner:  # fmt: skip
        assert owner.left_nothing()


def test_nothing_is_left_after_the_owner_is_killed_and_its_child_survives() -> None:
    inside = "os.fork() or (os.close(1), time.sleep(60), os._exit(0))"
    with ServerOwner(inside=inside) as owner:
        try:
            owner.process.kill()
            assert owner.left_nothing()
        finally:
            os.killpg(owner.process.pid, signal.SIGKILL)


def test_nothing_is_left_after_the_supervisor_is_killed() -> None:
    with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
        pid, data = server.pid, server.data_folder
        assert pid is not None
        if sys.platform != "linux":
            pytest.skip("only Linux tells a process that its parent has died")
        server._supervised._process.kill()
        assert eventually(lambda: not is_running(pid))
        with pytest.raises(EmbeddedServerError, match="supervisor has ended"):
            server.start()
    assert not data.parent.exists()


def test_persistent_data_are_usable_right_after_the_owner_is_killed(folder: Path) -> None:
    with ServerOwner(folder) as owner:
        owner.process.kill()
        owner.process.wait()
        # The former server may still be stopping.
        with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
            assert select_value(url, "SELECT 1") == 1


def test_forked_child_neither_stops_nor_starts_the_server() -> None:
    inside = """
    if not (child := os.fork()):
        with server:
            server.stop(); server.kill(); server.start(); server.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert server.running"""
    with ServerOwner(inside=inside) as owner:
        assert is_running(owner.server)
        owner.process.communicate("")
        assert owner.process.returncode == 0
        assert owner.left_nothing()
