"""What the fuzzer begins with: the project's own corpus of histories, whole and in pieces."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.projection import Record
from scripts.fuzzing.stored import written

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
