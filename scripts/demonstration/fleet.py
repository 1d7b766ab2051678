"""The processes of the demonstration: started, listened to, struck, and all gone at the end."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from scripts.demonstration.message import Message, Order, Ready, decode
from scripts.demonstration.trouble import Trouble

ROOT: Final = Path(__file__).resolve().parents[2]
GONE_LIMIT_S: Final = 20
READY_LIMIT_S: Final = 60
TICK_S: Final = 0.1
PIECE_BYTES: Final = 64 * 1024


class Member:
    """One process, with a pipe in either direction and a group of its own."""

    def __init__(self, order: Order) -> None:
        self.name = order.name
        self.is_struck = False
        self._suspended: tuple[int, ...] = ()
        self._rest = b""
        text = msgspec.json.encode(order).decode()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.demonstration.member", text],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # a terminal's Ctrl-C is for the demonstration, which ends us all
        )
        assert self._process.stdin
        assert self._process.stdout
        self._input, self.output = self._process.stdin, self._process.stdout
        os.set_blocking(self.output.fileno(), False)

    @property
    def process_id(self) -> int:
        """Of the process itself, not of a worker's child."""
        return self._process.pid

    def heard(self) -> list[Message] | None:
        """What it has said since; None once it can say nothing more."""
        try:
            piece = os.read(self.output.fileno(), PIECE_BYTES)
        except BlockingIOError:
            return []
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [decode(line) for line in lines] if piece else None

    def release(self) -> None:
        """Let it go on from the place where it waits."""
        self._input.write(b"\n")
        self._input.flush()

    def kill_child(self, child_id: int) -> None:
        """SIGKILL for a worker's child alone; the worker lives on."""
        os.killpg(child_id, signal.SIGKILL)

    def suspend(self, child_id: int) -> None:
        """SIGSTOP for the worker and its child, each with its whole process group."""
        self._suspended = (self.process_id, child_id)
        for group in self._suspended:
            os.killpg(group, signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT for both: they go on as if nothing had happened. The child comes first, for its
        parent will not leave it alive for long."""
        for group in reversed(self._suspended):
            os.killpg(group, signal.SIGCONT)
        self._suspended = ()

    def kill(self) -> None:
        """SIGKILL, also where it is suspended; return once it is gone. A worker's child goes with
        its parent, unless it is suspended and has to be told."""
        self.is_struck = True
        for group in self._suspended:
            os.killpg(group, signal.SIGKILL)
        self._process.kill()
        self._process.wait(GONE_LIMIT_S)
        self.close()

    def ask_to_end(self) -> None:
        """SIGTERM; one that has ended already is left alone."""
        self.is_struck = True
        self._process.terminate()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(GONE_LIMIT_S)
        self.close()
        return code

    def close(self) -> None:
        """Close our ends of the pipes."""
        self._input.close()
        self.output.close()


class Fleet:
    """All processes of the demonstration. At its end, however it ends, none is left."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for member in list(self._members):
            self.kill(member)
        self._selector.close()

    def start(self, order: Order) -> Member:
        """Start a process."""
        member = Member(order)
        self._members.append(member)
        self._selector.register(member.output, selectors.EVENT_READ, member)
        return member

    def start_idle(self, *orders: Order) -> None:
        """Start processes that have nothing to do yet; return when all of them are ready."""
        started = [self.start(order) for order in orders]
        waiting = set(started)
        deadline = time.monotonic() + READY_LIMIT_S
        while waiting and time.monotonic() < deadline:
            heard = self.listen()
            waiting -= {member for member, message in heard if isinstance(message, Ready)}
        if waiting:
            names = ", ".join(sorted(member.name for member in waiting))
            raise Trouble(f"{names} did not start within {READY_LIMIT_S} s")

    def listen(self, limit_s: float = TICK_S) -> Iterator[tuple[Member, Message]]:
        """What the members say, as soon as one says something, or nothing after the limit.

        Raises `Trouble` where one has ended that nobody has struck or dismissed.
        """
        for key, _events in self._selector.select(limit_s):
            member: Member = key.data
            heard = member.heard()
            if heard is None:
                self._selector.unregister(member.output)
                if not member.is_struck and (code := member.end()) != 0:
                    raise Trouble(f"{member.name} ended with exit code {code}")
            else:
                yield from ((member, message) for message in heard)

    def kill(self, member: Member) -> None:
        """SIGKILL for the process; its child goes with it."""
        self._forget(member)
        member.kill()

    def dismiss(self) -> None:
        """Ask all members to end, and see that they do so in good order."""
        for member in self._members:
            member.ask_to_end()
        for member in list(self._members):
            self._forget(member)
            if (code := member.end()) != 0:
                raise Trouble(f"{member.name} was asked to end and left with exit code {code}")

    def _forget(self, member: Member) -> None:
        self._members.remove(member)
        if not member.output.closed and member.output in self._selector.get_map():
            self._selector.unregister(member.output)
