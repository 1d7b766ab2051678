"""Every Python block of the README and the documents runs, and what they print is what they say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import recovery_journal as rj
from recovery_journal.cli.exits import ExitCode
from recovery_journal.domain import errors as domain_errors
from recovery_journal.domain.events import AnyEvent, tag_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(document: Path) -> list[str]:
    return BLOCK.findall(document.read_text(encoding="utf-8"))


def run(program: str, dsn: str, schema: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the blocks of one document as one program, in a schema of its own."""
    script = folder / "document.py"
    script.write_text(program, encoding="utf-8")
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "RECOVERY_JOURNAL_DSN": dsn,
        "RECOVERY_JOURNAL_SCHEMA": schema,
    }
    command = [sys.executable, "-W", "error", str(script)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_python_block_of_a_document_runs(
    document: Path, server_dsn: str, schema: str, tmp_path: Path
) -> None:
    program = "\n\n".join(blocks_of(document))

    done = run(program, server_dsn, schema, tmp_path)

    assert done.returncode == 0, done.stderr


def test_the_readme_example_prints_what_the_readme_says(
    server_dsn: str, schema: str, tmp_path: Path
) -> None:
    [example] = blocks_of(ROOT / "README.md")

    printed = run(example, server_dsn, schema, tmp_path).stdout.splitlines()

    assert printed[0] == "{'total': 41} ['r-1/2']"
    assert [line.split()[1] for line in printed[1:]] == [
        "LeaseGranted",
        "Confirmed",
        "LeaseExpired",
        "CheckpointReloaded",
        "Replayed",
        "ReadyForDispatch",
        "Dispatched",
        "Confirmed",
        "LeaseEnded",
    ]


def test_the_readme_example_has_about_twenty_lines() -> None:
    [example] = blocks_of(ROOT / "README.md")

    lines = [line for line in example.splitlines() if line.strip()]

    assert len(lines) <= 22


def test_every_link_of_a_document_leads_somewhere() -> None:
    broken = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]

    assert broken == []


def test_the_reference_names_every_event_limit_and_public_name() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[A-Za-z_-]+", reference))
    events = {kind.__name__ for kind in get_args(AnyEvent)}
    tags = {tag_of(kind) for kind in get_args(AnyEvent)}
    limits = set(rj.Limits.__struct_fields__) - {"policy"} | set(rj.Policy.__struct_fields__)

    missing = sorted((events | tags | limits) - named)

    assert missing == []


def test_every_error_is_public_and_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    defined = {
        name
        for name, found in vars(domain_errors).items()
        if isinstance(found, type) and issubclass(found, rj.RecoveryJournalError)
    }

    assert len(defined) > 40
    assert set(rj.errors.__all__) == defined
    assert {name for name in defined if f"`{name}`" not in reference} == set()
    assert {
        name for name in rj.__all__ if name in defined and not hasattr(rj.errors, name)
    } == set()


def test_the_reference_names_every_exit_code() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    missing = [code.value for code in ExitCode if f"\n| {code.value} |" not in reference]

    assert missing == []
