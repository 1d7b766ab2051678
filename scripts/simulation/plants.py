"""Bugs on purpose, each a change to the product's text: what a simulator must find to be trusted.

Those of `RACES` lie where no seed leads, between two lines of SQL or behind a restore; a test on
the real server finds each. A plant whose text is no longer in the product is an error, so that the
list keeps up with it.
"""

from typing import Final, NamedTuple

from scripts.planting import Edit


class Plant(NamedTuple):
    """A bug, the promise that it breaks, and a seed before which nobody need look for it."""

    promise: str
    edits: tuple[Edit, ...]
    first_seed: int = 0


class Race(NamedTuple):
    """A bug, the promise that it breaks, and the test that fails with it."""

    promise: str
    edits: tuple[Edit, ...]
    test: str


WRITES = "recovery_journal/store/writes.py"
LOSS = "recovery_journal/recovery/loss.py"
SWEEP = "recovery_journal/recovery/sweep.py"
COHORT = "recovery_journal/recovery/cohort.py"
READER = "recovery_journal/log/reader.py"
FOLLOWER = "recovery_journal/read_models/following/follower.py"

PLANTS: Final[dict[str, Plant]] = {
    "fence-not-compared": Plant(
        "no write of a stale owner is accepted",
        (Edit(WRITES, "    AND lease_id = %(lease_id)s\n    AND epoch = %(epoch)s\n", ""),),
    ),
    "write-without-the-lock": Plant(
        "a write locks its lease row before it looks at the fence",
        (
            Edit(
                WRITES,
                """WITH held AS (
    UPDATE leases
    SET ordinal = %(ordinal)s,
        chain = %(chain)s,
        {RENEWED}
    WHERE {HELD} AND ordinal = %(ordinal)s - 1 AND chain = %(previous_chain)s
    RETURNING run_id, expires_at
),""",
                """WITH held AS (
    SELECT run_id, expires_at
    FROM leases
    WHERE {HELD} AND ordinal = %(ordinal)s - 1 AND chain = %(previous_chain)s
), renewed AS (
    UPDATE leases
    SET ordinal = %(ordinal)s,
        chain = %(chain)s,
        {RENEWED}
    WHERE {HELD} AND ordinal = %(ordinal)s - 1 AND chain = %(previous_chain)s
),""",
            ),
        ),
    ),
    "fence-kept-after-loss": Plant(
        "epochs only grow",
        (
            Edit(
                LOSS,
                "fence=lost.new_fence,\n                is_fleet",
                "fence=recovery.fence,\n                is_fleet",
            ),
            Edit(
                "domain/commands/pipeline.py",
                '        recovery.require_newer("fence the lost lease", fence)\n',
                "        pass\n",
            ),
        ),
    ),
    "orphans-left": Plant(
        "nothing waits for ever",
        (
            Edit(
                LOSS,
                "        ELSE greatest(expires_at, %(up_since)s",
                "        ELSE false AND greatest(expires_at, %(up_since)s",
            ),
        ),
    ),
    "grace-not-waited-for": Plant(
        "nobody is declared dead too early",
        (
            Edit(
                LOSS,
                "+ make_interval(secs => %(grace_s)s) < clock_timestamp()\n    )\n",
                "< clock_timestamp()\n    )\n",
            ),
        ),
    ),
    "outage-is-a-death": Plant(
        "an outage of the server is nobody's death",
        (
            Edit(
                LOSS,
                "greatest(expires_at, %(up_since)s + make_interval(secs => ttl_s))",
                "expires_at",
            ),
        ),
    ),
    "session-believed-at-once": Plant(
        "a cut connection is no death before its grace has passed",
        (
            Edit(
                "domain/session_observations.py", "now - it.gone_at >= grace}", "now >= it.gone_at}"
            ),
        ),
    ),
    "loss-without-a-lock": Plant(
        "the evidence of a loss is the lease as it was",
        (Edit(LOSS, "LIMIT %(limit)s\nFOR NO KEY UPDATE SKIP LOCKED", "LIMIT %(limit)s"),),
        first_seed=400,
    ),
    "no-look-under-the-lock": Plant(
        "what was found lost is looked at again once its row is locked",
        (
            Edit(
                LOSS,
                "                    locked = lock_leases(cursor, statement, "
                "{**self._when(cursor), **wanted})\n",
                """                    found = lock_leases(
                        cursor,
                        statement.replace("FOR NO KEY UPDATE SKIP LOCKED", ""),
                        {**self._when(cursor), **wanted},
                    )
                    times = {one.row.attempt_id: one.seen_at for one in found}
                    locked = [
                        one._replace(seen_at=times[one.row.attempt_id])
                        for one in self._ledger.lock(cursor, list(times))
                    ]
""",
            ),
        ),
    ),
    "seized-after-reload": Plant(
        "nothing is reloaded before the old worker is fenced",
        (
            Edit(
                SWEEP,
                "            taken = take(after)\n",
                """            self._cohorts.keep_early()
            taken = take(after)
""",
            ),
            Edit(
                COHORT,
                "        at_hand: AtHand = {}\n",
                "        at_hand: AtHand = dict(getattr(self, 'early', {}))\n",
            ),
            Edit(
                COHORT,
                "at_hand |= self._read(group, renew)",
                "at_hand |= self._read([one for one in group if one.run_id not in at_hand], renew)",
            ),
            Edit(
                COHORT,
                "    def _read(self,",
                """    def keep_early(self) -> None:
        with self._database.cursor() as cursor:
            rows = cursor.execute("SELECT run_id FROM leases WHERE status = 'held'").fetchall()
        self.early = getattr(self, "early", {})
        runs = [row["run_id"] for row in rows if row["run_id"] not in self.early]
        self.early |= zip(runs, self._runs.kept(runs), strict=True) if runs else {}

    def _read(self,""",
            ),
        ),
    ),
    "ready-before-replay": Plant(
        "ready means reloaded and replayed",
        (
            Edit(
                COHORT,
                "Stage.RELOADED: RecoveryStep.REPLAY,",
                "Stage.RELOADED: RecoveryStep.READY_FOR_DISPATCH,",
            ),
            Edit(
                "domain/commands/pipeline.py",
                'ready for dispatch", Stage.REPLAYED)',
                'ready for dispatch", Stage.REPLAYED, Stage.RELOADED)',
            ),
        ),
    ),
    "done-before-not-noticed": Plant(
        "a write asked for again after a lost reply happens once",
        (
            Edit(
                WRITES,
                '(found["digest"], found["epoch"]) == (digest, held.fence.epoch)',
                '(found["digest"], found["epoch"]) == (digest, 0)',
            ),
        ),
    ),
    "gap-not-awaited": Plant(
        "no reader skips an event",
        (
            Edit(
                READER,
                'safe = _safe_prefix(page, wanted["after"], mark)',
                "safe = page",
            ),
        ),
    ),
    "follower-one-too-far": Plant(
        "projections equal a fold from scratch",
        (
            Edit(
                FOLLOWER,
                "self._tracking.advance(cursor, projection.name, upto)",
                "self._tracking.advance(cursor, projection.name, upto + 1)",
            ),
        ),
    ),
    "oldest-checkpoint": Plant(
        "the newest checkpoint is reloaded, and what came after it",
        (
            Edit(
                "recovery_journal/store/tips.py",
                "= runs.run_id AND NOT is_void\n    ORDER BY checkpoint_no DESC",
                "= runs.run_id AND NOT is_void\n    ORDER BY checkpoint_no",
            ),
        ),
    ),
}


