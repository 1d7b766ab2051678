"""The identity of this process: its incarnation, and the name under which it records events."""

import os
import socket
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from recovery_journal.domain.lease import Actor, Holder, Incarnation

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def incarnation() -> Incarnation:
    """This life of this process; a fork is another life."""
    return _incarnation_of(os.getpid())


def sweeper_holder() -> Holder:
    """This process as the owner of the leases it recovers."""
    life = incarnation()
    return Holder(worker_id=f"sweeper {life.host}:{life.pid}", incarnation=life)


def actor(role: str, name: str | None = None) -> Actor:
    """This process in a role such as `worker` or `sweeper`; `name` is the worker or person."""
    return Actor(role=role, host=_host(), pid=os.getpid(), program=program(), name=name)


@lru_cache(maxsize=1)
def program() -> str:
    """The name and version of this program, as events record it."""
    try:
        return f"recovery-journal/{version('recovery-journal')}"
    except PackageNotFoundError:
        return "recovery-journal/uninstalled"


@lru_cache(maxsize=64)
def _incarnation_of(pid: int) -> Incarnation:
    started = f"{psutil.Process(pid).create_time():.3f}"  # with the pid, unique per boot
    return Incarnation(host=_host(), boot_id=_boot_id(), pid=pid, started=started)


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


@lru_cache(maxsize=1)
def _boot_id() -> str:
    """The kernel's id of this boot; where it has none, the time of the boot."""
    if BOOT_ID_FILE.exists():
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    return f"{psutil.boot_time():.0f}"
