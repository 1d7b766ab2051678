"""A log as bytes: what the fuzzer changes, and what a finding is saved as.

One row of the log is one line of six parts: stream, version, tag, position, time in microseconds of
the epoch, and the state, which is all the rest of the line. Any bytes are a log, so that no change
is lost: a part that no column could hold becomes the nearest that one can.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from recovery_journal.domain.events import tag_of
from recovery_journal.log.mapper import encode
from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.projection import Record

PART: Final = b"|"
LINE: Final = b"\n"
PART_COUNT: Final = 6
LONGEST_LOG: Final = 64
LARGEST: Final = 2**63 - 1
NUMBER: Final = re.compile(rb"-?[0-9]{1,19}")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LATEST_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


class StoredRow(NamedTuple):
    """The columns of one event, as a reader is given them."""

    stream: str
    version: int
    tag: str
    position: int
    recorded_at: datetime
    state: bytes


def read(log: bytes) -> list[StoredRow]:
    """The rows of a log, up to a limit."""
    return [_row(line) for line in log.split(LINE)[:LONGEST_LOG] if line]


def written(records: Iterable[Record]) -> bytes:
    """A sound log of these records."""
    lines = []
    for event, position, recorded_at in records:
        microseconds = (recorded_at - EPOCH) // timedelta(microseconds=1)
        place = (event.originator_id, event.originator_version, tag_of(event))
        columns = (*place, position, microseconds)
        lines.append(PART.join([*(str(it).encode() for it in columns), encode(event)]))
    return LINE.join(lines)


def _row(line: bytes) -> StoredRow:
    parts = line.split(PART, PART_COUNT - 1)
    parts += [b""] * (PART_COUNT - len(parts))
    stream, version, tag, position, microseconds, state = parts
    return StoredRow(
        _text(stream),
        _number(version),
        _text(tag),
        _number(position),
        EPOCH + timedelta(microseconds=min(max(_number(microseconds), EARLIEST_US), LATEST_US)),
        state,
    )


def _text(part: bytes) -> str:
    return part.decode(errors="replace").replace("\0", "")


def _number(part: bytes) -> int:
    found = NUMBER.fullmatch(part)
    return min(max(int(found[0]), -LARGEST - 1), LARGEST) if found else 0


SHORT: Final = 5


def seeds() -> Iterator[bytes]:
    """Each event alone, each with the few before it in its stream, and each stream whole."""
    streams: defaultdict[str, list[Record]] = defaultdict(list)
    for record in corpus():
        tale = streams[record.event.originator_id]
        tale.append(record)
        yield written([record])
        yield written(tale[-SHORT:])
    for tale in streams.values():
        yield written(tale)


def put_seeds(folder: Path) -> None:
    """Each in a file of its own."""
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number:03}").write_bytes(seed)
