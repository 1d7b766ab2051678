"""The durable job: token statistics over Python sources, a run step per file.

Its input says everything, so any process can work on it: the folder, the files in it, and after
how many of them a checkpoint is due. Executions are also noted outside of the journal.
"""

import io
import os
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import recovery_journal as rj


class Executions:
    """A folder with a file for each process, in which it notes the key of every run step that it
    has executed. The journal knows nothing of it, so it can bear witness."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def note(self, key: str) -> None:
        """Say that this process has executed the run step with that key."""
        with (self._folder / str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(f"{key}\n")

    def of(self, run_id: str) -> dict[int, tuple[int, ...]]:
        """The ordinals that each process has executed of a run, in order, by process id."""
        found = {}
        for path in self._folder.iterdir():
            keys = path.read_text(encoding="utf-8").splitlines()
            pairs = (key.rpartition("/") for key in keys)
            ordinals = tuple(int(ordinal) for run, _slash, ordinal in pairs if run == run_id)
            if ordinals:
                found[int(path.name)] = ordinals
        return found

    def file_count(self, run_id: str) -> int:
        """How many different run steps have been executed so far."""
        return len({ordinal for ordinals in self.of(run_id).values() for ordinal in ordinals})


KIND: Final = "token-statistics"

# Packages installed beside the standard library, and its tests.
LEFT_OUT: Final = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
)

Statistics: TypeAlias = dict[str, Any]
"""`files` and `lines` are counts; `tokens`, `names` and `problems` map what was found to counts."""

NOTHING: Final[Statistics] = {"files": 1, "lines": 0, "tokens": {}, "names": {}, "problems": {}}
"""One file, in which nothing was found."""


class Moment(StrEnum):
    """Where in its work a worker is."""

    STARTED = "started"
    DONE = "done, and not yet recorded"
    RECORDED = "recorded, and not yet in a checkpoint"


Pass = Callable[[Moment, int], object]
"""Called whenever the work passes such a moment of the run step with that ordinal."""


def standard_library() -> Path:
    """A folder full of real input that every machine has."""
    return Path(sysconfig.get_path("stdlib"))


def job_input(root: Path, *, checkpoint_every: int, file_limit: int | None = None) -> Statistics:
    """The job over the Python sources below a folder."""
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    paths = sorted(path.as_posix() for path in found if not LEFT_OUT & set(path.parts))
    return {"root": str(root), "paths": paths[:file_limit], "checkpoint_every": checkpoint_every}


def counting(executions: Executions, passing: Pass) -> Callable[[rj.Claim], Statistics]:
    """The function of a worker: continue after the last recorded file, to the end."""

    def count(claim: rj.Claim) -> Statistics:
        lease, state = claim.lease, claim.folded_state
        root, paths = Path(claim.input["root"]), claim.input["paths"]
        passing(Moment.STARTED, lease.progress.ordinal)
        for ordinal, path in enumerate(paths, start=1):
            if ordinal <= lease.progress.ordinal:
                continue
            key = lease.begin_step(path)
            output = statistics_of(root / path)
            executions.note(key)
            passing(Moment.DONE, ordinal)
            output = lease.record_step(path, output)
            passing(Moment.RECORDED, ordinal)
            state = merged(state, path, output)
            if ordinal % claim.input["checkpoint_every"] == 0:
                state = lease.checkpoint(state)
        return dict(state)

    return count


def statistics_of(path: Path) -> Statistics:
    """One file's statistics; of a file that is no Python, what is wrong with it."""
    tokens: Counter[str] = Counter()
    names: Counter[str] = Counter()
    try:
        with tokenize.open(path) as file:
            source = file.read()
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            tokens[tokenize.tok_name[token.type]] += 1
            if token.type == tokenize.NAME:
                names[token.string] += 1
    except (SyntaxError, UnicodeError, tokenize.TokenError) as error:
        return NOTHING | {"problems": {type(error).__name__: 1}}
    found = {"lines": source.count("\n"), "tokens": dict(tokens), "names": dict(names)}
    return NOTHING | found


def merged(state: Statistics, _path: str, output: Statistics) -> Statistics:
    """The reducer: one more file's statistics added. Before the first, the state is the input."""
    if "paths" in state:
        return output
    return {
        "files": state["files"] + output["files"],
        "lines": state["lines"] + output["lines"],
        **{
            what: dict(Counter(state[what]) + Counter(output[what]))
            for what in ("tokens", "names", "problems")
        },
    }
