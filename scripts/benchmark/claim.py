"""Claims by several workers at once, one attempt at a time and a hundred: ours beside pgbench."""

import re
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import embedded_cluster
from scripts.benchmark.claim_script import claim_script
from scripts.benchmark.mass_crash import LIMITS, connected
from scripts.benchmark.measuring import Line, Rounds, fresh_schema, one_row
from scripts.benchmark.processes import Crowd, Signals
from scripts.histories.lost import TABLES, fill_lost
from scripts.histories.rows import vacuum

BATCHES: Final = {1: 5, 100: 1}
"""How many attempts a claim takes, and by what their number is divided: single ones take long."""
PGBENCH_THREADS: Final = 2

HELD: Final = "SELECT count(*) FILTER (WHERE status = 'held') AS held FROM leases"


def measure_claim(dsn: str, options: Namespace) -> Iterator[Line]:
    """Attempts claimed a second by several claimers, beside pgbench with the same.

    Both take the same attempts off the same list, of a fleet that was swept before, until none is
    left, with the saved state and the tail. pgbench sends the same statements in the same
    transactions, from C: it decides nothing, checks no digest, and its event is a constant.
    """
    for lease_count in options.leases:
        for batch, divisor in BATCHES.items():
            yield _measured(dsn, options, batch, lease_count // divisor)


def _measured(dsn: str, options: Namespace, batch: int, wanted: int) -> Line:
    process_count = options.processes or 4
    # Every claimer of pgbench's makes the same number of whole claims.
    whole = process_count * batch
    count = max(whole, wanted // whole * whole)
    rounds = Rounds(f"claim of {batch}", "leases/s", options.rounds or 3)
    for _ in rounds:
        rounds.add("ours", count / _ours_s(dsn, count, batch, process_count))
        rounds.add("pgbench", count / _pgbench_s(dsn, count, batch, process_count))
    median = {name: round(rate) for name, rate in rounds.medians().items()}
    return {
        "batch": batch,
        "leases": count,
        "claimers": process_count,
        "rounds": rounds.count,
        **median,
        "ratio_pgbench": round(median["ours"] / median["pgbench"], 3),
    }


def _make_ready(database: Database, count: int) -> None:
    fill_lost(database, count)
    while Journal(database, limits=LIMITS).sweep():
        pass
    vacuum(database, *TABLES)


def _ours_s(dsn: str, count: int, batch: int, process_count: int) -> float:
    """Seconds until the last attempt is claimed."""
    with fresh_schema(dsn) as database:
        _make_ready(database, count)
        claim = partial(_claim, dsn, database.schema, batch)
        with Crowd([partial(claim, number) for number in range(process_count)]) as crowd:
            begun = crowd.begin()
            ends = crowd.results()
        assert sum(claimed for claimed, _ in ends) == count, ends
        return float(max(last_at for _, last_at in ends)) - begun


def _claim(dsn: str, schema: str, batch: int, number: int, signals: Signals) -> tuple[int, float]:
    journal = connected(Database(dsn, schema))
    claimed, last_at = 0, 0.0
    signals.begin()
    while claims := journal.claim(worker_id=f"new-worker-{number}", limit=batch):
        assert all(claim.state is not None and len(claim.tail) == 5 for claim in claims)
        claimed, last_at = claimed + len(claims), time.monotonic()
    return claimed, last_at


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
        assert one_row(database, HELD) == {"held": count}
        return count / (float(found[1]) * batch)
