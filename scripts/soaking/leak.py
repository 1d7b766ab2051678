"""Leaks that are planted in a member of the fleet, to show that a soak test finds them."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import psycopg

from scripts.harness.life import Part, Role, Setting
from scripts.soaking.member import PARTS

PAUSE_S: Final = 0.2
PIECE_BYTES: Final = 512 * 1024
CONNECTION_LIMIT: Final = 100  # the fleet needs some as well


class Leak(StrEnum):
    """A resource that is never released."""

    MEMORY = "memory"
    FILES = "files"
    CONNECTIONS = "connections"


LEAKING: Final = {
    Leak.MEMORY: Role.FOLLOWER,
    Leak.FILES: Role.READER,
    Leak.CONNECTIONS: Role.CALLER,
}
"""The role whose processes leak it."""


def planted(part: Part, leak: Leak) -> Part:
    """A part whose process leaks beside what it does."""

    def leaking(name: str, setting: Setting) -> None:
        pieces: list[object] = []
        arguments = (LEAKS[leak], setting.dsn_of(name), pieces)
        threading.Thread(target=_leak, args=arguments, daemon=True).start()
        part(name, setting)

    return leaking


def _leak(piece: Callable[[str], object], dsn: str, pieces: list[object]) -> None:
    never = threading.Event()
    while len(pieces) < CONNECTION_LIMIT:
        pieces.append(piece(dsn))
        never.wait(PAUSE_S)
    never.wait()


def with_leaks(leaks: Sequence[Leak]) -> dict[Role, tuple[int, Part]]:
    """The parts of a soak, some of them leaking."""
    parts = dict(PARTS)
    for leak in leaks:
        role = LEAKING[leak]
        count, part = parts[role]
        parts[role] = (count, planted(part, leak))
    return parts


LEAKS: Final[Mapping[Leak, Callable[[str], object]]] = {
    Leak.MEMORY: lambda _dsn: b"x" * PIECE_BYTES,
    Leak.FILES: lambda _dsn: os.open(os.devnull, os.O_RDONLY),
    Leak.CONNECTIONS: lambda dsn: psycopg.connect(dsn, autocommit=True),
}
"""The function that leaks one more piece of it."""
