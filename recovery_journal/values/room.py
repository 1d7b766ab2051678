"""Room on the stack: Python's recursion limit counts what the caller has used up already."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


def with_room(call: Callable[[Argument], Answer], argument: Argument) -> Answer:
    """Call it; where the caller has left it too little room, again in a thread of its own.

    Raises what the call raises, as a `RecursionError` where even that is too little.
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
