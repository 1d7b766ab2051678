"""Pauses the garbage collector while many objects are made, instead of a search for cycles every
few hundred.

The objects of a claim have no cycles, and their number has a limit.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable collection in this process within this context; restore its previous state at the
    end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
