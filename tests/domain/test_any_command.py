"""Random commands at any time: what must hold of every stream that they make."""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.commands.lease import (
    confirm,
    dispatch,
    end,
    grant,
    refuse,
    seize,
    time_out,
)
from recovery_journal.domain.commands.operator import cancel, lift, resume
from recovery_journal.domain.commands.pipeline import abandon, expire, make_ready, reload, replay
from recovery_journal.domain.commands.quarantine import (
    quarantine_diverged,
    quarantine_missing_version,
)
from recovery_journal.domain.commands.requeue import requeue, requeue_for_codec, requeue_for_reader
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.contradictions import contradiction
from recovery_journal.domain.errors import LeaseLost, Refused
from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Dispatched,
    Ending,
    LeaseExpired,
    LeaseGranted,
    LiftOption,
    QuarantineLifted,
    ReadyForDispatch,
    Replayed,
    Resumed,
    Seized,
    SeizeReason,
    WriteKind,
    tag_of,
)
from recovery_journal.domain.lease import Fence, LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Decision, Stage, evolve, fold, project
from recovery_journal.domain.replay import ReplayOutcome, ReplayResult, replay_chain
from tests.domain.specimens import (
    ATTEMPT_ID,
    INPUT_DIGEST,
    NOW,
    RUN_ID,
    SWEEPER,
    checkpoint,
    holder,
    lease_view,
    outcome,
    problem,
    progress,
    run_input,
)

TIPS: tuple[Checkpoint | CheckpointProblem, ...] = (
    checkpoint(),
    checkpoint(5, checkpoint_no=2, tail_count=1),
    run_input(),
    run_input(tail_count=2),
    checkpoint(is_terminal=True),
    checkpoint(is_waiting=True),
    checkpoint(written_by_epoch=10**6),
    *[problem(kind) for kind in ProblemKind],
)
WHOLE = checkpoint(9, checkpoint_no=3)
REPORTS: tuple[Progress | None, ...] = (None, progress(2), progress(5, 1), progress(9, 3))
POLICIES = st.builds(
    Policy,
    crash_loop_count=st.integers(1, 5),
    raise_limit=st.integers(1, 3),
    may_restart=st.booleans(),
    is_timeout_quarantined=st.booleans(),
)


