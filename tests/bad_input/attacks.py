"""How each public call is made: on what, and what would be right in each argument's place."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import recovery_journal as rj
from recovery_journal.domain.replay import Reducer
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from tests.bad_input.scene import Scene

Target = Callable[[Scene], Callable[..., Any]]


class InScene(NamedTuple):
    """A right argument that has to be made in the scene."""

    make: Callable[[Scene], Any]


class Attack(NamedTuple):
    """The call in a scene; `right` are values for arguments beside those of `RIGHT`. Arguments in
    `fixed` are tried elsewhere, because most values of them would take too long."""

    of: Target
    right: Mapping[str, Any] = {}
    fixed: Mapping[str, Any] = {}
    example_count: int | None = None


def nothing(*_anything: object) -> None:
    """A function that does nothing."""


def add(state: Any, _name: str, output: Any) -> Any:
    """A reducer."""
    return (state or 0) + output


OUTDATED: Final = rj.OutdatedProjection(
    projection="p", found="version 1 (f)", needed="version 2 (g)", do="rebuild it"
)
REDUCERS: Final[Mapping[str, Reducer]] = {"report": add}

RIGHT: Final[Mapping[str, Any]] = {
    "after": 0,
    "at": 1,
    "attempt_id": "held",
    "batch_events": 10,
    "by": "me",
    "command": "true",
    "code_version": "1",
    "code_versions": ["", "1"],
    "data": None,
    "drain_s": 1.0,
    "error": ValueError("no"),
    "event_id": None,
    "events": (),
    "functions": {"report": nothing},
    "hook": nothing,
    "incarnation": rj.incarnation(),
    "input": {"n": 1},
    "is_nothing_lost": False,
    "is_restored": False,
    "key": "held",
    "kind": "report",
    "kinds": ["report"],
    "limit": 1,
    "limits": rj.Limits(),
    "longest_pause_s": 0.1,
    "loss": rj.LossReason.HANDED_BACK,
    "max_attempts": 1,
    "must_be_accepted": True,
    "must_exist": True,
    "name": "step",
    "names": ["moments"],
    "limit_s": 1.0,
    "now": datetime(2031, 1, 1, tzinfo=UTC),
    "observer": nothing,
    "older_than": timedelta(days=1),
    "on_event": nothing,
    "on_quarantine": nothing,
    "on_problem": nothing,
    "on_progress": nothing,
    "on_swept": nothing,
    "option": "retry",
    "output": 1,
    "position": 1,
    "priority": 1,
    "process_count": 1,
    "projection": DISPATCH_READY,
    "reason": "to see",
    "reducers": REDUCERS,
    "result": 1,
    "session_lock": None,
    "shortest_pause_s": 0.1,
    "since": datetime(2031, 1, 1, tzinfo=UTC),
    "stalled_after_s": 10.0,
    "state": {"n": 1},
    "tenant": "acme",
    "tenants": ["acme"],
    "timeout": timedelta(days=1),
    "timeout_s": 1.0,
    "trace_id": "t",
    "try_count": 1,
    "ttl": timedelta(seconds=60),
    "until_idle": True,
    "version": 1,
    "worker_id": "w",
}


def _on_journal(name: str, **right: Any) -> Attack:
    return Attack(lambda scene: getattr(scene.journal, name), right)


def _on_lease(name: str) -> Attack:
    return Attack(lambda scene: getattr(scene.lease(), name))


def _acquire(scene: Scene) -> Callable[..., Any]:
    return partial(
        scene.journal.acquire, attempt_id=scene.fresh("attempt"), run_id=scene.fresh("run")
    )


def _open(scene: Scene) -> Callable[..., Any]:
    """Only what is there, by default the scene's own: schemas of any name would be made."""
    own = {"dsn": scene.dsn, "schema": scene.journal.database.schema, "must_exist": True}

    def opened(**settings: Any) -> None:
        given = {**own, **settings}
        rj.open(**{**given, "must_exist": given["must_exist"] or True}).close()

    return opened


def _stopped(make: Callable[[Scene], Any], name: str) -> Target:
    """A loop that was stopped before it began."""

    def of(scene: Scene) -> Callable[..., Any]:
        loop = make(scene)
        loop.stop()
        found: Callable[..., Any] = getattr(loop, name)
        return found

    return of


def _worker(scene: Scene) -> rj.Worker:
    return rj.Worker(scene.journal, "w", nothing, on_event=nothing)


def _closed(scene: Scene) -> Callable[..., Any]:
    return rj.open(scene.dsn, schema=scene.journal.database.schema).close