RACES: Final[dict[str, Race]] = {
    "fence-without-its-id": Race(
        "the same epoch, drawn again after a restore, is another fence",
        (Edit(WRITES, "    AND lease_id = %(lease_id)s\n", ""),),
        "tests/rules/test_zombies.py::test_the_same_epoch_with_another_lease_id_is_refused",
    ),
    "writers-before-the-end": Race(
        "no reader skips an event",
        (
            Edit(
                READER,
                "            last = _position(cursor.execute(LAST, prepare=True))\n            if",
                """            writers = _writers(cursor)
            last = _position(cursor.execute(LAST, prepare=True))
            if""",
            ),
            Edit(READER, "                writers = _writers(cursor)\n", ""),
        ),
        "tests/log/test_settled_reading.py::test_a_writer_that_begins_during_the_look_is_not_missed",
    ),
    "tip-of-two-moments": Race(
        "a worker is handed a checkpoint and what came after that one",
        (Edit("recovery_journal/store/runs.py", "own.execute(ONE_SNAPSHOT)\n", "pass\n"),),
        "tests/rules/test_claims.py::test_what_a_worker_is_handed_is_as_of_one_moment",
    ),
    "claimers-wait": Race(
        "claimers never block each other",
        (
            Edit(
                "recovery_journal/claiming/claims.py",
                "FOR NO KEY UPDATE OF leases SKIP LOCKED",
                "FOR NO KEY UPDATE OF leases",
            ),
        ),
        "tests/rules/test_claims.py::test_a_claimer_passes_over_what_another_one_is_taking",
    ),
    "sweepers-wait": Race(
        "sweepers never block each other",
        (Edit(LOSS, "FOR NO KEY UPDATE SKIP LOCKED", "FOR NO KEY UPDATE"),),
        "tests/rules/test_mass_crashes.py::test_a_sweeper_passes_over_what_another_one_is_taking",
    ),
}
