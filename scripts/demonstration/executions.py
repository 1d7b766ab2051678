"""What was really executed, and by which process: the job's effect outside of the journal."""

import os
from pathlib import Path


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
