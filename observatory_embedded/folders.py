"""The user and the folders of an embedded server, and their permissions.

PostgreSQL refuses to run as root. Root therefore runs it as another user, who must be able to reach
the programs and the data. This module never changes the owner or the permissions of an existing
folder. Programs that the user cannot reach are copied to a new folder. If the user cannot reach the
data, an error names the folder that blocks the way.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from observatory_embedded.process import EmbeddedServerError, User

_SERVER_USER = "embedded_postgres"
_USER_DEADLINE_SECS = 10.0
_FORMER_SERVER_SECS = 90.0
_STEP_SECS = 0.02
# The path of a socket has at most 104 bytes on macOS and 108 on Linux, including the final zero.
_LONGEST_SOCKET = 103
# With less free memory, a folder in memory could fill up or starve other programs.
_MEMORY_BYTES = 4 * 2**30


def wheel_folder(package: str) -> Path:
    """The folder of an installed wheel, found without importing it.

    Raises:
        EmbeddedServerError: the wheel is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            f"the package {package.replace('_', '-')} is not installed: "
            "pip install 'observatory-storage[embedded]'"
        )
    return Path(spec.origin).resolve().parent


def server_user() -> User | None:
    """The user to run PostgreSQL as. None means the current user, who is not root.

    Raises:
        EmbeddedServerError: the current user is root, and the other user cannot be created.
    """
    if os.geteuid() != 0:
        return None
    deadline = time.monotonic() + _USER_DEADLINE_SECS
    while True:
        try:
            entry = pwd.getpwnam(_SERVER_USER)
        except KeyError:
            problem = _add_user()
        else:
            return User(entry.pw_uid, entry.pw_gid, entry.pw_name)
        # Another process may be adding it now, or hold the lock on the list of users.
        if problem and time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL cannot run as root, and its user {_SERVER_USER!r} cannot be made "
                f"({problem}): run as an ordinary user, or add that user"
            )
        if problem:
            time.sleep(0.1)  # nothing tells when the other process is done


