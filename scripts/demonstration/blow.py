"""What happens to the workers: where in the job, and what."""

from enum import StrEnum

from msgspec import Struct

from scripts.demonstration.job import Moment


class Weapon(StrEnum):
    """How a worker is struck."""

    KILL = "SIGKILL"
    KILL_CHILD = "SIGKILL for its child alone"
    SUSPEND = "SIGSTOP"


EVIDENCE = {Weapon.KILL: "session_lost", Weapon.KILL_CHILD: "reported", Weapon.SUSPEND: "ttl"}
"""On what evidence such a worker's lease must be lost."""


class Blow(Struct, frozen=True, kw_only=True):
    """A blow for whoever is the first to come to this moment of the job."""

    weapon: Weapon
    moment: Moment
    ordinal: int

    @property
    def place(self) -> tuple[Moment, int]:
        """Where it falls."""
        return self.moment, self.ordinal


class Struck(Struct, frozen=True, kw_only=True):
    """A blow that has fallen, and on which worker."""

    blow: Blow
    worker_id: str


def blows(file_count: int, checkpoint_every: int) -> tuple[Blow, ...]:
    """One of each kind of death, spread over the job; the suspended worker comes last, so that it
    sleeps while its job is finished elsewhere."""
    a_checkpoint = checkpoint_every * round(file_count / 3 / checkpoint_every)
    return (
        Blow(weapon=Weapon.KILL, moment=Moment.DONE, ordinal=file_count * 2 // 11),
        # The run step after which a checkpoint is due, so the longest tail there can be.
        Blow(weapon=Weapon.KILL, moment=Moment.RECORDED, ordinal=a_checkpoint),
        Blow(weapon=Weapon.KILL_CHILD, moment=Moment.RECORDED, ordinal=file_count * 5 // 9),
        Blow(weapon=Weapon.SUSPEND, moment=Moment.RECORDED, ordinal=file_count * 7 // 9),
    )
