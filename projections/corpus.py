"""A frozen log of all that can happen to attempts; folds differ by the rows that they make of it.

It is part of the hash of every fold, also of users' folds: any change of its data causes a rebuild
of every projection everywhere. So the events are data and not code: a line of corpus.jsonl is the
position, the time of recording and the event, as it is stored. A new type of event, or a new choice
in one, is appended there as a further stream (a test requires it).

Streams are interleaved, positions have gaps short and long, and times are not always in the order
of positions. Every field of an event varies from one event to the next, and optional fields are
there in every second one. So a fold that leaves a field out, or takes another one, makes other
rows. The streams, by the number in their attempt's id:

- 1 to 4: recovered once, twice, after a hand-back, and without a checkpoint;
- 5 and 6: steps that fail and are retried, and fences that are replaced meanwhile;
- 7 to 14: recoveries that end early: the worker was alive, the run was done, a person cancelled;
- 15 to 19: quarantined in every stage and for every cause, and lifted by every option;
- 20 to 23: never lost: completed, past its timeout, waiting, resumed;
- 24 to 28: too new, too large, of an unknown worker, or of a code version that no worker has.
"""

from datetime import datetime
from functools import cache
from pkgutil import get_data
from typing import Final

import msgspec

from recovery_journal.domain.events import AnyEvent
from recovery_journal.projections.projection import Record

DATA: Final = "corpus.jsonl"


@cache
def corpus() -> tuple[Record, ...]:
    """The records, in order of position."""
    data = get_data(__name__, DATA)
    assert data is not None, f"{DATA} is part of this package"
    decode = msgspec.json.Decoder(tuple[int, datetime, AnyEvent]).decode
    return tuple(
        Record(event, position, recorded_at)
        for position, recorded_at, event in map(decode, data.splitlines())
    )
