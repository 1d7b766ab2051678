"""The records that processes keep of their calls, and how they are read."""

from pathlib import Path

import pytest

import recovery_journal as rj
from recovery_journal.errors import ServerUnavailable, StoreBusy
from scripts.storming.history import Action, Answer, History, _decoder, by_attempt, operations


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history", "worker-1")


def test_a_call_is_read_with_what_it_was_given_and_what_it_found(
    history: History, tmp_path: Path
) -> None:
    with history.calling(Action.HEARTBEAT, attempt_id="a-1", epoch=3) as found:
        found["ordinal"] = 7

    [read] = operations(tmp_path / "history")

    assert (read.action, read.answer) == (Action.HEARTBEAT, Answer.DONE)
    assert (read.attempt_id, read.epoch, read.ordinal) == ("a-1", 3, 7)
    assert read.returned_ns is not None
    assert read.invoked_ns <= read.returned_ns


def test_a_call_in_whose_middle_its_process_dies_has_no_answer(
    history: History, tmp_path: Path
) -> None:
    with history.calling(Action.RECORD, attempt_id="a-1", epoch=3, ordinal=7):
        [read] = operations(tmp_path / "history")

    assert (read.answer, read.returned_ns) == (Answer.UNKNOWN, None)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (rj.LeaseLost("a-1", operation="heartbeat", epoch=3, found="nothing"), Answer.REFUSED),
        (StoreBusy("end a lease", limit="1 s"), Answer.UNKNOWN),
        (KeyboardInterrupt(), Answer.UNKNOWN),
    ],
)
def test_only_a_lost_lease_is_a_refusal(
    history: History, tmp_path: Path, error: BaseException, answer: Answer
) -> None:
    with pytest.raises(type(error)), history.calling(Action.RECORD, attempt_id="a-1"):
        raise error

    [read] = operations(tmp_path / "history")

    assert read.answer is answer
    assert (read.returned_ns is None) == (answer is Answer.UNKNOWN)


def test_a_claim_asked_for_again_begins_with_the_first_time(
    history: History, tmp_path: Path
) -> None:
    with (
        pytest.raises(rj.Retry),
        history.calling(Action.CLAIM, dispatch_id="claim-1"),
    ):
        raise ServerUnavailable(server="s", reason="a lost reply")
    with history.calling(Action.CLAIM, dispatch_id="claim-2"):
        pass  # it won nothing
    with history.calling(Action.CLAIM, dispatch_id="claim-1") as found:
        [asked, _, again] = sorted(beginnings(tmp_path / "history"))
        found.update(attempt_id="a-1", epoch=5)

    [read] = operations(tmp_path / "history")

    assert asked < again
    assert read.invoked_ns == asked
    assert by_attempt([read]) == {"a-1": [read]}


def beginnings(folder: Path) -> set[int]:
    """When each call began."""
    return {
        _decoder.decode(line).invoked_ns
        for path in folder.glob("*.jsonl")
        for line in path.read_bytes().splitlines()
    }
