"""Stack room: Python's recursion limit includes the frames that the caller uses already."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


def with_room(call: Callable[[Argument], Answer], argument: Argument) -> Answer:
    """Call the function; retry it in a thread, with a stack of its own, after a `RecursionError`.

    Raises what the function raises; a `RecursionError` where a whole stack is too small.
    """
    try:
        return call(argument)
    except Exception as error:
        if not _is_out_of_room(error):
            raise
    with ThreadPoolExecutor(max_workers=1) as beside:
        return beside.submit(call, argument).result()


def _is_out_of_room(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, RecursionError):
        error = error.__cause__
    return error is not None
