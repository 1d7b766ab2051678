"""Making many objects at once, without a look for cycles among them every few hundred.

What a cohort or a claim makes has no cycles, and a limit; to go through it again and again, while
it grows, cost a claim of hundreds a fifth of its time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection in this process until the end; then as it was."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
