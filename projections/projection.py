"""The definition of a projection, which is a read model: a type of row, the key that an event
concerns, and a fold.

A user's projection is a row type and a subclass with a name, `key_fields` and `fold`; the table,
the follower, the rebuild and the check need nothing more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

from msgspec import Struct

from recovery_journal.domain.errors import FoldFailed
from recovery_journal.domain.events import AnyEvent, RecoveryEvent, tag_of
from recovery_journal.domain.wording import message_of


class StreamRow(Struct, frozen=True, kw_only=True, gc=False):
    """A row that derives from one stream alone. `version` is that of the last event that changed
    it, so that folding an event again has no effect."""

    attempt_id: str
    version: int


class PositionRow(Struct, frozen=True, kw_only=True, gc=False):
    """A row that mixes streams. `position` is that of the last event that changed it."""

    position: int


RowT = TypeVar("RowT", bound=StreamRow | PositionRow)
PrimaryKey: TypeAlias = tuple[Any, ...]


class Record(NamedTuple):
    """One event with what the database added to it."""

    event: AnyEvent
    position: int
    recorded_at: datetime


class Index(NamedTuple):
    """Defines an index: over these fields, those in `descending` from the greatest down, and only
    over rows in which `only_while_null` is null."""

    name: str
    fields: tuple[str, ...]
    descending: tuple[str, ...] = ()
    only_while_null: str | None = None


class Listing(NamedTuple):
    """The rows are entries of a list, which they enter, leave and never enter again: a second entry
    is another row.

    They have the fields `entered_position` and `left_position`, which is None while they are on the
    list, and `entered_version` if they derive from one stream. An entry changes once, when it
    leaves, and then only its `version` (or `position`) and fields whose names begin with `left_`,
    all of them None until then.

    `order` names the fields by which readers see them, those in `descending` from the greatest
    down; together they identify each entry that is on the list at a time. In return readers can
    query what was on it, and in what order, at any past position: an entry is then shown as it was,
    without its `left_` fields and with the `version` (or `position`) that it entered with.
    """

    order: tuple[str, ...]
    descending: tuple[str, ...] = ()


class Projection(ABC, Generic[RowT]):
    """A fold of the log into rows.

    The first of `key_fields` is the key that events concern; a second orders the rows that one key
    may have over time. A fold is given the newest row of the key and no older one. Raise `version`
    when the meaning of the fold changes. A fold must be pure: it reads no clock and has no side
    effects.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    row_type: type[RowT]
    key_fields: ClassVar[tuple[str, ...]]
    events: ClassVar[tuple[type[RecoveryEvent], ...] | None] = None
    """The only events that its fold handles; None for all. Others never reach it."""
    indexes: ClassVar[tuple[Index, ...]] = ()
    listing: ClassVar[Listing | None] = None
    """The definition of the list that the rows form, if they form one."""
    is_inline: ClassVar[bool] = False
    """Whether its rows are written in the transaction that appends the events."""

    @abstractmethod
    def fold(self, row: RowT | None, record: Record) -> RowT | None:
        """The row after this record: the same object where nothing changes, a row with another
        primary key to begin a new one, None while there is no row.

        A changed row carries the event's version (or position). Rows are never removed.
        """

    def key(self, event: AnyEvent) -> str | None:
        """Which key the event concerns; None where it concerns no row."""
        return event.originator_id

    @property
    def is_stream_keyed(self) -> bool:
        """Whether every row derives from one stream, so that ranges of streams are independent."""
        return issubclass(self.row_type, StreamRow)

    @property
    def guard(self) -> str:
        """The field that distinguishes an older row from a newer one."""
        return "version" if self.is_stream_keyed else "position"

    def primary_key(self, row: RowT) -> PrimaryKey:
        """The values of the key fields."""
        return tuple(getattr(row, field) for field in self.key_fields)


class RowRefused(ValueError):
    """A fold returned something that is no valid row after the event."""


class Fold(Generic[RowT]):
    """Folds records into the newest rows of their keys and keeps what changed.

    `newest` holds the rows found in the table; keys that it lacks have no row. One object serves
    one batch, or one block of streams in a rebuild, so memory is bounded by that.
    """

    def __init__(self, projection: Projection[RowT], newest: Mapping[str, RowT]) -> None:
        self._projection = projection
        self._newest = dict(newest)
        self._changed: dict[PrimaryKey, RowT] = {}
        self._primary_key = _primary_key_of(projection)
        self._guard = attrgetter(projection.guard)
        later = projection.key_fields[1:]
        self._order = attrgetter(*later) if later else None
        self._events = None if projection.events is None else frozenset(projection.events)

    def add(self, records: Iterable[Record]) -> None:
        """Fold these records, in order of position. Raises `FoldFailed` for any exception of the
        fold, and then keeps what the records before it changed."""
        projection, newest, changed = self._projection, self._newest, self._changed
        guard, primary_key, order = self._guard, self._primary_key, self._order
        is_stream_keyed = projection.is_stream_keyed
        fold, events = projection.fold, self._events
        # Skip the call where every event concerns its stream: a rebuild runs this for each event.
        key_of = None if type(projection).key is Projection.key else projection.key
        for record in records:
            event = record[0]
            if events is not None and type(event) not in events:
                continue
            try:
                key = event.originator_id if key_of is None else key_of(event)
                if key is None:
                    continue
                row = newest.get(key)
                mark = event.originator_version if is_stream_keyed else record[1]
                if row is not None and mark <= guard(row):
                    continue
                after = fold(row, record)
                if after is row:
                    continue
                if after is None or guard(after) != mark:
                    self._refuse(after, key)
                place = primary_key(after)
                if place[0] != key or (
                    order is not None and row is not None and order(after) < order(row)
                ):
                    self._refuse(after, key)
                newest[key] = changed[place] = after
            except Exception as error:
                raise self._failure(record, error) from error

    def _refuse(self, row: RowT | None, key: str) -> NoReturn:
        """Raise `RowRefused`."""
        if row is None:
            raise RowRefused("the fold took a row away; mark it as gone instead")
        found, *later = self._primary_key(row)
        if found != key:
            raise RowRefused(f"the fold of key {key!r} returned a row of {found!r}")
        if later and self._is_back(row, key):
            raise RowRefused(f"the fold of key {key!r} went back to {later[0]!r}")
        raise RowRefused(f"the changed row has {self._projection.guard} {self._guard(row)}")

    def _is_back(self, row: RowT, key: str) -> bool:
        """Whether the newest row of the key comes after this one in the order of its rows."""
        newest = self._newest.get(key)
        return newest is not None and self._primary_key(newest) > self._primary_key(row)

    def changed(self) -> list[RowT]:
        """The rows to store, in order of their primary keys."""
        return [self._changed[key] for key in sorted(self._changed)]

    def newest(self, key: str) -> RowT | None:
        """The newest row of a key, changed or not."""
        return self._newest.get(key)

    def has_changed(self, row: RowT) -> bool:
        """Whether the row is now another object than before."""
        return self._primary_key(row) in self._changed

    def _failure(self, record: Record, error: Exception) -> FoldFailed:
        return FoldFailed(
            self._projection.name,
            position=record.position,
            attempt_id=record.event.originator_id,
            tag=tag_of(record.event),
            reason=f"{type(error).__name__}: {message_of(error)}",
        )


def _primary_key_of(projection: Projection[RowT]) -> Callable[[RowT], PrimaryKey]:
    # attrgetter returns a bare value for one name and a tuple, at C speed, for several.
    if len(projection.key_fields) > 1:
        return attrgetter(*projection.key_fields)
    return projection.primary_key
