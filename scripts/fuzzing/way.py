"""The whole way of stored bytes: decoded, folded to attempts and to rows, printed for a person.

The only outcomes of any bytes are events that encode to the same meaning again, `UnknownEvent`
and `CorruptEvent`. Everything else that is raised here is a finding.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from eventsourcing.persistence import JSONTranscoder
from msgspec import Struct

from recovery_journal.cli.attempt_history import history_steps, phases
from recovery_journal.cli.changes import changes, shown
from recovery_journal.cli.essentials import essentials
from recovery_journal.cli.page import text
from recovery_journal.cli.words import moment
from recovery_journal.domain.bounds import LARGEST_NUMBER, SMALLEST_NUMBER, is_computable
from recovery_journal.domain.errors import CorruptEvent, FoldFailed, UnknownEvent
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.recovery import Recovery, Stage, project
from recovery_journal.library_adapter import LibraryMapper
from recovery_journal.log.mapper import UNREADABLE, decode, decode_block
from recovery_journal.monitoring.history import HistoryEntry
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import Fold, Projection, Record, RowRefused, RowT
from recovery_journal.projections.stream_fold import StreamFold
from recovery_journal.read_models.tables.row_form import RowForm
from scripts.fuzzing.stored import StoredRow, read

FORMS: Final = {it.name: RowForm(it.row_type) for it in BUILT_IN}

_mapper = LibraryMapper(JSONTranscoder())


def go(log: bytes) -> None:
    """Take the whole way with this log. Raises only for a finding."""
    rows = read(log)
    records = _decoded(rows)
    _compare_with_block(rows, records)
    for record in records:
        _encode_again(record.event)
        _require_meaning(record.event)
        _require_computable(record.event)
    kept = _in_order(records)
    _attempts(kept)
    for projection in BUILT_IN:
        _rows(projection, kept)


def _in_order(records: Iterable[Record]) -> list[Record]:
    """As a log may hold them, for it refuses others: one event at each position, and within a
    stream versions grow with positions."""
    kept: dict[int, Record] = {}
    last: dict[str, int] = {}
    for record in sorted(records, key=attrgetter("position")):
        stream, version = record.event.originator_id, record.event.originator_version
        if record.position not in kept and version > last.get(stream, 0):
            kept[record.position] = record
            last[stream] = version
    return list(kept.values())


def _decoded(rows: Iterable[StoredRow]) -> list[Record]:
    """Those that can be read."""
    records = []
    for row in rows:
        try:
            event = decode(
                stream=row.stream,
                version=row.version,
                tag=row.tag,
                state=row.state,
                position=row.position,
            )
        except (UnknownEvent, CorruptEvent):
            continue
        records.append(Record(event, row.position, row.recorded_at))
    return records


def _compare_with_block(rows: Sequence[StoredRow], records: Sequence[Record]) -> None:
    """Many at once must say what one by one says; for one of them is read by every follower."""
    if len(rows) == len(records):
        assert decode_block(*_columns(rows)) == [it.event for it in records]
        return
    for row in rows:
        try:
            decode_block(*_columns([row]))
        except (ValueError, *UNREADABLE):
            continue


def _columns(rows: Sequence[StoredRow]) -> tuple[list[str], list[int], list[str], list[bytes]]:
    return (
        [row.stream for row in rows],
        [row.version for row in rows],
        [row.tag for row in rows],
        [row.state for row in rows],
    )


def _encode_again(event: AnyEvent) -> None:
    """A decoded event is encoded as it would be appended, and decodes to the same again."""
    stored = _mapper.to_stored_event(event)
    again = _mapper.to_domain_event(stored)
    assert again == event, (event, again)
    assert _mapper.to_stored_event(again) == stored, (event, again)


def _require_meaning(struct: Struct) -> None:
    """A number or a time means the same to everybody who reads it."""
    for part in _parts(struct):
        if isinstance(part, int):
            assert SMALLEST_NUMBER <= part <= LARGEST_NUMBER, part
        elif isinstance(part, datetime):
            assert part.utcoffset() is not None, part


def _require_computable(event: AnyEvent) -> None:
    """From every time in an event others can be computed; `recorded_at` is the database's own."""
    assert all(is_computable(part) for part in _parts(event) if isinstance(part, datetime)), event


def _parts(part: object) -> Iterator[object]:
    if isinstance(part, Struct):
        for name in part.__struct_fields__:
            yield from _parts(getattr(part, name))
    else:
        yield part


def _attempts(records: Iterable[Record]) -> None:
    streams: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        streams[record.event.originator_id].append(record)
    for stream in streams.values():
        try:
            recovery = project(None, (record.event for record in stream))
        except CorruptEvent:  # a stream that does not begin with its grant
            continue
        assert recovery is not None
        _inspect(recovery)
        _print(stream)


def _inspect(recovery: Recovery) -> None:
    assert recovery.stage in Stage
    assert recovery.is_fenced in (True, False)
    if recovery.reloaded is not None:
        assert recovery.context().expected == recovery.reported


def _print(stream: Sequence[Record]) -> None:
    """As `history` and `show` do."""
    entries = [
        HistoryEntry(position=position, recorded_at=recorded_at, event=event)
        for event, position, recorded_at in stream
    ]
    steps = history_steps(entries)
    before = None
    for one in steps:
        text(essentials(one.entry.event))
        moment(one.entry.recorded_at)
        for change in changes(before, one.after):
            shown(change.after)
        before = one.after
    phases(steps)


def _rows(projection: Projection[RowT], records: list[Record]) -> None:
    """As a follower folds them, and as a rebuild does; then in both forms that PostgreSQL takes."""
    fold = Fold(projection, {})
    try:
        fold.add(records)
    except FoldFailed as error:
        # Such as a recovery with a lower number than the one before. Nothing else may be raised.
        if not isinstance(error.__cause__, RowRefused):
            raise
        return
    followed = fold.changed()
    if projection.is_stream_keyed:  # those alone are folded stream by stream
        assert _rebuilt(projection, records) == followed
    _store(FORMS[projection.name], followed)


def _rebuilt(projection: Projection[RowT], records: Iterable[Record]) -> list[RowT]:
    by_stream = sorted(
        records, key=lambda it: (it.event.originator_id, it.event.originator_version)
    )
    fold = StreamFold(projection)
    half = len(by_stream) // 2
    rows = [*fold.add(by_stream[:half]), *fold.add(by_stream[half:]), *fold.finish()]
    return sorted(rows, key=projection.primary_key)


def _store(form: RowForm[Any], rows: Sequence[Any]) -> None:
    encoded = form.to_json(rows)
    assert form.to_json(form.from_json(encoded.decode())) == encoded
    for row in rows:
        _require_meaning(row)
    copied = list(csv.reader(_lines(form.to_csv(rows)), doublequote=False, escapechar="\\"))
    assert [len(it) for it in copied] == [len(form.columns)] * len(rows)


def _lines(copied: bytes) -> io.StringIO:
    return io.StringIO(copied.decode(), newline="\n")