class AnyCommandAtAnyTime(RuleBasedStateMachine):
    """Sweepers, workers and persons who ask for anything at any time; fences come from one
    sequence, as the database's do, but are not always used in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[AnyEvent] = []
        self.last_epoch = 0
        self.decision_count = 0

    @initialize(policy=POLICIES)
    def open(self, policy: Policy) -> None:
        self.policy = policy
        event = grant(
            self.decide(),
            attempt_id=ATTEMPT_ID,
            run_id=RUN_ID,
            holder=holder(),
            fence=self.new_fence(),
            ttl_s=30.0,
            kind="report",
            code_version="1.4",
            attempt_no=1,
            input_digest=INPUT_DIGEST,
            tenant="",
            priority=0,
            timeout_s=60.0,
        )
        self.events.append(event)
        self.recovery = evolve(None, event)

    @rule(
        reported=st.sampled_from(REPORTS),
        loss=st.sampled_from(LossReason),
        is_fenced=st.booleans(),
        age=st.integers(0, 2),
    )
    def lose(
        self, *, reported: Progress | None, loss: LossReason, is_fenced: bool, age: int
    ) -> None:
        epoch = max(1, self.recovery.fence.epoch - age)
        lease = lease_view(epoch, progress=reported)
        fence = self.new_fence() if is_fenced else None
        self.ask(expire, lease=lease, loss=loss, fence=fence)

    @rule(why=st.sampled_from(SeizeReason), age=st.integers(0, 2))
    def take_over(self, *, why: SeizeReason, age: int) -> None:
        self.ask(seize, fence=self.new_fence(age), why=why)

    @rule(tip=st.sampled_from(TIPS))
    def read_tip(self, *, tip: Checkpoint | CheckpointProblem) -> None:
        self.ask(reload, tip, policy=self.policy, now=NOW)

    @rule(tip=st.sampled_from(TIPS), result=st.sampled_from(ReplayResult))
    def play(self, *, tip: Checkpoint | CheckpointProblem, result: ReplayResult) -> None:
        found: ReplayOutcome = outcome(result=result)
        if isinstance(tip, Checkpoint):
            found = replay_chain(ATTEMPT_ID, tip, self.recovery.reported)
        self.ask(replay, found, policy=self.policy, now=NOW)

    @rule()
    def put_up(self) -> None:
        self.ask(make_ready, now=NOW)

    @rule(age=st.integers(0, 2), worker=st.sampled_from(["w-1", "w-2"]))
    def claim(self, *, age: int, worker: str) -> None:
        fence = self.new_fence(age)
        self.ask(
            dispatch,
            holder=holder(worker),
            fence=fence,
            ttl_s=30.0,
            dispatch_id=f"claim-{fence.epoch}",
        )

    @rule(step_count=st.integers(1, 6))
    def advance(self, *, step_count: int) -> None:
        """From whatever stage, what healthy sweepers and claimers would do: most of the time."""
        for _ in range(step_count):
            self.take_next_step()

    def take_next_step(self) -> None:
        match self.recovery.stage:
            case Stage.HELD:
                self.lose(reported=None, loss=LossReason.TTL, is_fenced=True, age=0)
            case Stage.EXPIRED:
                self.read_tip(tip=WHOLE)
            case Stage.RELOADED:
                self.play(tip=WHOLE, result=ReplayResult.REPLAYED)
            case Stage.REPLAYED:
                self.put_up()
            case Stage.READY:
                self.claim(age=0, worker="w-2")
            case _:
                self.intervene(option=LiftOption.RETRY, age=0)

    @rule(step=st.sampled_from(RecoveryStep))
    def fail(self, *, step: RecoveryStep) -> None:
        self.ask(fail_step, step, error_class="OSError", message="", policy=self.policy, now=NOW)

    @rule(why=st.sampled_from(AbandonReason))
    def give_up(self, *, why: AbandonReason) -> None:
        lost = self.recovery.lost
        self.ask(abandon, why, lease=lost.lease if lost else None)

    @rule(write=st.sampled_from(WriteKind), age=st.integers(0, 3))
    def write(self, *, write: WriteKind, age: int) -> None:
        if age == 0:
            self.ask(confirm, write, 1)
        else:
            self.ask(refuse, write, self.old_fence(age))

    @rule(ending=st.sampled_from([Ending.COMPLETED, Ending.FAILED, Ending.WAITING]))
    def finish(self, *, ending: Ending) -> None:
        if self.is_seldom:
            self.ask(end, ending)

    @rule()
    def find_another_digest(self) -> None:
        if self.is_seldom:
            self.ask(quarantine_diverged, explanation="differs", found="cs1:1", expected="cs1:2")

    @rule(error_class=st.sampled_from(["DeadlinePassed", "OSError"]), is_tried=st.booleans())
    def requeue(self, *, error_class: str, is_tried: bool) -> None:
        self.ask(
            requeue,
            RecoveryStep.REPLAY,
            lease=lease_view(self.recovery.fence.epoch),
            fence=self.new_fence(),
            error_class=error_class,
            message="",
            policy=self.policy,
            now=NOW,
            is_tried=is_tried,
        )

    @rule()
    def requeue_for_reader(self) -> None:
        lease = lease_view(self.recovery.fence.epoch)
        fence = self.new_fence()
        policy = self.policy
        self.ask(requeue_for_reader, lease=lease, fence=fence, message="", policy=policy, now=NOW)

    @rule()
    def requeue_for_codec(self) -> None:
        lease = lease_view(self.recovery.fence.epoch)
        fence = self.new_fence()
        policy = self.policy
        self.ask(requeue_for_codec, lease=lease, fence=fence, message="", policy=policy, now=NOW)

    @rule()
    def quarantine_missing_version(self) -> None:
        if self.is_seldom:
            self.ask(quarantine_missing_version, self.policy)

    @rule()
    def run_out_of_time(self) -> None:
        if self.is_seldom:
            self.ask(time_out, self.policy)

    @rule()
    def call_off(self) -> None:
        if self.is_seldom:
            self.ask(cancel)

    @rule(option=st.sampled_from(LiftOption), age=st.integers(0, 2))
    def intervene(self, *, option: LiftOption, age: int) -> None:
        self.ask(lift, option, self.new_fence(age))
        self.ask(resume, self.new_fence(age))

    def ask(self, command: Any, *args: Any, **kwargs: Any) -> None:
        """Carry out a command; a refusal is as good an answer as any."""
        try:
            events = command(self.recovery, self.decide(), *args, **kwargs)
        except (Refused, LeaseLost):
            return
        for event in events:
            assert contradiction(self.recovery, event) is None
            self.recovery = fold(self.recovery, [event])
        self.events += events

    @property
    def is_seldom(self) -> bool:
        """Now and then: what ends an attempt must not end every one of them at once."""
        return self.decision_count % 5 == 4

    def decide(self) -> Decision:
        self.decision_count += 1
        return Decision(event_id=f"decision-{self.decision_count}", by=SWEEPER)

    def new_fence(self, age: int = 0) -> Fence:
        """The next fence of the sequence, or one that was drawn earlier."""
        if age:
            return self.old_fence(age)
        self.last_epoch += 1
        return Fence(epoch=self.last_epoch, lease_id=f"lease-{self.last_epoch}")

    def old_fence(self, age: int) -> Fence:
        epoch = max(1, self.last_epoch - age)
        return Fence(epoch=epoch, lease_id=f"lease-{epoch}")

    @invariant()
    def versions_are_contiguous(self) -> None:
        versions = [event.originator_version for event in self.events]
        assert versions == list(range(1, len(self.events) + 1))

    @invariant()
    def epochs_only_grow(self) -> None:
        epochs = [fence.epoch for event in self.events for fence in new_fences(event)]
        assert epochs == sorted(set(epochs))

    @invariant()
    def a_holder_has_the_fence_it_was_given(self) -> None:
        if self.recovery.stage is not Stage.HELD:
            return
        givings = [e for e in self.events if isinstance(e, LeaseGranted | Dispatched)]
        assert self.recovery.fence == givings[-1].fence
        assert self.recovery.holder == givings[-1].holder

    @invariant()
    def no_attempt_becomes_ready_without_reload_and_replay(self) -> None:
        if self.recovery.stage is not Stage.READY:
            return
        since: list[type[AnyEvent]] = []
        for event in self.events:
            if isinstance(event, LeaseExpired | QuarantineLifted | Resumed):
                since = []
            since.append(type(event))
        assert since.index(CheckpointReloaded) < since.index(Replayed)
        assert since.index(Replayed) < since.index(ReadyForDispatch)
        numbers = {
            event.recovery_no
            for event in (self.recovery.reloaded, self.recovery.replayed, self.recovery.ready)
            if event is not None
        }
        assert numbers == {self.recovery.recovery_no}

    @invariant()
    def only_what_is_fenced_is_reloaded(self) -> None:
        is_fenced = True
        for event in self.events:
            if isinstance(event, LeaseExpired):
                is_fenced = event.fence is not None
            elif isinstance(event, Seized | QuarantineLifted | Resumed):
                is_fenced = True
            assert is_fenced or not isinstance(event, CheckpointReloaded)

    @invariant()
    def recoveries_are_numbered_without_a_gap(self) -> None:
        numbers = [event.recovery_no for event in self.events if isinstance(event, LeaseExpired)]
        assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def nothing_but_refused_writes_follows_an_end(self) -> None:
        if self.recovery.stage is Stage.ENDED:
            assert self.recovery.ended is not None
            ended_at = self.recovery.ended.originator_version
            assert {tag_of(event) for event in self.events[ended_at:]} <= {"stale-write-refused"}

    @invariant()
    def the_log_shows_the_same_story(self) -> None:
        read = msgspec.json.Decoder(list[AnyEvent]).decode(msgspec.json.encode(self.events))
        assert project(None, read) == self.recovery


def new_fences(event: AnyEvent) -> tuple[Fence, ...]:
    """The fence that an event took, if it took one."""
    match event:
        case LeaseExpired(fence=None):
            return ()
        case (
            LeaseGranted()
            | LeaseExpired()
            | Seized()
            | Dispatched()
            | QuarantineLifted()
            | Resumed()
        ):
            assert event.fence is not None
            return (event.fence,)
        case _:
            return ()


AnyCommandAtAnyTime.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
TestAnyCommandAtAnyTime = AnyCommandAtAnyTime.TestCase
