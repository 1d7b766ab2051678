"""Real processes: started, killed, suspended or relieved, replaced, and all gone at the end."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import Any, Final, Literal, Self

import psutil

from scripts.harness.life import Part, Role, Setting, live

GONE_LIMIT_S: Final = 30
ENDED_WELL: Final = frozenset({0, -signal.SIGTERM})
"""With SIGTERM, one that had not begun yet."""

Start = Literal["fork", "spawn"]
"""A fork is quick; a spawned process is a program of its own, which no thread of ours disturbs."""


class Member:
    """One process at a time under one name, as a pod that is restarted."""

    def __init__(self, role: Role, name: str, setting: Setting, part: Part, start: Start) -> None:
        self.role = role
        self.name = name
        self._setting = setting
        self._part = part
        self._context: Any = multiprocessing.get_context(
            start
        )  # whose processes mypy does not know
        self._suspended: list[int] = []
        self._wake_at = 0.0
        self._is_struck = self._is_relieved = False
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The process id of this life."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_suspended(self) -> bool:
        """Whether it, or one of its children, is suspended."""
        return bool(self._suspended)

    def kill(self) -> bool:
        """SIGKILL; its children end with it. False where it had been killed already."""
        if self._is_struck:
            return False
        self._is_struck = True
        self._process.kill()
        return True

    def relieve(self) -> None:
        """Ask it to end; once it has, `revive` starts its successor."""
        self._is_relieved = True
        self._process.terminate()

    def kill_child(self, aim: float) -> bool:
        """SIGKILL for one of its children alone; whether there was one."""
        children = self._children()
        return bool(children) and _signal(children[int(aim * len(children))], signal.SIGKILL)

    def suspend(self, length_s: float, *, itself: bool, children: bool) -> bool:
        """SIGSTOP, until it is woken after so long; whether there was such a process."""
        chosen = self._children() if children else []
        if itself:
            chosen.append(self.pid)
        self._suspended = [pid for pid in chosen if _signal(pid, signal.SIGSTOP)]
        self._wake_at = time.monotonic() + length_s
        return self.is_suspended

    def wake(self, *, at_once: bool = False) -> None:
        """SIGCONT, if it has slept for long enough."""
        if self._suspended and (at_once or time.monotonic() >= self._wake_at):
            for pid in self._suspended:
                _signal(pid, signal.SIGCONT)
            self._suspended = []

    def failure(self) -> str | None:
        """A sentence where it has ended and was neither killed nor relieved."""
        code = self._process.exitcode
        if code is None or self._is_struck or (self._is_relieved and code in ENDED_WELL):
            return None
        return f"{self.name} ended by itself with exit code {code}"

    def revive(self) -> str | None:
        """Start it again if it has ended; what is wrong where it should not have ended."""
        if self._process.exitcode is None:
            return None
        self.wake(at_once=True)
        wrong = self.failure()
        self._process.close()
        self._is_struck = self._is_relieved = False
        self._process = self._start()
        return wrong

    def end(self) -> str | None:
        """Ask it to end, and wait until it has; what is wrong where it does not end well."""
        self.wake(at_once=True)
        self._process.terminate()
        self._process.join(GONE_LIMIT_S)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            return f"{self.name} was asked to end and was still there {GONE_LIMIT_S} s later"
        if code in ENDED_WELL or self._is_struck:
            return None
        return f"{self.name} was asked to end and left with exit code {code}"

    def _start(self) -> BaseProcess:
        arguments = (self._part, self.name, self._setting)
        process: BaseProcess = self._context.Process(target=live, args=arguments)
        process.start()
        return process

    def _children(self) -> list[int]:
        try:
            return [it.pid for it in psutil.Process(self._process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class Fleet:
    """All members. At the end, however it comes, none is left."""

    def __init__(
        self,
        setting: Setting,
        parts: Mapping[Role, tuple[int, Part]] | None = None,
        start: Start = "fork",
    ) -> None:
        self._setting = setting
        self._parts = parts or {}
        self._start_method = start
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        for role, (count, part) in self._parts.items():
            for number in range(1, count + 1):
                self.start(role, f"{role}-{number}", part)
        return self

    def __exit__(self, *_exception: object) -> None:
        for member in self._members:
            member.kill()
        self.dismiss()

    def start(self, role: Role, name: str, part: Part) -> Member:
        """Start one more process."""
        member = Member(role, name, self._setting, part, self._start_method)
        self._members.append(member)
        return member

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, in whichever life."""
        return tuple(self._members)

    def one(self, role: Role, aim: float) -> Member | None:
        """One of a role that is not suspended."""
        awake = [it for it in self._of(role) if not it.is_suspended]
        return awake[int(aim * len(awake))] if awake else None

    def tend(self) -> list[str]:
        """Wake members that have slept for long enough and replace those that have ended; what is
        wrong."""
        for member in self._members:
            member.wake()
        return [wrong for it in self._members if (wrong := it.revive())]

    def calm(self) -> None:
        """Wake all members."""
        for member in self._members:
            member.wake(at_once=True)

    def dismiss(self, role: Role | None = None) -> list[str]:
        """Ask all, or those of one role, to end, and wait until they have; what is wrong."""
        leaving = list(self._of(role)) if role else list(self._members)
        self._members = [it for it in self._members if it not in leaving]
        return [wrong for it in leaving if (wrong := it.end())]

    def _of(self, role: Role) -> Iterator[Member]:
        return (it for it in self._members if it.role is role)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
