"""Every deliberate error: one class per reaction, and a message that helps."""

import inspect
import re

import pytest

from recovery_journal.domain import errors
from recovery_journal.domain.errors import (
    AppendBlocked,
    AppendConflict,
    AttemptExists,
    CheckpointTooLarge,
    CheckpointTooNew,
    CodecFailed,
    CodecMissing,
    CorruptEvent,
    EmbeddedServerUnavailable,
    FoldFailed,
    HookFailed,
    ImpossibleEvent,
    InvalidInput,
    LeaseDiffers,
    LeaseLost,
    PayloadCorrupt,
    PositionNotReached,
    ProcessLost,
    ReadOnlyServer,
    RebuildUnderWay,
    RecoveryJournalError,
    ReducerFailed,
    Refused,
    ResultPruned,
    Retry,
    RowsOutdated,
    RowsUnreadable,
    RowUnstorable,
    RunBusy,
    RunMismatch,
    RunPruned,
    SchemaMissing,
    SchemaOccupied,
    SchemaTooNew,
    SchemaTooOld,
    SchemaUnsafe,
    ServerExhausted,
    ServerReplaced,
    ServerTooOld,
    ServerUnavailable,
    SettingRefused,
    StepOutOfOrder,
    Stop,
    StoreBusy,
    StreamOccupied,
    StreamUnusable,
    TailLost,
    UnknownAttempt,
    UnknownEvent,
    WrongStage,
)

REACTIONS = (RecoveryJournalError, Refused, Retry, Stop, StreamUnusable)

EXAMPLES: list[RecoveryJournalError] = [
    InvalidInput("run id", found="201 characters", needed="at most 200", do="shorten it"),
    UnknownAttempt("a-1"),
    AttemptExists("a-1", status="held", worker_id="w-1"),
    StreamOccupied("a-1", position=7),
    AppendBlocked(
        stream="a-1", limit="0.5 s", found="process 7", do="SELECT pg_terminate_backend(7)"
    ),
    RunBusy("r-1", open_attempt_id="a-1", status="held"),
    RunMismatch("r-1", what="kind", found="'report'", given="'mail'"),
    ResultPruned("a-1", digest="cs1:1"),
    RunPruned("r-1", pruned_at="2026-01-05 12:00:00 UTC"),
    WrongStage("a-1", wanted="replay the tail", found="held", needed="reloaded"),
    StepOutOfOrder(
        "r-1", wanted="record run step 4", found="2", needed="3 before it", do="record 3"
    ),
    CheckpointTooNew("r-1", found="checkpoint 2 is in format 3, known are up to 1"),
    CheckpointTooLarge("r-1", found="checkpoint 2 has 200 bytes, the limit is 100"),
    CodecMissing("the input of run 'r-1'", found="a value of codec 'money'"),
    CodecFailed("the input of run 'r-1'", codec="money", found="KeyError: 'amount'"),
    ReducerFailed("r-1", error_class="ValueError", message="not this step"),
    ServerTooOld(found="13.4", needed="14"),
    SchemaMissing("journal"),
    SettingRefused("fsync", found="off", needed="on"),
    SchemaUnsafe(
        "journal", found="role 'app' may create in it", needed="its owner alone", do="revoke it"
    ),
    SchemaTooNew("journal", found=3, needed=2),
    SchemaTooOld("journal", found=1, needed=2, owner="clerk"),
    SchemaOccupied("public", found='relation "leases" already exists'),
    RowsUnreadable("workers", reason="no column 'host'"),
    EmbeddedServerUnavailable("found no binaries"),
    ServerUnavailable(server="localhost:5432", reason="connection refused"),
    ServerExhausted(server="localhost:5432", reason="out of shared memory"),
    AppendConflict("a-7", expected_version=3, found="version 5"),
    StoreBusy("sweep", limit="5 s"),
    RebuildUnderWay(
        process_id=4711, host="db-1", since="2026-01-05 12:00:00 UTC", progress="3 of 9 ranges"
    ),
    ProcessLost("rebuild", process_id=4712, exit_code=-9),
    HookFailed("a-1", found="exit code 1", do="it is called again in 1 s"),
    RowsOutdated("workers", found="version 1", needed="version 2", do="rebuild it"),
    PositionNotReached("contexts", found=3, needed=5, timeout_s=2.0),
    LeaseLost("a-1", operation="record a run step", epoch=3, found="epoch 5"),
    UnknownEvent("a-1", version=3, tag="something-new", position=17),
    CorruptEvent("a-1", version=3, tag="dispatched", position=17, reason="its state is not JSON"),
    ImpossibleEvent("a-1", version=3, tag="seized", position=17, reason="after its end"),
    LeaseDiffers("a-1", lease_version=3, log_version=4, position=17),
    FoldFailed("workers", position=17, attempt_id="a-1", tag="dispatched", reason="KeyError"),
    RowUnstorable("mine", reason="integer out of range"),
    TailLost(reader="contexts", found=9, last=7),
    ReadOnlyServer("follow the log"),
    ServerReplaced("journal", found="timeline 2", needed="timeline 1"),
    PayloadCorrupt("state 'r-1/3'", found="cs1:1", needed="cs1:2"),
]


