"""The check of words and names: each that is not used is found, with its place and a better one."""

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from scripts.vocabulary import (
    ALLOWED,
    INSTEAD,
    RENAMED,
    ROOT,
    all_files,
    findings,
    findings_in,
)

SENTENCES = [
    "The worker is told of it.",
    "It tells the operator.",
    "Nobody holds the lease.",
    "any claimer, whoever it is",
    "The rebuild goes on.",
    "It went on, and was going\non again.",
    "The rows are made anew.",
    "Ask once more.",
    "The second call shrugs.",
    "The same command twice is no news.",
    "A caller that asks again gets it.",
    "After every commit it is looked.",
    "The sweeper looks at the row.",
    "A look is enough.",
    "It comes to nothing.",
    "A gap leads to an error.",
    "The attempt was given up for a crash loop.",
    "What is held against the run.",
    "Mend the fold.",
    "A blow hits the worker.",
    "a calm sea",
    "Read it. Who acquires first, wins.",
    "What it raises is reported.",
]


def found_in(folder: Path, name: str, text: str) -> list[str]:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return [str(finding) for finding in findings_in(file, name)]


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.py", '"""{}"""\n'),
        ("a.py", "def f() -> str:\n    return f'''{}'''\n"),
        ("a.md", "# Title\n\n{}\n"),
    ],
    ids=["docstring", "text", "page"],
)
def test_a_sentence_that_needs_another_word_is_found(
    tmp_path: Path, sentence: str, name: str, form: str
) -> None:
    assert found_in(tmp_path, name, form.format(sentence))


def test_a_comment_of_a_statement_is_read_too(tmp_path: Path) -> None:
    found = found_in(tmp_path, "a.sql", "SELECT 1; -- as nobody holds it\n")

    assert found == [f"a.sql:1: 'nobody': say {INSTEAD['nobody']}"]


def test_a_comment_of_two_lines_is_read_as_one_text(tmp_path: Path) -> None:
    found = found_in(tmp_path, "a.py", "x = 1\n# The rebuild goes\n# on later.\n")

    assert found == ["a.py:2: 'goes on': say resume, advance, continue, proceed"]


@pytest.mark.parametrize(
    "name", ["told", "is_told", "TOLD", "goOn", "go_on", "nobody_left", "looked_at", *RENAMED]
)
def test_a_name_that_needs_another_word_is_found(tmp_path: Path, name: str) -> None:
    assert found_in(tmp_path, "a.py", f"x = 1\n{name} = 2\n")[0].startswith("a.py:2: ")


def test_what_is_said_well_is_left_alone(tmp_path: Path) -> None:
    text = (
        '"""Report to the operator what a worker may claim: the toll of a lookup, in a recommended '
        'way that looks like this."""\nmanifold = stolid = 1  # a continuation; is it anewed?\n'
    )

    assert found_in(tmp_path, "a.py", text) == []


def test_a_question_may_begin_with_its_pronoun(tmp_path: Path) -> None:
    assert found_in(tmp_path, "a.md", "## Who holds the lease?\n") == []


def test_the_check_fails_and_names_the_place_and_the_word_to_use(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nThe worker was told.\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "scripts.vocabulary", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == f"{page}:3: 'told': say report, notify, record, show\n"


def test_nothing_here_needs_another_word() -> None:
    assert [str(finding) for finding in findings(all_files())] == []


def test_each_allowance_is_needed() -> None:
    files = all_files()

    for allowance in ALLOWED:
        assert any(fnmatch(name, allowance.files) for name in files), allowance


def test_each_phrase_has_an_example_here(tmp_path: Path) -> None:
    found = found_in(tmp_path, "a.md", "\n\n".join(SENTENCES))

    assert {line.split(": ", 2)[2] for line in found} >= {f"say {it}" for it in INSTEAD.values()}
