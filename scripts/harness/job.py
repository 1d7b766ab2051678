"""The runs of a fleet: chains of digests, which any lost, doubled or foreign run step would change.

The right result of a run is known without the journal.
"""

import time
from functools import reduce
from hashlib import sha256
from random import Random
from typing import Any, Final, TypeAlias

from msgspec import Struct

import recovery_journal as rj

FOLDED: Final = "folded"
"""A kind of run that has a reducer, so that sweepers and claimers fold its tail."""
PLAIN: Final = "plain"
"""A kind without one: the function folds the tail itself."""
KINDS: Final = (FOLDED, PLAIN)

FEWEST_STEPS: Final = 3
MOST_STEPS: Final = 12
LONGEST_STEP_S: Final = 0.12

State: TypeAlias = dict[str, Any]


class Run(Struct, frozen=True, kw_only=True):
    """One run, made from its number alone."""

    seed: int
    step_count: int
    checkpoint_every: int
    pause_s: float

    @classmethod
    def of(cls, name: str) -> "Run":
        """The run of that name."""
        seed = int.from_bytes(sha256(name.encode()).digest()[:4])
        random = Random(seed)  # noqa: S311 - a plan, no secret
        return cls(
            seed=seed,
            step_count=random.randint(FEWEST_STEPS, MOST_STEPS),
            checkpoint_every=random.randint(2, 5),
            pause_s=random.uniform(0, LONGEST_STEP_S),
        )

    @property
    def input(self) -> State:
        """The input of the run; also the state before the first step."""
        return {
            "seed": self.seed,
            "step_count": self.step_count,
            "checkpoint_every": self.checkpoint_every,
            "pause_s": self.pause_s,
        }

    @property
    def result(self) -> State:
        """The result of an undisturbed execution."""
        names = map(step_name, range(1, self.step_count + 1))
        return reduce(
            lambda state, name: folded(state, name, output(self.seed, name)), names, self.input
        )


def step_name(ordinal: int) -> str:
    """The name of a run step."""
    return f"step-{ordinal}"


def output(seed: int, name: str) -> State:
    """The output of a run step."""
    return {"value": sha256(f"{seed} {name}".encode()).hexdigest()}


def folded(state: State, name: str, made: State) -> State:
    """The state after one more run step: a reducer."""
    before = state.get("digest", str(state.get("seed")))
    text = f"{before} {name} {made['value']}"
    return {"count": state.get("count", 0) + 1, "digest": sha256(text.encode()).hexdigest()}


def work(claim: rj.Claim) -> State:
    """The function of a worker: continue after the last recorded run step, to the end."""
    lease, given = claim.lease, claim.input
    state: State = claim.folded_state or reduce(
        lambda before, step: folded(before, step.name, step.output),
        claim.tail,
        claim.state or given,
    )
    for ordinal in range(lease.progress.ordinal + 1, given["step_count"] + 1):
        name = step_name(ordinal)
        lease.begin_step(name)
        time.sleep(given["pause_s"])
        made = output(given["seed"], name)
        made = lease.record_step(name, made)
        state = folded(state, name, made)
        if ordinal % given["checkpoint_every"] == 0:
            state = lease.checkpoint(state)
    return state
