"""The page of a run is made from its lines alone, and the same lines make the same page."""

from pathlib import Path
from typing import Any, Final

from scripts.benchmark.report import ratios_of, write_report

MACHINE: Final = {"processor": "a processor, 2 cores", "PostgreSQL": "16.2"}
CRASH: Final[dict[str, Any]] = {
    "case": "mass-crash",
    "unit": "leases/s",
    "leases": 10_000,
    "ours": 3891,
    "ratio_absurd": None,
}


def claim(batch: int, ratio: float) -> dict[str, Any]:
    return {"case": "claim", "unit": "leases/s", "batch": batch, "ratio_pgbench": ratio}


def grown(events: int, ratio: float) -> dict[str, Any]:
    taken = {"sweep": 3.0 * ratio, "ratio_sweep": ratio}
    return {"case": "growth", "unit": "ms", "events": events, "swept": 1000, **taken}


LINES: Final = [CRASH, claim(1, 0.57), claim(100, 0.51), grown(10_000, 1.0), grown(100_000, 1.1)]


def written(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    write_report(folder / "page.md", LINES, MACHINE, ["the rivals of a mass crash"])
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_page_has_machine_tables_and_charts_beside_it(tmp_path: Path) -> None:
    files = written(tmp_path / "run")

    page = files["page.md"].decode()
    assert set(files) == {"page.md", "page-ratios.svg", "page-growth.svg"}
    assert "| PostgreSQL | 16.2 |" in page
    assert "| ours | 3,891 |" in page
    assert "|  | 1 batch | 100 batch |" in page
    assert "| ratio_sweep | 1.0 | 1.1 |" in page
    assert "(page-ratios.svg)" in page
    assert files["page-growth.svg"].lstrip().startswith(b"<?xml")


def test_what_could_not_be_measured_is_said_and_drawn_nowhere(tmp_path: Path) -> None:
    page = written(tmp_path / "run")["page.md"].decode()

    assert "Not measured: the rivals of a mass crash" in page
    assert "| ratio_absurd | - |" in page
    assert ratios_of(LINES) == {
        "claim / pgbench (batch 1)": 0.57,
        "claim / pgbench (batch 100)": 0.51,
    }


def test_the_same_lines_make_the_same_files(tmp_path: Path) -> None:
    assert written(tmp_path / "one") == written(tmp_path / "two")
