"""What a small calm sea leaves: two runs without any blow, watched, finished and gathered."""

from collections import Counter
from pathlib import Path

import pytest

import recovery_journal as rj
from scripts.storming.evidence import Evidence, gather
from scripts.storming.history import History
from scripts.storming.job import FOLDED, KINDS, Run, folded, work
from scripts.storming.member import LIMITS, Setting
from scripts.storming.storm import Survived
from scripts.storming.watched import WatchedJournal


@pytest.fixture
def evidence(server_dsn: str, schema: str, tmp_path: Path) -> Evidence:
    setting = Setting(dsn=server_dsn, folder=tmp_path, schema=schema)
    rj.open(server_dsn, schema=schema, limits=LIMITS).close()
    with WatchedJournal(
        server_dsn,
        schema,
        History(setting.histories, "worker-1"),
        limits=LIMITS,
        reducers={FOLDED: folded},
    ) as journal:
        for kind in KINDS:
            attempt_id = f"a-{kind}"
            lease = journal.acquire(
                attempt_id=attempt_id,
                run_id=f"run of {attempt_id}",
                worker_id="starter-1",
                kind=kind,
                input=Run.of(attempt_id).input,
            )
            lease.hand_back("for the workers")
            while not (claims := journal.claim(worker_id="worker-1")):
                journal.sweep()  # on a busy machine a reducer may have to be asked again
            [claim] = claims
            claim.lease.heartbeat()
            claim.lease.complete(work(claim))
            journal.look(attempt_id)
    return gather(setting, Survived(struck=Counter()))
