"""Exit handlers, threads and files that a function leaves are done, and bounded by the drain."""

import atexit
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from logging.handlers import MemoryHandler
from multiprocessing import util
from pathlib import Path
from typing import Any, Final

import pytest

from recovery_journal.claiming.loading import Claim
from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk, worker_of
from tests.worker.functions import is_gone, mark, until

LEFT: Final[list[object]] = []
"""Keeps what a function leaves alive beyond its end."""


def an_exit_handler(folder: Path) -> None:
    atexit.register(mark, folder / "left", "done")


def a_file_with_buffered_text(folder: Path) -> None:
    file = (folder / "left").open("w")
    file.write("done")
    LEFT.append(file)


def a_thread(folder: Path) -> None:
    def finish() -> None:
        time.sleep(0.3)
        mark(folder / "left", "done")

    threading.Thread(target=finish).start()


def a_log_in_memory(folder: Path) -> None:
    target = logging.FileHandler(folder / "left")
    target.terminator = ""
    logger = logging.getLogger("left to the end")
    logger.addHandler(MemoryHandler(100, target=target))
    logger.warning("done")


def a_finalizer_of_multiprocessing(folder: Path) -> None:
    util.Finalize(None, mark, args=(folder / "left", "done"), exitpriority=1)


def a_temporary_folder(folder: Path) -> None:
    temporary = tempfile.TemporaryDirectory(dir=folder, prefix="temporary")
    LEFT.append(temporary)
    mark(folder / "left", "done")


KINDS: Final = (
    an_exit_handler,
    a_file_with_buffered_text,
    a_thread,
    a_log_in_memory,
    a_finalizer_of_multiprocessing,
    a_temporary_folder,
)


def leaving(leave: Callable[[Path], None], *, error: Exception | None = None) -> Any:
    def function(claim: Claim) -> str:
        folder = Path(claim.input)
        mark(folder / "started", str(os.getpid()))
        leave(folder)
        if error is not None:
            raise error
        return "ok"

    return function


@pytest.mark.parametrize("leave", KINDS)
@pytest.mark.parametrize(
    ("error", "outcome"), [(None, Outcome.COMPLETED), (ValueError("no"), Outcome.FAILED)]
)
def test_what_a_function_leaves_to_the_end_is_done(
    desk: Desk, leave: Callable[[Path], None], error: Exception | None, outcome: Outcome
) -> None:
    desk.make_ready("a-1", "leave")

    ended = worker_of(desk, {"leave": leaving(leave, error=error)}).run(max_attempts=1)

    assert dict(ended) == {outcome: 1}
    assert (desk.folder / "left").read_text() == "done"
    assert list(desk.folder.glob("temporary*")) == []


def test_what_never_ends_is_cut_off_after_the_drain(desk: Desk) -> None:
    desk.make_ready("a-1", "leave")
    never = threading.Event()

    def leave(_folder: Path) -> None:
        threading.Thread(target=never.wait).start()

    worker = worker_of(desk, {"leave": leaving(leave)}, drain_s=0.2)
    ended = worker.run(max_attempts=1)

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert is_gone(desk.child_id())


def test_what_ends_after_the_lease_would_have_run_out_is_waited_for(desk: Desk) -> None:
    desk.make_ready("a-1", "leave")

    def leave(folder: Path) -> None:
        def finish() -> None:
            time.sleep(2.5)  # more than two TTLs
            mark(folder / "left", "done")

        threading.Thread(target=finish).start()

    ended = worker_of(desk, {"leave": leaving(leave)}).run(max_attempts=1)

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert (desk.folder / "left").read_text() == "done"


def test_an_exit_handler_that_raises_changes_nothing(desk: Desk) -> None:
    desk.make_ready("a-1", "leave")

    def leave(folder: Path) -> None:
        atexit.register(mark, folder / "left", "done")
        atexit.register(sys.exit, 3)
        atexit.register(lambda: 1 / 0)

    ended = worker_of(desk, {"leave": leaving(leave)}).run(max_attempts=1)

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert (desk.folder / "left").read_text() == "done"


@pytest.fixture
def parents(tmp_path: Path) -> Iterator[Path]:
    """Handlers and files of this process, left to its own end: a child must not see to them."""
    handler = atexit.register(mark, tmp_path / "atexit")
    finalizer = util.Finalize(None, mark, args=(tmp_path / "finalizer",), exitpriority=1)
    kept = tempfile.TemporaryDirectory(dir=tmp_path, prefix="kept")
    file = (tmp_path / "buffered").open("w")
    file.write("once")
    log = logging.FileHandler(tmp_path / "log")
    memory = MemoryHandler(100, target=log)
    memory.emit(logging.makeLogRecord({"msg": "once", "levelno": logging.INFO}))
    yield tmp_path
    file.close()
    memory.buffer.clear()
    log.close()
    atexit.unregister(handler)
    util.Finalize.cancel(finalizer)
    kept.cleanup()


def test_a_daemon_process_of_its_parent_is_left_alone(desk: Desk) -> None:
    desk.make_ready("a-1", "leave")
    parents = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    parents.daemon = True
    parents.start()

    try:
        ended = worker_of(desk, {"leave": leaving(an_exit_handler)}).run(max_attempts=1)

        assert dict(ended) == {Outcome.COMPLETED: 1}
        assert parents.is_alive()
    finally:
        parents.kill()
        parents.join()


def test_nothing_of_its_parent_is_done_by_a_child(desk: Desk, parents: Path) -> None:
    desk.make_ready("a-1", "leave")

    worker_of(desk, {"leave": leaving(an_exit_handler)}).run(max_attempts=1)

    until((desk.folder / "left").exists, "the end of the child")
    assert not (parents / "atexit").exists()
    assert not (parents / "finalizer").exists()
    assert (parents / "buffered").read_text() == ""
    assert (parents / "log").read_text() == ""
    assert len(list(parents.glob("kept*"))) == 1
