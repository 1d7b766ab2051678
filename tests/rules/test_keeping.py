"""The leases of a claim are held: they are renewed until the caller has them."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Self

import pytest
from msgspec import structs

import recovery_journal as rj
from recovery_journal.domain.errors import LeaseLost, ServerUnavailable
from recovery_journal.domain.lease import Fence, LeaseStatus
from recovery_journal.postgres.database import Database
from recovery_journal.store import keeping
from recovery_journal.store.keeping import Keeping
from recovery_journal.store.runs import RunStore
from recovery_journal.values.extensions import BY_CODE, BY_TYPE
from tests.rules.scenes import OpenJournal, change, held, make_ready, rows, types_of, until

TTL = timedelta(seconds=0.3)
LIMITS = rj.Limits(ttl_s=60.0, grace_s=0.0)
RENEWALS_S = 1.0
"""Longer than several TTLs."""

HELD = """
SELECT count(*) FILTER (WHERE expires_at > clock_timestamp()) AS count
FROM leases WHERE status = 'held'
"""


@pytest.fixture
def journal(open_journal: OpenJournal) -> rj.Journal:
    return open_journal(limits=LIMITS)


@pytest.fixture(autouse=True)
def no_thread_remains() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Sweeping:
    """Sweeps beside the test, as another process does, and counts what it found lost."""

    def __init__(self, journal: rj.Journal) -> None:
        self._journal = journal
        self._stop = threading.Event()
        self.swept: list[rj.SweepResult] = []
        self._thread = threading.Thread(target=self._sweep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sweep(self) -> None:
        while not self._stop.wait(0.01):
            self.swept += self._journal.sweep()


def slow(
    monkeypatch: pytest.MonkeyPatch, method: str, *, before: Callable[[], object] = lambda: None
) -> None:
    """The store takes several TTLs to answer, and the interpreter is free meanwhile."""
    original = getattr(RunStore, method)
    has_begun: list[bool] = []

    def slowly(self: RunStore, *given: Any, **named: Any) -> Any:
        if not has_begun:
            has_begun.append(True)
            before()
        time.sleep(RENEWALS_S)
        return original(self, *given, **named)

    monkeypatch.setattr(RunStore, method, slowly)


def test_large_states_are_held_when_a_claim_returns_them(journal: rj.Journal) -> None:
    """Loading all of them takes longer than a TTL, and so may decoding one."""
    for number in range(6):
        lease = held(journal, f"a-{number}")
        lease.checkpoint({"state": "x" * 20_000_000, "many": list(range(500_000))})
        lease.hand_back()

    with Sweeping(journal) as sweeping:
        while claims := journal.claim(worker_id="w-1", limit=6, ttl=TTL):
            assert rows(journal, HELD)[0]["count"] == len(claims)
            for claim in claims:
                claim.lease.complete()

    assert sweeping.swept == []
    for number in range(6):
        assert types_of(journal, f"a-{number}").count("LeaseExpired") == 1


def test_a_slow_answer_of_the_store_loses_nothing(
    journal: rj.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make_ready(journal, f"a-{number}")
    with monkeypatch.context() as patched, Sweeping(journal) as sweeping:
        slow(patched, "kept")

        claims = journal.claim(worker_id="w-1", limit=3, ttl=TTL)

        assert rows(journal, HELD)[0]["count"] == 3
        assert sweeping.swept == []
        for claim in claims:
            claim.lease.complete()


def test_a_slow_load_keeps_the_lease(journal: rj.Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = held(journal, ttl=TTL)
    with monkeypatch.context() as patched, Sweeping(journal) as sweeping:
        slow(patched, "kept")

        claim = journal.load(lease)

        assert sweeping.swept == []
        claim.lease.complete()


def test_what_was_taken_back_meanwhile_is_neither_returned_nor_renewed(
    journal: rj.Journal, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_journal(limits=LIMITS)
    for number in range(2):
        make_ready(journal, f"a-{number}")

    def lose_one() -> None:
        change(other, "UPDATE leases SET loss = 'reported' WHERE attempt_id = 'a-0'")
        other.sweep()

    slow(monkeypatch, "kept", before=lose_one)

    claims = journal.claim(worker_id="w-1", limit=2, ttl=TTL)

    assert [claim.lease.attempt_id for claim in claims] == ["a-1"]
    (row,) = rows(journal, "SELECT status, expires_at FROM leases WHERE attempt_id = 'a-0'")
    assert row == {"status": "ready", "expires_at": None}


def test_a_load_whose_lease_is_taken_back_says_so(
    journal: rj.Journal, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_journal(limits=LIMITS)
    lease = held(journal, ttl=TTL)
    slow(
        monkeypatch,
        "kept",
        before=lambda: other.report_lost(worker_id=lease.worker_id, reason="it"),
    )

    with pytest.raises(LeaseLost):
        journal.load(lease)


def test_the_renewing_thread_ends_where_loading_raises(
    journal: rj.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(journal, "a-1")

    def fail(_self: RunStore, *_given: Any) -> Any:
        raise ServerUnavailable(server="here", reason="the network")

    monkeypatch.setattr(RunStore, "kept", fail)

    with pytest.raises(ServerUnavailable):
        journal.claim(worker_id="w-1")


def test_a_sweepers_cohort_is_renewed_while_it_reads(
    journal: rj.Journal, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = rj.Limits(grace_s=0.0, sweeper_ttl_s=0.3)
    sweeper, other = open_journal(limits=limits), open_journal(limits=limits)
    for number in range(3):
        held(journal, f"a-{number}")
    change(journal, "UPDATE leases SET loss = 'reported'")
    with monkeypatch.context() as patched, Sweeping(other) as sweeping:
        slow(patched, "kept")

        sweeper.sweep()

    assert {one.attempt_id for one in sweeping.swept} <= {"a-0", "a-1", "a-2"}
    for number in range(3):
        assert "Seized" not in types_of(journal, f"a-{number}")


def test_a_claim_stops_before_its_bytes_and_leaves_the_rest_on_the_list(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=rj.Limits(claim_bytes=250_000))
    for number in range(5):
        lease = held(journal, f"a-{number}")
        lease.checkpoint("x" * 100_000)
        lease.hand_back()

    taken = [journal.claim(worker_id="w-1", limit=5) for _ in range(4)]

    assert [[it.lease.attempt_id for it in claims] for claims in taken] == [
        ["a-0", "a-1"],
        ["a-2", "a-3"],
        ["a-4"],
        [],
    ]


@pytest.mark.parametrize("where", ["input", "state", "tail of one", "tail of many"])
def test_bytes_count_wherever_they_are_stored(open_journal: OpenJournal, where: str) -> None:
    journal = open_journal(limits=rj.Limits(claim_bytes=50_000))
    large = "x" * 100_000
    for number in range(2):
        lease = held(journal, f"a-{number}", input=large if where == "input" else None)
        if where == "state":
            lease.checkpoint(large)
        for _ in range({"tail of one": 1, "tail of many": 100}.get(where, 0)):
            lease.record_step("it", large if where == "tail of one" else "x" * 1_000)
        lease.hand_back()

    claims = [journal.claim(worker_id="w-1", limit=2) for _ in range(2)]

    assert [len(one) for one in claims] == [1, 1]
    (claim,) = claims[0]
    assert (claim.input or claim.state or claim.tail[0].output)[:3] == "xxx"


def test_what_a_checkpoint_covers_does_not_count(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=rj.Limits(claim_bytes=50_000))
    for number in range(2):
        lease = held(journal, f"a-{number}")
        lease.record_step("it", "x" * 100_000)
        lease.checkpoint("small")
        lease.hand_back()

    assert len(journal.claim(worker_id="w-1", limit=2)) == 2


def test_a_cohort_is_recovered_in_parts_and_renewed_as_a_whole(
    open_journal: OpenJournal,
) -> None:
    steps: list[tuple[str, ...]] = []
    journal = open_journal(
        limits=rj.Limits(claim_bytes=250_000, grace_s=0.0),
        observer=lambda step: steps.append(step.attempt_ids),
    )
    for number in range(5):
        held(journal, f"a-{number}").checkpoint("x" * 100_000)
    change(journal, "UPDATE leases SET loss = 'reported'")

    swept = journal.sweep()

    assert all(one.is_ready for one in swept)
    assert max(map(len, steps[1:])) == 2
    assert len(swept) == 5


@pytest.mark.parametrize("status", [LeaseStatus.HELD, LeaseStatus.RECOVERING])
def test_a_renewal_that_fails_is_reported_and_tried_again(
    journal: rj.Journal, status: LeaseStatus, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Database):
        def cursor(self) -> Any:
            raise ServerUnavailable(server="here", reason="it was just stopped")

    away = Away("", journal.database.schema)
    keep = Keeping(away, [("a-1", Fence(epoch=1, lease_id="l"))], status=status, ttl_s=0.03)

    with pytest.raises(ServerUnavailable), keep.beside():
        until(lambda: caplog.records, "a renewal to fail")

    assert "cannot renew leases while they are loaded" in caplog.text


def test_before_a_long_decoding_the_lease_is_renewed_for_as_long(journal: rj.Journal) -> None:
    lease = held(journal, ttl=TTL)
    keep = journal._keeping([lease.terms])

    keep(1)
    (before,) = rows(journal, "SELECT expires_at - clock_timestamp() AS left FROM leases")
    keep(64 * keeping.BYTES_A_SECOND)
    (after,) = rows(journal, "SELECT expires_at - clock_timestamp() AS left FROM leases")

    assert before["left"] <= TTL
    assert after["left"] > timedelta(seconds=60)
    assert keep.held() == {"a-1"}
    (ended,) = rows(journal, "SELECT expires_at - clock_timestamp() AS left FROM leases")
    assert ended["left"] <= TTL


class Slow:
    """A value whose codec needs longer than a lease lasts to make it again."""


SLOWLY = rj.Codec(
    "slow",
    Slow,
    encode=lambda _value: None,
    decode=lambda _form: Slowness.decode(),
)


class Slowness:
    is_on = False

    @classmethod
    def decode(cls) -> Slow:
        if cls.is_on:
            time.sleep(RENEWALS_S)
        return Slow()


@pytest.mark.parametrize("place", ["input", "output", "state"])
def test_a_slow_codec_loses_nothing_wherever_its_value_is(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    journal = open_journal(limits=LIMITS, codecs=[SLOWLY])
    lease = held(journal, "a-1", input=Slow() if place == "input" else None)
    if place == "output":
        lease.record_step("it", [Slow()])
    if place == "state":
        lease.checkpoint({"it": Slow()})
    lease.hand_back()
    monkeypatch.setattr(Slowness, "is_on", True)

    with Sweeping(journal) as sweeping:
        (claim,) = journal.claim(worker_id="w-1", ttl=TTL)
        claim.lease.complete()

    assert sweeping.swept == []


def test_a_slow_codec_loses_nothing_of_a_load(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(limits=LIMITS, codecs=[SLOWLY])
    lease = held(journal, input=Slow(), ttl=TTL)
    monkeypatch.setattr(Slowness, "is_on", True)

    with Sweeping(journal) as sweeping:
        claim = journal.load(lease)
        claim.lease.complete()

    assert sweeping.swept == []


def test_values_that_take_long_for_their_bytes_lose_nothing(
    journal: rj.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets are made by Python code, at a pace of its own."""
    sets = BY_TYPE[set]

    def slowly(form: list[Any]) -> set[Any]:
        time.sleep(RENEWALS_S)
        return set(form)

    lease = held(journal, "a-1")
    lease.checkpoint(["x" * keeping.SMALL_BYTES, {1}])
    lease.hand_back()
    make_ready(journal, "a-2")
    monkeypatch.setitem(BY_CODE, sets.code, structs.replace(sets, value_of=slowly))

    with Sweeping(journal) as sweeping:
        claims = journal.claim(worker_id="w-1", limit=2, ttl=TTL)
        assert rows(journal, HELD)[0]["count"] == len(claims) == 2
        for claim in claims:
            claim.lease.complete()

    assert sweeping.swept == []
