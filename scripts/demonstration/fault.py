"""The faults of the workers: where in the job, and which."""

from enum import StrEnum

from msgspec import Struct

from scripts.demonstration.job import Moment


class Kind(StrEnum):
    """The kind of a worker's fault."""

    KILL = "SIGKILL"
    KILL_CHILD = "SIGKILL for its child alone"
    SUSPEND = "SIGSTOP"


EVIDENCE = {Kind.KILL: "session_lost", Kind.KILL_CHILD: "reported", Kind.SUSPEND: "ttl"}
"""The evidence on which such a worker's lease must be lost."""


class Fault(Struct, frozen=True, kw_only=True):
    """A fault of the first worker that reaches this moment of the job."""

    kind: Kind
    moment: Moment
    ordinal: int

    @property
    def place(self) -> tuple[Moment, int]:
        """Where it happens."""
        return self.moment, self.ordinal


class Struck(Struct, frozen=True, kw_only=True):
    """A fault that has happened, and to which worker."""

    fault: Fault
    worker_id: str


def plan(file_count: int, checkpoint_every: int) -> tuple[Fault, ...]:
    """One of each kind of death, spread over the job; the suspended worker comes last, so that it
    sleeps while its job is finished elsewhere."""
    a_checkpoint = checkpoint_every * round(file_count / 3 / checkpoint_every)
    return (
        Fault(kind=Kind.KILL, moment=Moment.DONE, ordinal=file_count * 2 // 11),
        # The run step after which a checkpoint is due, so the longest tail there can be.
        Fault(kind=Kind.KILL, moment=Moment.RECORDED, ordinal=a_checkpoint),
        Fault(kind=Kind.KILL_CHILD, moment=Moment.RECORDED, ordinal=file_count * 5 // 9),
        Fault(kind=Kind.SUSPEND, moment=Moment.RECORDED, ordinal=file_count * 7 // 9),
    )
