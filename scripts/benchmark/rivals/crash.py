"""A mass crash of the rivals': what a worker holds is lost by a real SIGKILL, then claimed again.

Each has a database of its own on the same server, is set up by its own tools and called by its own
API. The time is that from the start of two new workers to the last claim.
"""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from recovery_journal.postgres.embedded import embedded_cluster

ROOT: Final = Path(__file__).resolve().parents[3]
VENV: Final = ROOT / ".venv-rivals"
PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / "rivals.stamp"


def rivals_python() -> Path:
    """The Python that knows the rivals; installed at first use, and when their ranges change."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted: list[str] = project["dependency-groups"]["rivals"]
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != "\n".join(wanted):
        sys.stderr.write("mass-crash: installing the rivals into .venv-rivals (once)\n")
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        options = ("--quiet", "--disable-pip-version-check", "--no-input")
        _run(str(PYTHON), "-m", "pip", "install", *options, *wanted)
        STAMP.write_text("\n".join(wanted), encoding="utf-8")
    return PYTHON


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


HERE: Final = Path(__file__).parent
SHORTEST_CLAIM_S: Final = 20
CLAIMED_PER_S: Final = 300
"""A worker of absurd's checkpoints more than so many tasks a second, before its claims expire."""
HEARTBEAT_S: Final = 5.0


def absurd_crash(dsn: str, count: int, process_count: int, *, verb: str = "recover") -> float:
    """Seconds in which absurd's workers bring so many tasks to where they were: claimed, their
    checkpoints loaded, their steps replayed. With the verb `claim`, it merely claims so many, and
    loads nothing of them."""
    claim_s = max(SHORTEST_CLAIM_S, count // CLAIMED_PER_S)
    with _database(dsn) as own:
        # Its own tool sets it up, and calls psql.
        path = f"{embedded_cluster().bin_path}{os.pathsep}{os.environ['PATH']}"
        command = [str(rivals_python().parent / "absurdctl"), "init", "-d", own]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})
        _hold_and_kill("absurd", own, str(count), str(claim_s))
        time.sleep(claim_s + 1)
        return _recover("absurd", verb, own, count, process_count)


def pgqueuer_crash(dsn: str, count: int, process_count: int) -> float:
    """Seconds in which pgqueuer takes over so many jobs."""
    with _database(dsn) as own:
        _hold_and_kill("pgqueuer", own, str(count))
        time.sleep(HEARTBEAT_S + 1)
        return _recover("pgqueuer", "recover", own, count, process_count)


RIVALS: Final[dict[str, Callable[[str, int, int], float]]] = {
    "absurd": absurd_crash,
    "absurd_claim": partial(absurd_crash, verb="claim"),
    "pgqueuer": pgqueuer_crash,
}


def _hold_and_kill(rival: str, dsn: str, *arguments: str) -> None:
    worker = _start(rival, "hold", dsn, *arguments)
    _require_line(worker, "held")
    worker.kill()
    worker.wait()


def _recover(rival: str, verb: str, dsn: str, count: int, process_count: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    workers = [
        _start(rival, verb, dsn, str(number), str(HEARTBEAT_S)) for number in range(process_count)
    ]
    for worker in workers:
        _require_line(worker, "ready")
    begun = time.monotonic()
    for worker in workers:  # all of them start before one is waited for
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    ends = [worker.communicate()[0].split() for worker in workers]
    assert sum(int(claimed) for claimed, _ in ends) == count, ends
    return max(float(last_at) for _, last_at in ends) - begun


def _start(rival: str, verb: str, *arguments: str) -> "subprocess.Popen[str]":
    rivals_python()
    return subprocess.Popen(
        [PYTHON, HERE / f"{rival}_program.py", verb, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _require_line(worker: "subprocess.Popen[str]", wanted: str) -> None:
    assert worker.stdout is not None
    found = worker.stdout.readline().strip()
    assert found == wanted, f"a rival's worker said {found!r}; its own words are above"


@contextmanager
def _database(dsn: str) -> Iterator[str]:
    """A database that is dropped afterwards."""
    name = f"benchmark_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        info = connection.info
        own = make_conninfo(dsn, dbname=name)
        if info.host:  # as a URL, which all of them understand
            password = f":{quote(info.password, safe='')}" if info.password else ""
            where = urlencode({"host": info.host, "port": info.port})
            own = f"postgresql://{quote(info.user, safe='')}{password}@/{name}?{where}"
        try:
            yield own
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)
