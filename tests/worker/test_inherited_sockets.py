"""No child has the parent's sockets of the database, nor does what it starts; the parent keeps
its sessions."""

import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.read_models.rebuild.processes import side_by_side
from recovery_journal.worker.child import Child, ChildResult
from recovery_journal.worker.outcome import Outcome
from recovery_journal.worker.session_lock import SessionLock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def sockets() -> set[str]:
    """The sockets that this process has open, by their inodes."""
    names = set()
    for file in Path("/proc/self/fd").iterdir():
        try:
            names.add(str(file.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return {name for name in names if name.startswith("socket:")}


def of_database(*connections: Any) -> set[str]:
    return {str(Path(f"/proc/self/fd/{one.pgconn.socket}").readlink()) for one in connections}


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    with rj.open(server_dsn, schema=schema, reducers={"list": list_sockets}) as journal:
        yield journal


def list_sockets(_state: Any, _name: str, output: Any) -> Any:
    Path(output).write_text("\n".join(sockets()))
    return output


def in_a_function(_journal: rj.Journal, path: Path) -> None:
    def work() -> ChildResult:
        path.write_text("\n".join(sockets()))
        return ChildResult(outcome=Outcome.COMPLETED)

    child = Child(work, deadline=elapsed_s() + 60)
    assert child.is_gone_within(60)
    child.close()


def in_a_program_of_a_function(_journal: rj.Journal, path: Path) -> None:
    def work() -> ChildResult:
        reported = subprocess.run(
            ["ls", "-l", "/proc/self/fd"],
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        path.write_text("\n".join(word for word in reported.split() if word.startswith("socket:")))
        return ChildResult(outcome=Outcome.COMPLETED)

    child = Child(work, deadline=elapsed_s() + 60)
    assert child.is_gone_within(60)
    child.close()


def in_a_reducer(journal: rj.Journal, path: Path) -> None:
    lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="list")
    lease.record_step("one", str(path))
    lease.hand_back()


def in_a_process_of_a_rebuild(_journal: rj.Journal, path: Path) -> None:
    def work(no: int, _count: object) -> None:
        if no == 0:
            path.write_text("\n".join(sockets()))

    side_by_side(work, 2, lambda _count: None)


def in_a_fork_that_ends_as_programs_do(_journal: rj.Journal, path: Path) -> None:
    def work() -> None:
        path.write_text("\n".join(sockets()))
        gc.collect()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize(
    "act",
    [
        in_a_function,
        in_a_program_of_a_function,
        in_a_reducer,
        in_a_process_of_a_rebuild,
        in_a_fork_that_ends_as_programs_do,
    ],
)
def test_a_child_has_no_socket_of_its_parents_and_ends_no_session_of_its(
    journal: rj.Journal, tmp_path: Path, act: Callable[[rj.Journal, Path], None]
) -> None:
    path = tmp_path / "sockets"
    own = journal.database.open_connection().connection
    lock = SessionLock(journal.database)
    assert lock.take()
    mine = of_database(own, journal.database.connection())
    backends = (own.info.backend_pid, journal.database.connection().info.backend_pid)

    act(journal, path)

    theirs = set(path.read_text().split())
    assert not mine & theirs
    assert f"socket:[{os.fstat(lock.file or 0).st_ino}]" not in theirs
    assert own.execute("SELECT pg_backend_pid() AS pid").fetchone() == {"pid": backends[0]}
    row = journal.database.connection().execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row == {"pid": backends[1]}
    assert not lock.is_lost()
    own.close()
    lock.close()


def test_a_child_opens_a_connection_of_its_own(journal: rj.Journal, tmp_path: Path) -> None:
    parent = journal.database.connection().info.backend_pid

    def work() -> ChildResult:
        with journal.database.cursor() as cursor:
            row = cursor.execute("SELECT pg_backend_pid() AS pid").fetchone()
        (tmp_path / "pid").write_text(str(row and row["pid"]))
        return ChildResult(outcome=Outcome.COMPLETED)

    child = Child(work, deadline=elapsed_s() + 60)
    assert child.is_gone_within(60)
    child.close()

    assert int((tmp_path / "pid").read_text()) != parent
