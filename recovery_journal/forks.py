"""Letting a forked child go of what it inherited.

A hook of `os.register_at_fork` cannot be taken back, so there is one for all objects: a process
may make and forget any number of them.
"""

import os
from typing import Final, Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something that a forked child must not keep."""

    def leave(self) -> None:
        """In the child: let go of it, without a word to whoever else has it."""


_inherited: Final[WeakSet[Inherited]] = WeakSet()


def leave_in_children(one: Inherited) -> None:
    """Have it left in every forked child, for as long as it lives."""
    _inherited.add(one)


def _leave_all() -> None:
    for one in list(_inherited):
        one.leave()


os.register_at_fork(after_in_child=_leave_all)
