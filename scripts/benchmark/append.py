"""One-event durable appends by many processes: ours beside a bare loop, the library and pgbench;
then by the threads of one process.

All write the same events into the same table, with its indexes and triggers, on the same server,
in turns; the median of the rounds counts. Streams are five events long.
"""

import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Barrier as ThreadBarrier
from typing import Any, Final
from uuid import uuid4

from psycopg.conninfo import make_conninfo

from recovery_journal.postgres.embedded import embedded_cluster
from scripts.benchmark.apart import run_apart
from scripts.benchmark.append_writers import (
    PROCESSES,
    SHARED,
    STATE,
    TAG,
    THREADS,
    Append,
    library_recorder,
)
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.gap_check import gap_checks_ms

STREAM_LENGTH: Final = 5
WARM_UP_COUNT: Final = 10
PATIENCE_S: Final = 60
PGBENCH_THREADS: Final = 2

PGBENCH_SCRIPT: Final = """
\\set number :number + 1
\\set stream :number / :length
\\set version :number % :length + 1
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (:run || '-' || :client_id || '-' || :stream, :version, :tag, :state::bytea)
RETURNING notification_id;
"""


def measure_append(dsn: str, *, seconds: float, rounds: int, process_count: int) -> dict[str, Any]:
    """Events a second of each writer, how ours compares, and what a look for gaps costs."""
    rates: dict[str, list[float]] = {name: [] for name in (*PROCESSES, "pgbench")}
    shared: dict[str, list[float]] = {f"{name}_threads": [] for name in SHARED}
    with fresh_schema(dsn) as database:
        schema = database.schema
        # The table is there already; this makes the library's composite type and function.
        library_recorder(dsn, schema).create_table()
        for number in range(rounds):
            for name in PROCESSES:
                rates[name].append(_together(name, dsn, schema, seconds, process_count))
            rates["pgbench"].append(_pgbench(dsn, schema, seconds, process_count))
            for name in SHARED:
                rate = run_apart(_by_threads, name, dsn, schema, seconds)
                shared[f"{name}_threads"].append(rate)
            newest = ", ".join(f"{name} {it[-1]:,.0f}" for name, it in {**rates, **shared}.items())
            sys.stderr.write(f"append, round {number + 1} of {rounds}: {newest} events/s\n")
        gap_check = run_apart(gap_checks_ms, dsn, schema)
    return {
        "case": "append",
        "unit": "events/s",
        "processes": process_count,
        "event_bytes": len(STATE),
        **_compared(rates, "ours"),
        "threads": THREADS,
        **_compared(shared, "ours_threads"),
        **gap_check,
    }


def _compared(rates: dict[str, list[float]], ours: str) -> dict[str, float]:
    """The medians, and how many times another's rate ours is."""
    median = {name: round(statistics.median(found)) for name, found in rates.items()}
    ratios = {
        f"ratio_{name}": round(median[ours] / rate, 3)
        for name, rate in median.items()
        if name != ours
    }
    return {**median, **ratios}


def _together(name: str, dsn: str, schema: str, seconds: float, process_count: int) -> float:
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(process_count), spawn.Queue()
    processes = [
        spawn.Process(target=_write, args=(name, dsn, schema, seconds, start, answers))
        for _ in range(process_count)
    ]
    for process in processes:
        process.start()
    rates: list[float] = [answers.get(timeout=PATIENCE_S + seconds) for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def _write(
    name: str, dsn: str, schema: str, seconds: float, start: Barrier, answers: "Queue[float]"
) -> None:
    append = PROCESSES[name](dsn, schema)
    answers.put(_rate(append, seconds, start))


def _by_threads(name: str, dsn: str, schema: str, seconds: float) -> float:
    append = SHARED[name](dsn, schema)
    start = ThreadBarrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        rates = [pool.submit(_rate, append, seconds, start) for _ in range(THREADS)]
        return sum(rate.result() for rate in rates)


def _rate(append: Append, seconds: float, start: Barrier | ThreadBarrier) -> float:
    writer = uuid4().hex[:8]
    for number in range(WARM_UP_COUNT):
        append(f"{writer}-warm-{number}", 1)
    start.wait(timeout=PATIENCE_S)
    count, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        append(f"{writer}-{count // STREAM_LENGTH}", count % STREAM_LENGTH + 1)
        count += 1
    return count / elapsed


def _pgbench(dsn: str, schema: str, seconds: float, process_count: int) -> float:
    """The same statement from C, with as many clients."""
    program = embedded_cluster().bin_path / "pgbench"
    path = f'-c search_path="{schema}"'
    with tempfile.TemporaryDirectory(prefix="rj-") as folder:
        script = Path(folder) / "append.sql"
        script.write_text(PGBENCH_SCRIPT, encoding="utf-8")
        variables = {
            "number": "-1",
            "length": str(STREAM_LENGTH),
            "run": uuid4().hex[:8],
            "tag": TAG,
            "state": f"\\x{STATE.hex()}",
        }
        done = subprocess.run(
            [
                program,
                *("--no-vacuum", "--protocol=prepared"),
                f"--file={script}",
                f"--time={max(1, round(seconds))}",
                f"--client={process_count}",
                f"--jobs={min(PGBENCH_THREADS, process_count)}",
                *(f"--define={name}={value}" for name, value in variables.items()),
                make_conninfo(dsn, options=path),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    assert found, done.stderr
    assert done.returncode == 0, done.stderr
    return float(found[1])
