"""The user's functions, seen through their wrappers, and return values that are no results."""

from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from functools import lru_cache, partial, partialmethod
from types import FunctionType, MappingProxyType, MethodType, WrapperDescriptorType
from typing import Any, Final

from recovery_journal.domain.errors import InvalidInput

WRAPPER_LIMIT: Final = 100
"""At most this many functions are examined per argument; a wrapper may wrap itself."""

CACHED: Final = type(lru_cache(lambda: None))

UNFINISHED: Final[dict[type, str]] = {
    Coroutine: "a coroutine, whose code has not run",
    Generator: "a generator, whose code has not run",
    AsyncGenerator: "an async generator, whose code has not run",
}


def functions_called(value: object) -> Iterator[object]:
    """The functions that a call of this object calls, and whose return values it returns: a
    partial's, a method's, a cache's, those of a single dispatch, the `__call__` of an object.

    A function that merely names another one as `__wrapped__` is itself the called one: it may await
    or collect what the other one yields.
    """
    waiting = [value]
    for _ in range(WRAPPER_LIMIT):
        if not waiting:
            return
        function = waiting.pop()
        yield function
        waiting += _called_by(function)


def finished(name: str, answer: Any) -> Any:  # noqa: ANN401 - whatever the user's function returns
    """The return value of a user's function, which must have done its work in its call. Raises
    `InvalidInput` for a value whose code has not run yet, and closes it."""
    for kind, found in UNFINISHED.items():
        if isinstance(answer, kind):
            if isinstance(answer, Coroutine | Generator):
                answer.close()
            raise InvalidInput(
                f"what {name} returned",
                found=found,
                needed="its result",
                do="let the function run its code, and return what that results in",
            )
    return answer


def _called_by(function: Any) -> list[object]:  # noqa: ANN401 - it is examined
    """The functions that a call of this one calls in turn, as far as that is visible."""
    if isinstance(function, type):  # called to make an object, so its `__call__` is not used
        return []
    if isinstance(function, partial | partialmethod):
        return [function.func]
    if isinstance(function, MethodType | staticmethod | classmethod):
        return [function.__func__]
    if isinstance(function, CACHED):
        return [function.__wrapped__]
    if isinstance(function, FunctionType):
        registered = getattr(function, "registry", None)  # of functools.singledispatch
        if isinstance(registered, MappingProxyType):
            return list(registered.values())
        unbound = getattr(function, "__partialmethod__", getattr(function, "_partialmethod", None))
        return [unbound]
    called = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is examined
    return [] if isinstance(called, WrapperDescriptorType) else [called]
