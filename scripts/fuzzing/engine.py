"""The process that fuzzes: the library's loop around the whole way, with our changes of logs.

It is a process of its own, because the library ends the one that it runs in.
"""

import sys
from random import Random

import atheris

WATCHED = (
    "recovery_journal.domain",
    "recovery_journal.projections",
    "recovery_journal.log.mapper",
    "recovery_journal.read_models.tables.row_form",
    "recovery_journal.cli",
)
"""The modules on the way. To watch all the others too would only make the start longer."""

with atheris.instrument_imports(include=list(WATCHED)):
    from scripts.fuzzing import way
    from scripts.fuzzing.mutation import crossed, mutate


def fuzz(log: bytes) -> None:
    """One execution."""
    way.go(log)


def changed(log: bytes, max_size: int, seed: int) -> bytes:
    """One more log, for the library's loop."""
    random = Random(seed)
    made = mutate(log, random, lambda it: bytes(atheris.Mutate(it, max_size)))
    return made[:max_size]


def joined(one: bytes, other: bytes, max_size: int, seed: int) -> bytes:
    """One log of two."""
    return crossed(one, other, Random(seed))[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz, custom_mutator=changed, custom_crossover=joined)
    atheris.Fuzz()