def _add_user() -> str:
    """Add the user of the server. Returns an error message, or an empty string."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/"]
    command += ["--shell", "/usr/sbin/nologin", _SERVER_USER]
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path)
    if program is None:
        return "no useradd on this system"
    done = subprocess.run(  # noqa: S603 - fixed arguments, without a shell
        [program, *command[1:]], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


def blocking_folder(path: Path, user: User) -> Path | None:
    """The first folder on the way to `path` (which is included) that the user cannot enter."""
    path = path.resolve()
    for folder in (*reversed(path.parents), path):
        if folder.is_dir() and not _allows(folder.stat(), user, stat.S_IXOTH):
            return folder
    return None


def _allows(status: os.stat_result, user: User, right: int) -> bool:
    """Whether the mode grants the right, given as its bit for others. ACLs are ignored."""
    if status.st_uid == user.uid:
        return bool(status.st_mode & right << 6)
    if status.st_gid == user.gid:
        return bool(status.st_mode & right << 3)
    return bool(status.st_mode & right)


def _usable(folder: Path, user: User) -> bool:
    """Whether the user can enter the folder, and read everything in it."""
    if blocking_folder(folder, user):
        return False
    return all(_allows(path.stat(), user, stat.S_IROTH) for path in (folder, *folder.rglob("*")))


def temporary_folder(user: User | None, subfolder: str = "") -> Path:
    """Create a temporary folder that the user of the server can reach; see `_make_enterable`.

    Programs can be run there, and the path is short enough for a socket in `subfolder`.
    """
    for base in _temporary_places():
        fits = len(os.fsencode(base / "observatory-12345678" / subfolder)) <= _longest_folder()
        if fits and (user is None or not blocking_folder(base, user)):
            folder = Path(tempfile.mkdtemp(prefix="observatory-", dir=base))
            _make_enterable(folder, user)
            return folder
    folders = ", ".join(str(base) for base in _temporary_places(usable_only=False))
    whom = f" by the user {user.name!r}" if user else ""
    raise EmbeddedServerError(
        f"no temporary folder is usable{whom} (tried {folders}): set TMPDIR to a folder with a "
        "short path that is writable, can be entered, and is not mounted noexec"
    )


def memory_folder(user: User | None) -> Path | None:
    """Create a folder in main memory. Returns None if the system has too little of it."""
    base = Path("/dev/shm")  # noqa: S108 - mkdtemp creates a folder there
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        return None
    file_system = os.statvfs(base)
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if min(file_system.f_bavail * file_system.f_frsize, memory) < _MEMORY_BYTES:
        return None
    if user is not None and blocking_folder(base, user):
        return None
    folder = Path(tempfile.mkdtemp(prefix="observatory-", dir=base))
    _make_enterable(folder, user)
    return folder


def _longest_folder() -> int:
    return _LONGEST_SOCKET - len("/.s.PGSQL.65535")


def _temporary_places(*, usable_only: bool = True) -> Iterator[Path]:
    names = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp creates folders there
    for name in dict.fromkeys(names):
        place = Path(name).resolve()
        if not usable_only:
            yield place
        elif place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            # Only Linux reports whether programs may be run from a file system.
            noexec = getattr(os, "ST_NOEXEC", 0)
            if not os.statvfs(place).f_flag & noexec:
                yield place


def _make_enterable(folder: Path, user: User | None) -> None:
    """Let the user of the server pass through a folder that this process has just created.

    The folder still belongs to root: that user can neither list it nor create files in it.
    """
    folder.chmod(0o700 if user is None else 0o711)


def make_private(folder: Path, user: User | None) -> None:
    """Create a folder that only the server can use."""
    folder.mkdir(mode=0o700)
    folder.chmod(0o700)  # whatever the umask
    if user is not None:
        os.chown(folder, user.uid, user.gid)


def reachable_copy(sources: Iterable[Path], root: Path, user: User | None, into: Path) -> Path:
    """`root` if the user of the server can use all `sources` below it, else a copy of them.

    Args:
        sources: folders below `root`.
        root: the common parent of the sources.
        into: the folder in which the copy is created.
    """
    sources = list(sources)
    if user is None or all(_usable(source, user) for source in sources):
        return root
    for source in sources:
        shutil.copytree(source, into / source.relative_to(root), ignore=_unneeded)
    for path in into.rglob("*"):
        # The copies belong to root, so the server can run its programs but not change them.
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    into.chmod(0o755)
    return into


def _unneeded(folder: str, names: list[str]) -> list[str]:
    # Static libraries and the client programs are two thirds of the wheel.
    if Path(folder).name == "bin":
        return [name for name in names if name not in {"postgres", "initdb"}]
    return [name for name in names if name.endswith(".a") or name in {"pgxs", "pkgconfig", "doc"}]


def persistent_folder(path: Path, user: User | None) -> Path:
    """The folder for persistent data. It is created if it is missing, and checked.

    Raises:
        EmbeddedServerError: it is not a folder, or the user of the server cannot reach it.
    """
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links
    made: list[Path] = []
    for folder in (*reversed(path.parents), path):
        if folder.exists():
            if not folder.is_dir():
                raise EmbeddedServerError(f"{folder} is not a folder: embedded data need one")
            continue
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise EmbeddedServerError(f"the folder {folder} cannot be made: {error}") from error
        _make_enterable(folder, user)
        made.append(folder)
    blocked = blocking_folder(path, user) if user else None
    if user and blocked:
        for folder in reversed(made):
            folder.rmdir()
        raise EmbeddedServerError(
            f"the folder {blocked} (mode {stat.S_IMODE(blocked.stat().st_mode):o}) cannot be "
            f"entered by the user {user.name!r}, as whom PostgreSQL runs because we are root: "
            f"keep the data elsewhere (for example below /var/lib), or let that user enter it "
            f"(chmod o+x {blocked}); its permissions have not been changed"
        )
    return path


def lock_folder(path: Path, running: Callable[[], str] = str) -> int:
    """Lock the folder for this process. Returns the open descriptor that holds the lock.

    Args:
        running: called for details about the other process if the folder is in use.

    Raises:
        EmbeddedServerError: another process uses the folder, whose id the error names; or this
            process cannot write there.
    """
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedServerError(
            f"{path} cannot be used for embedded data ({error}): it must be a folder that this "
            "user can write to; data made as root are root's to use"
        ) from error
    deadline = time.monotonic() + _FORMER_SERVER_SECS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            # The server of a killed process may still be stopping, so the lock may be free soon.
            if holder.isdigit() and not _exists(int(holder)) and time.monotonic() < deadline:
                time.sleep(_STEP_SECS)  # flock without LOCK_NB would have no deadline
                continue
            os.close(descriptor)
            raise EmbeddedServerError(
                f"{path} is in use by process {holder or 'unknown'}{running()}: "
                "connect to that server, or use another folder"
            ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True


def remove(folder: Path) -> None:
    """Remove a folder if it exists."""
    shutil.rmtree(folder, ignore_errors=True)
