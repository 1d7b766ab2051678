"""Every public call of the package, found by inspection."""

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import recovery_journal

OURS = "recovery_journal."


def public_calls() -> dict[str, Callable[..., Any]]:
    """By name: functions, classes that can be made, and the methods of all classes."""
    return dict(_calls_of(recovery_journal, prefix=""))


def _calls_of(module: ModuleType, *, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.ismodule(found):
            yield from _calls_of(found, prefix=f"{prefix}{name}.")
        elif inspect.isclass(found):
            if not issubclass(found, Exception | Enum):  # raised and looked up, not called
                yield f"{prefix}{name}", found
            yield from _methods_of(found, prefix=f"{prefix}{name}.")
        elif callable(found):
            yield f"{prefix}{name}", found


def _methods_of(kind: type, *, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    own = [base for base in kind.__mro__ if base.__module__.startswith(OURS)]
    names = {name for base in own for name in vars(base) if not name.startswith("_")}
    for name in sorted(names):
        held = inspect.getattr_static(kind, name)
        if isinstance(held, staticmethod | classmethod) or inspect.isfunction(held):
            yield f"{prefix}{name}", getattr(kind, name)
