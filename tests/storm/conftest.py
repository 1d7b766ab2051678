"""The evidence of two runs without any fault, watched, finished and gathered."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest
from msgspec.structs import replace

import recovery_journal as rj
from scripts.harness.job import FOLDED, KINDS, Run, folded, work
from scripts.harness.life import Setting
from scripts.harness.parts import LIMITS
from scripts.storming.evidence import Evidence, gather
from scripts.storming.history import History
from scripts.storming.member import WatchedJournal
from scripts.storming.storm import Survived
from tests.schemas import own_schema

# A reducer may take its time on a busy machine, and an attempt that is never ready is reported.
CALM_LIMITS: Final = replace(LIMITS, reducer_s=30.0)
LONGEST_WAIT_S: Final = 60.0


@pytest.fixture(scope="module")
def evidence(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    folder = tmp_path_factory.mktemp("sea")
    with own_schema(server_dsn) as schema:
        setting = Setting(dsn=server_dsn, folder=folder, schema=schema)
        _sail(setting)
        yield gather(setting, Survived(struck=Counter()))


def _sail(setting: Setting) -> None:
    rj.open(setting.dsn, schema=setting.schema, limits=CALM_LIMITS).close()
    with WatchedJournal(
        setting.dsn,
        setting.schema,
        History(setting.histories, "worker-1"),
        limits=CALM_LIMITS,
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
            claim = _claimed(journal, attempt_id)
            claim.lease.heartbeat()
            claim.lease.complete(work(claim))
            journal.look(attempt_id)


def _claimed(journal: rj.Journal, attempt_id: str) -> rj.Claim:
    ends_at = time.monotonic() + LONGEST_WAIT_S
    while not (claims := journal.claim(worker_id="worker-1")):
        journal.sweep()
        assert time.monotonic() < ends_at, journal.history(attempt_id)
    [claim] = claims
    return claim
