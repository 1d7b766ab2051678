"""Only a lease that keeps trying waits for a server that is away."""

import pytest

import recovery_journal as rj
from recovery_journal.errors import StoreBusy
from tests.rules.scenes import held, session


@pytest.mark.parametrize("patient", ["a-1", None])
def test_a_lease_of_the_same_journal_does_not_wait_with_another(
    journal: rj.Journal, server_dsn: str, patient: str | None
) -> None:
    first, second = held(journal, "a-1"), held(journal, "a-2")
    if patient:
        first.keep_trying()
    first.record_step("step")
    second.record_step("step")
    with journal.database.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")

    with session(journal, server_dsn) as other:
        other.execute("LOCK TABLE run_steps IN EXCLUSIVE MODE")
        with pytest.raises(StoreBusy):
            second.record_step("blocked")

    second.record_step("free")
