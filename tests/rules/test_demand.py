"""Which code versions workers ask for: bounded, and forgotten when no worker asks any more."""

import psycopg
import pytest

import recovery_journal as rj


def test_a_claim_names_a_bounded_number_of_kinds_in_code_versions(journal: rj.Journal) -> None:
    names = [f"n-{number}" for number in range(1_001)]

    for kinds, versions in ((None, names), (names[:40], names[:26]), (names, names[:1])):
        with pytest.raises(rj.InvalidInput, match="at most 1,000 pairs"):
            journal.claim(worker_id="w-1", kinds=kinds, code_versions=versions)
        with pytest.raises(rj.InvalidInput, match="at most 1,000 pairs"):
            rj.Worker(journal, "w-1", print, kinds=kinds, code_versions=versions)
    assert journal.claim(worker_id="w-1", kinds=names) == []
    assert journal.claim(worker_id="w-1", kinds=names[:40], code_versions=names[:25]) == []


def demand_rows(journal: rj.Journal) -> list[tuple[str, str]]:
    with journal.database.cursor() as cursor:
        rows = cursor.execute(
            "SELECT kind, code_version FROM code_version_demand ORDER BY 1, 2"
        ).fetchall()
    return [(row["kind"], row["code_version"]) for row in rows]


def age_demand(journal: rj.Journal, by: str) -> None:
    with journal.database.cursor() as cursor:
        cursor.execute("UPDATE code_version_demand SET asked_at = asked_at - %s::interval", [by])


def test_what_no_worker_asks_for_any_more_is_forgotten(journal: rj.Journal) -> None:
    journal.claim(worker_id="w-1", kinds=["k"], code_versions=["1", "2"])
    age_demand(journal, "29 days")
    journal.claim(worker_id="w-1", kinds=["k"], code_versions=["3"])
    assert demand_rows(journal) == [("k", "1"), ("k", "2"), ("k", "3")]
    age_demand(journal, "2 days")

    journal.claim(worker_id="w-1", kinds=["k"], code_versions=["4"])

    assert demand_rows(journal) == [("k", "3"), ("k", "4")]


def test_demand_that_is_just_being_renewed_does_not_delay_a_claim(
    journal: rj.Journal, server_dsn: str
) -> None:
    journal.claim(worker_id="w-1", kinds=["k"], code_versions=["1"])
    age_demand(journal, "31 days")

    with psycopg.connect(server_dsn) as renewing:
        renewing.execute("SELECT set_config('search_path', %s, false)", [journal.database.schema])
        renewing.execute("SELECT * FROM code_version_demand FOR UPDATE")
        journal.claim(worker_id="w-1", kinds=["k"], code_versions=["2"])

    assert demand_rows(journal) == [("k", "1"), ("k", "2")]
