"""The spool's files: what goes in comes out, whatever happens to the files in between."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from observatory_storage.errors import StorageError
from tests.writers.helpers import fork, wait_for
from tests.writers.spool.spool_files import (
    EVENTS,
    MIB,
    bodies,
    drain,
    line_of,
    logs,
    names,
    prepared,
    spool_in,
    the_file,
)


def test_a_damaged_file_is_kept_and_its_good_rows_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a", "b", "c"))
    spool.release()
    path = the_file(tmp_path)
    data = path.read_bytes().replace(b'"b"', b'"x"')
    path.write_bytes(data + b"deadbeef 50 {torn")
    assert spool.adopt()
    with caplog.at_level(logging.WARNING):
        chunk = spool.read(1000)
        assert chunk is not None
        assert (bodies(chunk.rows), chunk.damaged, chunk.own) == (["a", "c"], 1, False)
        spool.done(chunk)
    assert spool.empty
    assert names(tmp_path) == [".corrupt"]
    assert "1 lines could not be read; kept as" in caplog.text
    assert "ends within a row" in caplog.text
    assert not spool.adopt()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"1234abcd 7", b"\n\n"])
def test_a_file_without_rows_does_not_stand_in_the_way(tmp_path: Path, content: bytes) -> None:
    spool = spool_in(tmp_path)
    (tmp_path / f"0{spool._ending}").write_bytes(content)
    (tmp_path / f"1{spool._ending}").write_bytes(line_of(*logs("a")))
    assert spool.adopt()
    assert bodies(drain(spool)) == ["a"]
    assert spool.empty


def test_rows_come_out_in_the_order_in_which_they_went_in(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, 100 * MIB)
    large = "x" * (5 * MIB)
    spool.append(logs("a", large))
    spool.append(logs("b", large))
    spool.append(logs("c"))
    assert names(tmp_path) == [".spool"] * 2
    first = spool.read(1)
    assert first is not None
    spool.done(first)
    spool.append(logs("d"))
    assert [body[:1] for body in bodies(first.rows + drain(spool, 2))] == list("axbxcd")
    assert names(tmp_path) == []
    spool.append(logs("e"))
    assert bodies(drain(spool)) == ["e"]


def test_rows_stay_in_the_spool_until_they_are_done(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a", "b"))
    chunk = spool.read(1)
    assert chunk is not None
    assert chunk == spool.read(1)
    assert bodies(chunk.rows) == ["a"]
    spool.release()
    assert spool.empty
    spool.done(chunk)  # too late: the file is not this spool's any more
    assert spool.adopt()
    assert bodies(drain(spool)) == ["a", "b"]


def test_events_count_as_rows(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append([prepared("trace_spans", events=EVENTS) for _ in range(4)])
    chunk = spool.read(5)
    assert chunk is not None
    assert len(chunk.rows) == 2


def test_files_and_directory_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    old = os.umask(0)
    try:
        spool = spool_in(directory)
        spool.append(logs("a"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_rows_are_synced_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file each time, and its directory when the file is new."""
    spool = spool_in(tmp_path)
    synced: list[tuple[bool, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    first, second = logs("a"), logs("b")
    spool.append(first)
    spool.append(second)
    sizes = [len(line_of(*rows)) for rows in (first, second)]
    files = [size for is_directory, size in synced if not is_directory]
    assert files == [sizes[0], sum(sizes)]
    assert [is_directory for is_directory, _ in synced] == [False, True, False]


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, earlier: int
) -> None:
    spool = spool_in(tmp_path)
    for _ in range(earlier):
        spool.append(logs("before"))

    real = os.pwrite

    def fail(descriptor: int, data: bytes = b"", position: int = 0) -> int:
        if data:
            real(descriptor, data[:10], position)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageError, match="cannot take rows: No space left") as caught:
            spool.append(logs("lost"))
    assert caught.value.retryable
    assert spool.empty is (earlier == 0)
    spool.append(logs("after"))
    assert bodies(drain(spool)) == ["before"] * earlier + ["after"]
    assert names(tmp_path) == []


def test_the_directory_is_bounded_for_all_who_share_it(tmp_path: Path) -> None:
    size = len(line_of(*logs("a")))
    one, another = (spool_in(tmp_path, 3 * size) for _ in range(2))
    one.append(logs("a"))
    another.append(logs("b"))
    with pytest.raises(StorageError, match=rf"is full: {2 * size} .* spool_max_bytes={3 * size}"):
        one.append(logs("c", "d"))
    one.append(logs("c"))
    for spool in (one, another):
        with pytest.raises(StorageError, match="is full"):
            spool.append(logs("e"))
    assert bodies(drain(one)) == ["a", "c"]
    another.append(logs("e"))
    assert bodies(drain(another)) == ["b", "e"]


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/spool cannot be used: Not a directory"):
        spool_in(tmp_path / "file" / "spool")


def test_no_rows_are_appended_to_a_removed_file(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a"))
    the_file(tmp_path).unlink()
    spool.append(logs("b"))
    the_file(tmp_path)
    assert bodies(drain(spool)) == ["a", "b"]  # it still had it open


def test_files_of_a_living_owner_are_left_alone(tmp_path: Path) -> None:
    one, another = spool_in(tmp_path), spool_in(tmp_path)
    one.append(logs("a"))
    assert not another.adopt()
    one.release()
    assert another.adopt()
    assert not one.adopt()
    another.append(logs("b"))
    assert bodies(drain(another)) == ["a", "b"]


def test_files_of_another_database_or_schema_are_left_alone(tmp_path: Path) -> None:
    one = spool_in(tmp_path, target="db/public")
    one.append(logs("a"))
    one.release()
    assert not spool_in(tmp_path, target="db/tenant").adopt()
    assert one.adopt()


def test_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "spool"
    spool = spool_in(directory)
    (tmp_path / "elsewhere").write_bytes(line_of(*logs("a")))
    (directory / f"0{spool._ending}").symlink_to(tmp_path / "elsewhere")
    (directory / f"1{spool._ending}").mkdir()
    os.mkfifo(directory / f"2{spool._ending}")
    assert not spool.adopt()
    assert "cannot be adopted" in caplog.text


WRITING = """
import os, signal, sys
from pathlib import Path
from observatory_storage.rows import prepare_log
from observatory_storage.writers.spool.files import Spool
from datetime import UTC, datetime

spool = Spool(Path(sys.argv[1]), "db/public", 2**20)
spool.prepare()
for n in range(3):
    spool.append([prepare_log({"timestamp": datetime.now(UTC), "body": f"{n}"})])
print(flush=True)
sys.stdin.readline()
spool.append([prepare_log({"timestamp": datetime.now(UTC), "body": "last"})])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_is_adopted_once_its_owner_was_killed(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not spool.adopt()
        process.communicate(b"\n", timeout=30)
    assert process.returncode == -9
    assert spool.adopt()
    assert bodies(drain(spool)) == ["0", "1", "2", "last"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_leaves_the_files_to_its_parent(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("parent"))

    def in_child() -> None:
        spool.abandon()
        assert spool.empty
        assert not spool.adopt()  # the parent is alive
        spool.append(logs("child"))

    wait_for(fork(in_child))
    assert spool.adopt()
    assert sorted(bodies(drain(spool))) == ["child", "parent"]