ATTACKS: Final[Mapping[str, Attack]] = {
    "CrashRecoveryPipeline.replay_context": Attack(
        lambda _scene: rj.CrashRecoveryPipeline("a", "r").replay_context
    ),
    "CrashRecoveryPipeline.steps": Attack(lambda _scene: rj.CrashRecoveryPipeline.steps),
    "Follower": Attack(
        lambda scene: partial(rj.Follower, source=scene.journal), {"projections": BUILT_IN}
    ),
    "Follower.catch_up": Attack(lambda scene: rj.Follower(scene.journal).catch_up),
    "Follower.run": Attack(_stopped(lambda scene: rj.Follower(scene.journal), "run")),
    "Follower.step": Attack(lambda scene: rj.Follower(scene.journal).step),
    "Follower.stop": Attack(lambda scene: rj.Follower(scene.journal).stop),
    "Journal": Attack(
        lambda scene: partial(rj.Journal, database=scene.journal.database),
        {"projections": BUILT_IN, "on_close": ()},
    ),
    "Journal.acquire": Attack(_acquire),
    "Journal.adopt": Attack(
        lambda scene: scene.journal.adopt, {"terms": InScene(lambda scene: scene.held.terms)}
    ),
    "Journal.after_restore": _on_journal("after_restore"),
    "Journal.cancel": _on_journal("cancel", attempt_id="unknown"),
    "Journal.check": Attack(lambda scene: scene.journal.check, example_count=10),
    "Journal.claim": _on_journal("claim"),
    "Journal.close": Attack(_closed),
    "Journal.contexts": _on_journal("contexts"),
    "Journal.differences": _on_journal("differences"),
    "Journal.dispatch_ready": _on_journal("dispatch_ready"),
    "Journal.history": _on_journal("history"),
    "Journal.lift_quarantine": _on_journal("lift_quarantine"),
    "Journal.listed": _on_journal("listed"),
    "Journal.load": _on_journal("load", lease=InScene(lambda scene: scene.held)),
    "Journal.log": _on_journal("log"),
    "Journal.now": _on_journal("now"),
    "Journal.position_at": _on_journal("position_at"),
    "Journal.prune": _on_journal("prune"),
    "Journal.history_of_journal": _on_journal("history_of_journal"),
    "Journal.skip": _on_journal("skip", position=1),
    "Journal.quarantined": _on_journal("quarantined"),
    "Journal.rebuild": Attack(
        lambda scene: scene.journal.rebuild, fixed={"process_count": 1}, example_count=10
    ),
    "Journal.recovery": _on_journal("recovery"),
    "Journal.report_lost": _on_journal("report_lost", worker_id="unknown"),
    "Journal.result": _on_journal("result", attempt_id="ended"),
    "Journal.resume": _on_journal("resume", attempt_id="waiting"),
    "Journal.rows": Attack(lambda scene: lambda **given: list(scene.journal.rows(**given))),
    "Journal.status": _on_journal("status"),
    "Journal.sweep": _on_journal("sweep"),
    "Journal.notify_quarantines": _on_journal("notify_quarantines"),
    "Journal.time_of": _on_journal("time_of"),
    "Journal.watch_sessions": _on_journal("watch_sessions"),
    "Lease.begin_step": _on_lease("begin_step"),
    "Lease.checkpoint": _on_lease("checkpoint"),
    "Lease.complete": _on_lease("complete"),
    "Lease.fail": _on_lease("fail"),
    "Lease.give_up": _on_lease("give_up"),
    "Lease.hand_back": _on_lease("hand_back"),
    "Lease.heartbeat": _on_lease("heartbeat"),
    "Lease.keep_trying": _on_lease("keep_trying"),
    "Lease.own_ending": _on_lease("own_ending"),
    "Lease.record_step": _on_lease("record_step"),
    "Lease.wait": _on_lease("wait"),
    "Limits": Attack(lambda _scene: rj.Limits),
    "OutdatedProjection.error": Attack(lambda _scene: OUTDATED.error),
    "Policy": Attack(lambda _scene: rj.Policy),
    "Policy.retry_at": Attack(lambda _scene: rj.Policy().retry_at),
    "Policy.retry_wait_s": Attack(lambda _scene: rj.Policy().retry_wait_s),
    "QuarantineCommand": Attack(lambda _scene: rj.QuarantineCommand),
    "Recovery.context": Attack(lambda scene: scene.journal.recovery("held").context),
    "RecoveryContextRow.context": Attack(lambda scene: scene.journal.contexts()[0].context),
    "RecoveryStep.pipeline": Attack(lambda _scene: rj.RecoveryStep.pipeline),
    "Sweeper": Attack(lambda scene: partial(rj.Sweeper, journal=scene.journal)),
    "Sweeper.run": Attack(_stopped(lambda scene: rj.Sweeper(scene.journal), "run")),
    "Sweeper.stop": Attack(lambda scene: rj.Sweeper(scene.journal).stop),
    "SweepResult.of": Attack(
        lambda _scene: rj.SweepResult.of,
        {"recovery": InScene(lambda scene: scene.journal.recovery("held"))},
    ),
    "Worker": Attack(lambda scene: partial(rj.Worker, journal=scene.journal)),
    "Worker.run": Attack(_stopped(_worker, "run")),
    "Worker.run_lease": Attack(
        _stopped(_worker, "run_lease"), {"lease": InScene(lambda scene: scene.lease())}
    ),
    "Worker.stop": Attack(lambda scene: _worker(scene).stop),
    "incarnation": Attack(lambda _scene: rj.incarnation),
    "open": Attack(_open, {"projections": BUILT_IN[:0]}, example_count=60),
}

FOR_OTHERS: Final[Mapping[str, str]] = {
    "Lease": "made by a journal alone, of parts that are not public",
    "Policy.has_waited": "how the domain's commands decide",
    "Projection": "abstract: its classes are the user's own, which `open` inspects",
    "Projection.fold": "called by the journal; what it raises is `FoldFailed`",
    "Projection.key": "called by the journal; what it raises is `FoldFailed`",
    "Projection.primary_key": "called by the journal; what it raises is `FoldFailed`",
    "Recovery.emit": "how the domain's commands make their events",
    "Recovery.lease_lost": "how the domain's commands refuse",
    "Recovery.require": "how the domain's commands refuse",
    "Recovery.require_newer": "how the domain's commands refuse",
    "Recovery.wrong_stage": "how the domain's commands refuse",
}
"""Public by name, and called by no user: why."""
