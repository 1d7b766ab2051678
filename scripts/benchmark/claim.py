"""Claims by four workers at once, one attempt at a time and a hundred: ours beside pgbench.

Both take the same attempts off the same list, of a fleet that was swept before, until none is
left; the saved state and the tail are handed over in it. pgbench sends the same statements in the
same transactions, from C: it decides nothing, checks no digest, and its event is a constant.
"""

import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import make_conninfo

from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import embedded_cluster
from scripts.benchmark.claim_script import claim_script
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import TABLES, fill_lost

BATCHES: Final = {1: 5, 100: 1}
"""How many attempts a claim takes, and by what their number is divided: single ones take long."""
PATIENCE_S: Final = 600
PGBENCH_THREADS: Final = 2
LIMITS: Final = Limits(grace_s=0.0, ttl_s=600.0)


def measure_claim(
    dsn: str, *, lease_count: int, batch: int, rounds: int, process_count: int
) -> dict[str, Any]:
    """Attempts claimed a second, in batches of this size."""
    # Every claimer of pgbench's makes the same number of whole claims.
    whole = process_count * batch
    count = max(whole, lease_count // BATCHES[batch] // whole * whole)
    rates: dict[str, list[float]] = {"ours": [], "pgbench": []}
    for number in range(rounds):
        rates["ours"].append(count / _ours_s(dsn, count, batch, process_count))
        rates["pgbench"].append(count / _pgbench_s(dsn, count, batch, process_count))
        newest = ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items())
        sys.stderr.write(f"claim of {batch}, round {number + 1} of {rounds}: {newest} leases/s\n")
    median = {name: round(statistics.median(found)) for name, found in rates.items()}
    return {
        "case": "claim",
        "unit": "leases/s",
        "batch": batch,
        "leases": count,
        "claimers": process_count,
        "rounds": rounds,
        **median,
        "ratio_pgbench": round(median["ours"] / median["pgbench"], 3),
    }


def _make_ready(database: Database, count: int) -> None:
    fill_lost(database, count)
    while Journal(database, limits=LIMITS).sweep():
        pass
    with database.cursor() as cursor:
        cursor.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}".encode())
        cursor.execute("CHECKPOINT")


def _ours_s(dsn: str, count: int, batch: int, process_count: int) -> float:
    """Seconds until the last attempt is claimed."""
    with fresh_schema(dsn) as database:
        _make_ready(database, count)
        spawn = multiprocessing.get_context("spawn")
        start, answers = spawn.Barrier(process_count + 1), spawn.Queue()
        processes = [
            spawn.Process(target=_claim, args=(dsn, database.schema, batch, start, answers, number))
            for number in range(process_count)
        ]
        for process in processes:
            process.start()
        start.wait(PATIENCE_S)
        begun = time.monotonic()
        ends = [answers.get(timeout=PATIENCE_S) for _ in processes]
        for process in processes:
            process.join()
        assert sum(claimed for claimed, _ in ends) == count, ends
        return float(max(last_at for _, last_at in ends)) - begun


def _claim(
    dsn: str,
    schema: str,
    batch: int,
    start: Barrier,
    answers: "Queue[tuple[int, float]]",
    number: int,
) -> None:
    journal = Journal(Database(dsn, schema), limits=LIMITS)
    journal.reader.last_position()  # connects
    claimed, last_at = 0, 0.0
    start.wait(PATIENCE_S)
    while claims := journal.claim(worker_id=f"new-worker-{number}", limit=batch):
        assert all(claim.state is not None and len(claim.tail) == 5 for claim in claims)
        claimed, last_at = claimed + len(claims), time.monotonic()
    answers.put((claimed, last_at))


def _pgbench_s(dsn: str, count: int, batch: int, process_count: int) -> float:
    """Seconds of as many transactions as there are claims."""
    with fresh_schema(dsn) as database, tempfile.TemporaryDirectory(prefix="rj-") as folder:
        _make_ready(database, count)
        script = Path(folder) / "claim.sql"
        script.write_text(claim_script(), encoding="utf-8")
        claims = count // batch // process_count
        path = f'-c search_path="{database.schema}" -c timezone=UTC'
        done = subprocess.run(
            [
                embedded_cluster().bin_path / "pgbench",
                *("--no-vacuum", "--protocol=prepared", f"--file={script}"),
                *(f"--transactions={claims}", f"--client={process_count}"),
                f"--jobs={min(PGBENCH_THREADS, process_count)}",
                f"--define=limit={batch}",
                make_conninfo(dsn, options=path),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        assert found, done.stdout
        _require_claimed(database, count)
        return count / (float(found[1]) * batch)


def _require_claimed(database: Database, count: int) -> None:
    query = "SELECT count(*) FILTER (WHERE status = 'held') AS held FROM leases"
    with database.cursor() as cursor:
        assert cursor.execute(query).fetchone() == {"held": count}
