"""The folders that the embedded server makes, and those that it refuses."""

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from recovery_journal.domain.errors import EmbeddedServerUnavailable
from recovery_journal.postgres import folders
from recovery_journal.postgres.cluster import Cluster
from recovery_journal.postgres.embedded import EmbeddedServer, embedded_cluster

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def closed(server_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed folder, as root's home is, and a folder of the system's beside it."""
    monkeypatch.setattr(folders, "SYSTEM_FOLDER", server_folder / "system")
    home = server_folder / "home"
    home.mkdir(mode=0o700)
    return home


@as_root
@pytest.mark.parametrize("below", ["pg", "a/b/pg"])
def test_no_folder_above_the_data_is_opened_wider(closed: Path, below: str) -> None:
    folder = closed / below
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    above = {path: mode(path) for path in folder.parents}

    with EmbeddedServer.start(folder) as server, psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
    with EmbeddedServer.start(folder) as server, psycopg.connect(server.dsn) as connection:
        row = connection.execute("SELECT number FROM kept").fetchone()

    assert row == (42,)
    assert {path: mode(path) for path in folder.parents} == above
    assert (folder / folders.MARKER).read_text().strip() == str(embedded_cluster(folder).folder)


@as_root
def test_a_folder_with_other_things_in_it_is_not_opened_either(closed: Path) -> None:
    (closed / "letters").touch()

    with EmbeddedServer.start(closed) as server, psycopg.connect(server.dsn):
        pass

    assert mode(closed) == 0o700


@as_root
def test_data_that_a_closed_folder_already_has_are_refused_in_words(closed: Path) -> None:
    (closed / "pg" / "data").mkdir(parents=True)

    with pytest.raises(EmbeddedServerUnavailable, match=r"home is closed .*found mode 700; move"):
        EmbeddedServer.start(closed / "pg")

    assert mode(closed) == 0o700


@as_root
def test_programs_for_root_alone_are_copied_and_left_as_they_are(closed: Path) -> None:
    bin_path = closed / "package" / "pginstall" / "bin"
    bin_path.mkdir(parents=True, mode=0o700)
    (bin_path / "postgres").write_text("#!/bin/sh\necho served\n")
    (bin_path / "postgres").chmod(0o700)
    (closed / "package.libs").mkdir(mode=0o700)
    (closed / "package.libs" / "lib.so").touch(mode=0o600)
    before = {path: mode(path) for path in (closed, *closed.rglob("*"))}

    copy = folders.runnable(bin_path)

    done = subprocess.run(
        [str(copy / "postgres")],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "served\n"
    assert mode(copy.parents[2] / "package.libs" / "lib.so") & stat.S_IROTH
    assert folders.runnable(bin_path) == copy
    assert {path: mode(path) for path in (closed, *closed.rglob("*"))} == before


def link(path: Path) -> None:
    (path.parent / "elsewhere").touch()
    path.symlink_to(path.parent / "elsewhere")


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "missing")


def second_name(path: Path) -> None:
    (path.parent / "first").touch(mode=0o600)
    path.hardlink_to(path.parent / "first")


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def writable_by_others(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


@pytest.mark.parametrize("name", ["gate", "users"])
@pytest.mark.parametrize("plant", [link, dangling_link, second_name, pipe, writable_by_others])
def test_a_planted_lock_file_is_refused_in_words(
    server_folder: Path, name: str, plant: Callable[[Path], None]
) -> None:
    plant(server_folder / name)

    with pytest.raises(EmbeddedServerUnavailable, match=name):
        EmbeddedServer.start(server_folder)

    assert not (server_folder / "missing").exists()


@pytest.mark.parametrize("bits", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused_in_words(
    server_folder: Path, bits: int
) -> None:
    server_folder.chmod(bits)

    with pytest.raises(EmbeddedServerUnavailable, match="other users may write to"):
        EmbeddedServer.start(server_folder)


@as_root
def test_a_folder_of_another_user_is_refused_in_words(server_folder: Path) -> None:
    os.chown(server_folder, NOBODY, NOBODY)

    with pytest.raises(EmbeddedServerUnavailable, match="belongs to the user nobody, needed root"):
        EmbeddedServer.start(server_folder)


@as_root
def test_a_way_through_another_users_link_is_refused_in_words(server_folder: Path) -> None:
    (server_folder / "real").mkdir()
    (server_folder / "link").symlink_to(server_folder / "real")
    os.chown(server_folder / "link", NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(EmbeddedServerUnavailable, match="link of the user nobody"):
        EmbeddedServer.start(server_folder / "link" / "pg")


def test_data_that_are_a_link_are_refused_in_words(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder):
        pass
    (server_folder / "data").rename(server_folder / "moved")
    (server_folder / "data").symlink_to(server_folder / "moved")

    with pytest.raises(EmbeddedServerUnavailable, match="data is no folder that can be opened"):
        EmbeddedServer.start(server_folder)


def test_ones_own_link_to_a_folder_may_be_named(server_folder: Path) -> None:
    (server_folder / "real").mkdir()
    (server_folder / "link").symlink_to(server_folder / "real")

    with EmbeddedServer.start(server_folder / "link") as server, psycopg.connect(server.dsn):
        assert (server_folder / "real" / "data").is_dir()


LISTEN = """
import os, socket, sys
os.umask(0)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen()
print("listening", flush=True)
caller, _ = door.accept()
print(caller.recv(1000), flush=True)
"""


@as_root
def test_an_impostor_at_the_socket_is_refused_before_a_word_is_said(
    server_folder: Path,
) -> None:
    cluster = Cluster(server_folder, embedded_cluster(server_folder).bin_path)
    (server_folder / "data").mkdir()
    (server_folder / "data" / "PG_VERSION").write_text("18\n")
    (server_folder / "data").chmod(0o777)
    impostor = subprocess.Popen(
        [sys.executable, "-S", "-c", LISTEN, str(server_folder / "data" / ".s.PGSQL.5432")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert impostor.stdout is not None
    assert impostor.stdout.readline() == "listening\n"

    with pytest.raises(psycopg.OperationalError, match="requirepeer specifies"):
        psycopg.connect(cluster.dsn)

    said, _ = impostor.communicate()
    assert said == "b''\n"


def test_the_dsn_names_the_user_that_must_serve(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder) as server:
        owner = pwd.getpwuid((server_folder / "data").stat().st_uid).pw_name

        assert f"requirepeer={owner}" in server.dsn


@pytest.mark.parametrize("length", [300, 5_000])
def test_a_path_that_is_too_long_is_refused(server_folder: Path, length: int) -> None:
    with pytest.raises(EmbeddedServerUnavailable, match="cannot be inspected: File name too long"):
        EmbeddedServer.start(server_folder / ("x" * length))
