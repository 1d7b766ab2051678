"""Folders and lock files of embedded servers: owned by this user alone, never reached through a
link, never opened wider.

PostgreSQL refuses to run as root, so for root the server has an account of its own, which cannot
pass through a closed folder such as root's home. No folder that this program did not make is opened
for it: data below a closed folder are in a folder of the system's instead, and so is a copy of
programs that root installed for root alone.
"""

import os
import pwd
import shutil
import stat
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from recovery_journal.domain.errors import EmbeddedServerUnavailable

SYSTEM_FOLDER: Final = Path("/var/lib/recovery-journal")
PASSABLE: Final = 0o711
PASS_THROUGH: Final = stat.S_IXOTH
READ_AND_RUN: Final = stat.S_IROTH | stat.S_IXOTH
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
OURS: Final = frozenset({"gate", "users", "data", "data.unfinished"})
MARKER: Final = "data-is-in"
"""The file in the named folder that records where its data are."""


def place_of(folder: Path) -> Path:
    """Where the server of a folder has its data: there, or for root, where the server's account
    cannot enter that, in a folder of the system's."""
    if folder.exists() and not folder.is_dir():
        raise EmbeddedServerUnavailable(f"{folder} is no folder; name another one")
    if os.geteuid() != 0:
        return folder
    elsewhere = SYSTEM_FOLDER / sha256(os.fsencode(folder)).hexdigest()[:16]
    if elsewhere.is_dir():
        return elsewhere
    closed = _closed(folder)
    if closed is None:
        return folder
    if (folder / "data").exists():
        raise EmbeddedServerUnavailable(
            f"{folder} has data, and {closed} is closed to the server's account: found mode "
            f"{stat.S_IMODE(closed.stat().st_mode):o}; move the data to a folder that others may "
            "pass through"
        )
    return elsewhere


def make_folder(folder: Path, named: Path) -> None:
    """Make the folder of a server, and its missing parents; `named` is the one that the user named.
    Raises `EmbeddedServerUnavailable` where it is not this user's alone."""
    _make(named, 0o700 if named != folder or os.geteuid() != 0 else PASSABLE)
    if named != folder:
        _make(SYSTEM_FOLDER, PASSABLE)
        require_ours(SYSTEM_FOLDER)
        _make(folder, PASSABLE)
        require_ours(named)
        with os.fdopen(open_own_file(named / MARKER, os.O_WRONLY | os.O_TRUNC), "w") as marker:
            marker.write(f"{folder}\n")
    require_ours(folder)
    if os.geteuid() == 0 and not folder.stat().st_mode & PASS_THROUGH:
        folder.chmod(PASSABLE)  # empty, or of our files alone: it was handed over for this


def require_ours(folder: Path, uid: int | None = None) -> None:
    """Refuse a folder that is a link, belongs to another user (than `uid`), or that others may
    write to."""
    uid = os.geteuid() if uid is None else uid
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise EmbeddedServerUnavailable(
            f"{folder} is no folder that can be opened: {error.strerror}"
        ) from error
    try:
        _require(folder, os.fstat(number), uid)
    finally:
        os.close(number)


def open_own_file(path: Path, flags: int) -> int:
    """Open this user's own file, made when missing; never through a link. Raises
    `EmbeddedServerUnavailable` where it is something else, or another user's."""
    try:
        number = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise EmbeddedServerUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        _require_file(path, os.fstat(number))
    except BaseException:
        os.close(number)
        raise
    return number


def runnable(bin_path: Path) -> Path:
    """The folder of the programs, or of a copy of them that the server's account can run."""
    if os.geteuid() != 0 or _is_runnable(bin_path):
        return bin_path
    package = bin_path.parents[1]
    postgres = (bin_path / "postgres").stat()
    named = f"{package}:{postgres.st_size}:{postgres.st_mtime_ns}"
    copy = SYSTEM_FOLDER / f"programs-{sha256(named.encode()).hexdigest()[:16]}"
    if not copy.is_dir():
        _make(SYSTEM_FOLDER, PASSABLE)
        require_ours(SYSTEM_FOLDER)
        _copy(package, copy)
    require_ours(copy)
    return copy / bin_path.relative_to(package.parent)


def require_no_foreign_link(path: Path) -> None:
    """Refuse a path through another user's link, because that user could redirect it."""
    for one in (path, *path.parents):
        try:
            found = one.lstat()
        except OSError:  # not made yet, or reported when it is opened
            continue
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise EmbeddedServerUnavailable(
                f"{one} is a link of the user {_name(found.st_uid)}; name the folder itself"
            )


def _require_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise EmbeddedServerUnavailable(f"{path} is no file of its own; remove it")
    _require(path, found, os.geteuid())


def _require(path: Path, found: os.stat_result, uid: int) -> None:
    if found.st_uid != uid:
        raise EmbeddedServerUnavailable(
            f"{path} belongs to the user {_name(found.st_uid)}, needed {_name(uid)}; name another "
            "folder"
        )
    if found.st_mode & WRITABLE_BY_OTHERS:
        raise EmbeddedServerUnavailable(
            f"other users may write to {path}: found mode {stat.S_IMODE(found.st_mode):o}; take "
            "that right away (chmod go-w), or name another folder"
        )


def _make(folder: Path, mode: int) -> None:
    """Make a folder and its missing parents; an existing one is left unchanged."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        try:
            missing.mkdir(mode=0o700)
            missing.chmod(mode)
        except FileExistsError:  # by another process, just now
            continue
        except OSError as error:
            raise EmbeddedServerUnavailable(
                f"the folder {folder} cannot be made: {error.strerror}"
            ) from error


def _closed(folder: Path) -> Path | None:
    """The first folder that the server's account cannot pass; the named one itself may be opened if
    it was handed over for the server alone."""
    for one in (folder, *folder.parents):
        try:
            is_closed = not one.stat().st_mode & PASS_THROUGH
        except OSError:  # still to be made
            continue
        if is_closed and not (one == folder and _is_handed_over(one)):
            return one
    return None


def _is_handed_over(folder: Path) -> bool:
    """Whether it is root's, no home, and holds nothing but what this program put there."""
    if folder.stat().st_uid != 0 or folder in {Path(entry.pw_dir) for entry in pwd.getpwall()}:
        return False
    return {path.name for path in folder.iterdir()} <= OURS


def _is_runnable(bin_path: Path) -> bool:
    ways = all(one.stat().st_mode & PASS_THROUGH for one in (bin_path, *bin_path.parents))
    return ways and (bin_path / "postgres").stat().st_mode & READ_AND_RUN == READ_AND_RUN


def _copy(package: Path, copy: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix="programs.", dir=SYSTEM_FOLDER))
    try:
        for folder in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
            shutil.copytree(folder, made / folder.name, symlinks=True)
        for path in (made, *made.rglob("*")):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(mode | (READ_AND_RUN if mode & stat.S_IXUSR else stat.S_IROTH))
        made.rename(copy)
    except OSError as error:
        if not copy.is_dir():  # or another process was first
            raise EmbeddedServerUnavailable(
                f"the server's programs cannot be copied to {copy}: {error}"
            ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