def drawn_tree() -> dict[str, str]:
    """Each error's parent as errors.py draws it."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (inspect.getdoc(errors) or "").splitlines():
        drawn = re.match(r"^((?:│   |    |├── |└── )*)([A-Z]\w+)(?:\s{2,}\S.*)?$", line)
        if drawn is None:
            continue
        # The tree is itself indented by one step.
        depth = len(drawn[1]) // 4 - 1
        path[depth:] = [drawn[2]]
        if depth:
            parents[drawn[2]] = path[depth - 1]
    return parents


def real_tree() -> dict[str, str]:
    """Each error's parent as Python knows it."""
    return {
        error.__name__: error.__bases__[0].__name__
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, RecoveryJournalError) and error is not RecoveryJournalError
    }


def test_the_tree_drawn_in_the_file_is_the_tree_of_the_classes() -> None:
    assert drawn_tree() == real_tree()


def test_every_error_has_an_example_here() -> None:
    made = {type(error).__name__ for error in EXAMPLES}

    assert made == set(real_tree()) - {reaction.__name__ for reaction in REACTIONS}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_message_says_what_cannot_be_done_and_what_to_do(error: RecoveryJournalError) -> None:
    message = str(error)

    assert message.startswith("cannot ")
    assert re.search(r"\bfound\b", message), "what was found"
    assert re.search(r"\b(needed|expected)\b", message), "what is needed"
    assert re.search(r"; \w+ \w+", message), "what to do now"


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_has_a_reaction(error: RecoveryJournalError) -> None:
    assert isinstance(error, Refused | Retry | LeaseLost | Stop)


def test_a_message_names_what_it_is_about() -> None:
    error = AppendConflict("a-7", expected_version=3, found="version 5")

    assert str(error) == (
        "cannot append to attempt 'a-7': expected version 3 to be free, found version 5; "
        "reload and decide again"
    )


QUOTED = "Jane Doe, card 4711"
QUOTING: list[RecoveryJournalError] = [
    InvalidInput("output", found=QUOTED, needed="a value", do="convert it"),
    CodecMissing("the input of run 'r-1'", found=f"the time zone {QUOTED!r}"),
    CodecFailed("the input of run 'r-1'", codec="money", found=f"ValueError: {QUOTED}"),
    ReducerFailed("r-1", error_class="ValueError", message=QUOTED),
    HookFailed("a-1", found=QUOTED, do="see it"),
    StepOutOfOrder("r-1", wanted="record", found=QUOTED, needed="3", do="record 3"),
    RecoveryJournalError(QUOTED),
]


@pytest.mark.parametrize("error", QUOTING, ids=lambda it: type(it).__name__)
def test_what_an_error_quotes_is_in_its_message_and_never_in_its_reason_for_the_log(
    error: RecoveryJournalError,
) -> None:
    assert QUOTED in str(error)
    assert error.reason_for_log
    assert QUOTED not in error.reason_for_log
