"""What the demonstration and its processes say to each other: one JSON object a line."""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

import recovery_journal as rj
from scripts.demonstration.job import Moment, Statistics


class Role(StrEnum):
    """What a process of the fleet does."""

    WORKER = "worker"
    SWEEPER = "sweeper"
    FOLLOWER = "follower"


class Order(Struct, frozen=True, kw_only=True):
    """All that a process is told when it is started. A worker with a `run_id` opens that run, and
    ends with it; one without claims whatever is recovered. At `places` it waits for a word."""

    role: Role
    name: str
    dsn: str
    executions: str
    limits: rj.Limits = rj.Limits()
    run_id: str | None = None
    given: Statistics = {}
    places: tuple[tuple[Moment, int], ...] = ()


class Arrived(Struct, frozen=True, kw_only=True, tag="arrived"):
    """A worker's child is at a moment of its work; it waits there, unless it has just started."""

    moment: Moment
    ordinal: int
    process_id: int


class Ready(Struct, frozen=True, kw_only=True, tag="ready"):
    """The process has started."""


class Said(Struct, frozen=True, kw_only=True, tag="said"):
    """A sentence for people."""

    text: str


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """How a worker's turn at the job ended."""

    outcome: str


Message = Ready | Arrived | Said | Ended

_decoder: Final = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """A line."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line."""
    message: Message = _decoder.decode(line)
    return message
