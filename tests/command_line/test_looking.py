"""The commands that show attempts and the log."""

import re

import msgspec
import pytest

from recovery_journal import HistoryEntry, Journal
from recovery_journal.domain.recovery import Recovery
from recovery_journal.monitoring.status import Status
from recovery_journal.projections.dispatch_ready import DispatchReadyRow
from tests.command_line import scenes
from tests.command_line.conftest import Command


def test_status_shows_who_waits_what_is_refused_and_who_is_behind(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.refused(scenes.recovered(journal, "a-42"))
    scenes.quarantined(journal, dsn=server_dsn)
    scenes.waiting(journal)
    journal.rebuild()
    scenes.held(journal, "a-new")

    said = command("status")

    assert said.code == 0
    assert re.search(r"^held +1$", said.out, re.MULTILINE)
    assert re.search(r"^ready +1 +the oldest is a-42, for ", said.out, re.MULTILINE)
    assert re.search(r"^waiting +1$", said.out, re.MULTILINE)
    assert re.search(r"^quarantined +1 +1 corrupt$", said.out, re.MULTILINE)
    assert re.search(r"^refused stale writes +1, the newest of worker w-1", said.out, re.MULTILINE)
    assert re.search(r"^workers +1 +\d+ +2 events ", said.out, re.MULTILINE)
    assert "all of it settled" in said.out


def test_status_for_programs_is_the_status(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)

    said = command("status", "--json")

    status = msgspec.json.decode(said.out, type=Status)
    assert status.waiting.oldest_attempt_id == "a-1"
    assert status.settled_position == status.last_position > 0
    assert [one.name for one in status.projections] == sorted(
        projection.name for projection in journal.projections
    )


def test_ready_lists_in_dispatch_order_and_names_effects_in_doubt(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal, "a-1", worker_id="w-1")
    scenes.recovered(journal, "a-2", worker_id="w-2")

    said = command("ready")

    first, second = said.out.splitlines()[1:3]
    assert re.match(r"1 +a-1#1 +run of a-1 +report +acme +5 ", first)
    assert re.match(r"2 +a-2#1 ", second)
    assert "run of a-1/3 mail" in first
    assert "2 attempts with effects in doubt" in said.out


def test_ready_for_programs_is_the_list(command: Command, journal: Journal) -> None:
    scenes.recovered(journal, "a-1", worker_id="w-1")
    scenes.recovered(journal, "a-2", worker_id="w-2")

    said = command("ready", "--json", "--limit", "1")

    assert msgspec.json.decode(said.out, type=list[DispatchReadyRow]) == journal.dispatch_ready(
        limit=1
    )


def test_ready_says_that_no_attempt_waits(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)

    said = command("ready", "--kind", "another")

    assert (said.code, said.out) == (0, "No attempt waits for a worker.\n")


def test_history_shows_who_held_it_on_what_evidence_and_how_long_each_phase_took(
    command: Command, journal: Journal
) -> None:
    scenes.refused(scenes.recovered(journal, "a-42"))
    (claim,) = journal.claim(worker_id="w-2")
    claim.lease.record_step("mail", None)
    claim.lease.complete("done")

    said = command("history", "a-42")

    lines = said.out.splitlines()
    assert (
        lines[0] == "Attempt a-42 of run run of a-42, kind report, tenant acme: ended, lost 1 time"
    )
    names = [re.sub(r"^ +\d+ +\S+ +(\+\S+ \S+|\+< 1 ms)? *", "", line) for line in lines[4:]]
    assert names[0].startswith("lease granted        worker w-1 (")
    lost = next(line for line in lines if "lease expired" in line)
    assert "reported: worker w-1, silent for " in lost
    assert "reported step 2 ch1:" in lost
    assert lost.endswith(" - the pod is gone")
    assert "checkpoint 1 at step 1" in said.out
    assert "step 2, chain, ch1:" in said.out
    assert "heartbeat under the void epoch" in said.out
    assert re.match(
        r"a-42#1 +[\d:.]+ +.+ lost by w-1: reported, silent for .+ reload .+ · replay .+ · "
        r"make ready .+ · wait for a worker .+ · first write .+ · taken over by w-2$",
        lines[-1],
    )


def test_history_for_programs_holds_every_event_as_the_journal_has_it(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)

    said = command("history", "a-1", "--json")

    entries = msgspec.convert(said.document["entries"], list[HistoryEntry])
    assert entries == journal.history("a-1")
    (recovery,) = said.document["recoveries"]
    assert [phase["name"] for phase in recovery["phases"]] == ["reload", "replay", "make ready"]
    seconds = sum(phase["seconds"] for phase in recovery["phases"])
    assert recovery["total_s"] == pytest.approx(seconds)


def test_a_recovery_may_be_named_as_it_is_shown(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)
    journal.claim(worker_id="w-2")
    journal.report_lost(worker_id="w-2", reason="gone too")

    named = command("history", "a-1#2", "--json")
    asked = command("history", "a-1", "--recovery", "2", "--json")

    assert named.document == asked.document
    tags = [entry["event"]["type"] for entry in named.document["entries"]]
    assert tags == ["lease-expired", "checkpoint-reloaded", "replayed", "ready-for-dispatch"]


def test_an_id_that_looks_like_a_recovery_is_found_first(
    command: Command, journal: Journal
) -> None:
    scenes.held(journal, "a-1", worker_id="w-1")
    scenes.held(journal, "a-1#0", worker_id="w-2")

    said = command("history", "a-1#0", "--json")

    assert said.document["attempt_id"] == "a-1#0"


def test_show_shows_the_state_as_of_an_event_and_what_each_event_changed(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)

    said = command("show", "a-1", "--version", "3")

    epoch = journal.recovery("a-1", version=3).fence.epoch
    assert "version 3  lease expired" in said.out
    assert re.search(r"^ +stage +held → expired$", said.out, re.MULTILINE)
    assert re.search(rf"^ +fence.epoch +1 → {epoch}$", said.out, re.MULTILINE)
    assert re.search(r"^ +lost +lease expired \(version 3\)$", said.out, re.MULTILINE)
    end = said.out[said.out.index("As of version 3") :]
    assert re.search(r"^stage +expired$", end, re.MULTILINE)
    assert re.search(r"^reloaded +none$", end, re.MULTILINE)


def test_show_for_programs_is_the_attempt_as_of_that_event(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)

    said = command("show", "a-1", "--version", "4", "--json")

    shown = msgspec.convert(said.document["recovery"], Recovery)
    assert shown == journal.recovery("a-1", version=4)
    reloaded = said.document["entries"][-1]
    assert reloaded["entry"]["event"]["type"] == "checkpoint-reloaded"
    assert {"field": "stage", "before": "expired", "after": "reloaded"} in reloaded["changes"]


def test_show_of_one_recovery_shows_its_events_alone(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)

    before = command("show", "a-1", "--recovery", "0", "--json").document
    after = command("show", "a-1", "--recovery", "1", "--json").document

    assert [one["entry"]["position"] for one in before["entries"]] == [1, 2]
    assert before["recovery"]["stage"] == "held"
    assert [one["entry"]["position"] for one in after["entries"]] == [3, 4, 5, 6]
    assert after["recovery"]["stage"] == "ready"


def test_the_log_shows_the_newest_events_in_order(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)

    said = command("log", "--limit", "2")

    replayed, ready = said.out.splitlines()
    assert re.match(r" +5  \d{4}-\d\d-\d\d [\d:.]{12}  a-1#1 +replayed +step 2, chain", replayed)
    assert re.match(r" +6  .+ a-1#1 +ready for dispatch +from the tip", ready)


def test_the_log_after_a_position_is_the_journals_log(command: Command, journal: Journal) -> None:
    scenes.recovered(journal)

    said = command("log", "--after", "2", "--limit", "3", "--json")

    entries = [msgspec.convert(one, HistoryEntry) for one in said.documents]
    assert entries == journal.log(after=2, limit=3)


def test_the_newest_events_are_found_behind_gaps_in_the_positions(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    for _ in range(30):
        scenes.execute(server_dsn, journal.database.schema, DRAW_A_POSITION)
    scenes.held(journal, "a-2", worker_id="w-2")

    said = command("log", "--limit", "5", "--json")

    assert len(said.documents) == 5


DRAW_A_POSITION = "SELECT nextval('journal_events_notification_id_seq')"


def test_an_id_cannot_command_the_terminal(command: Command, journal: Journal) -> None:
    attempt_id = "a-\x1b[31m[red]\n日本"
    scenes.recovered(journal, attempt_id)

    said = [command(*words) for words in (("ready",), ("history", attempt_id), ("log",))]

    for one in said:
        assert "a-\\x1b[31m[red]\\n日本" in one.out
        assert "\x1b" not in one.out


def test_nothing_is_cut_off_a_terminal(command: Command, journal: Journal) -> None:
    attempt_id = "a-" + "long" * 45
    scenes.recovered(journal, attempt_id)

    said = [command(*words) for words in (("ready",), ("history", attempt_id), ("log",))]

    assert all(attempt_id in one.out for one in said)
    assert not any(line.endswith(" ") for one in said for line in one.out.splitlines())
