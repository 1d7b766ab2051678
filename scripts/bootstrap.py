"""The project's own environment: made once, kept up to date, entered by every launcher.

Standard library only, and readable to older Pythons, so that they get a message and no traceback.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NoReturn

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "recovery-journal.stamp"
PACKAGE = ROOT / "recovery_journal"
LINKED = ("domain", "projections")


def run(*arguments: str) -> NoReturn:
    """Run Python with these arguments in the environment, in place of this process."""
    prepare()
    os.execv(PYTHON, [str(PYTHON), *arguments])


def prepare() -> None:
    """Return once the environment holds what the lock and the project's description say."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            f"cannot run with Python {sys.version.split()[0]}: needed 3.11 or newer; "
            f"start it with a newer one, as in: python3.11 {' '.join(sys.argv)}"
        )
    with one_at_a_time():
        restore_links(PACKAGE)
        if not STAMP.exists() or STAMP.read_text() != wanted():
            install()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold off other launchers; the kernel lets go when this process ends, however it ends."""
    with LOCK.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def restore_links(package: Path) -> None:
    """Link the packages that stand beside `package` into it, where an archive left the links out.

    A source distribution holds files alone; the checkout's modules are imported by these links.
    """
    for name in LINKED:
        if not (package / name).exists():
            (package / name).symlink_to(Path("..") / name)


def wanted() -> str:
    """A digest of what the environment depends on: the checkout's place, lock, pyproject.toml."""
    digest = hashlib.sha256(os.fsencode(ROOT))
    for path in (LOCK, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def install() -> None:
    """Make the environment if there is none, and install the lock and then the project into it."""
    say("installing the project and what it needs into .venv (once, about a minute)")
    STAMP.unlink(missing_ok=True)
    if not PYTHON.exists():
        make_environment()
    options = ("install", "--quiet", "--disable-pip-version-check", "--no-input")
    call(*pip(), *options, "--require-hashes", "--requirement", str(LOCK))
    call(*pip(), *options, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    STAMP.write_text(wanted())


def make_environment() -> None:
    """A virtual environment, also where the system's Python came without its pip installer."""
    has_installer = importlib.util.find_spec("ensurepip") is not None
    has_pip = importlib.util.find_spec("pip") is not None
    if importlib.util.find_spec("venv") is None or not (has_installer or has_pip):
        sys.exit(
            f"cannot make .venv: {sys.executable} has neither ensurepip nor pip; "
            "install them (on Debian and Ubuntu: apt-get install python3-venv) and start again"
        )
    without = () if has_installer else ("--without-pip",)
    call(sys.executable, "-m", "venv", "--clear", *without, str(VENV))


def pip() -> tuple[str, ...]:
    """The environment's own pip, or ours on its behalf while it has none."""
    if any(VENV.glob("lib/python*/site-packages/pip")):
        return (str(PYTHON), "-m", "pip")
    return (sys.executable, "-m", "pip", "--python", str(PYTHON))


def call(*command: str) -> None:
    """Run a command that must succeed."""
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        sys.exit(f"cannot prepare .venv: exit code {code} from {' '.join(command)}")


def say(text: str) -> None:
    """A word to the person who waits; standard output belongs to the launcher."""
    print(f"recovery-journal: {text}", file=sys.stderr, flush=True)
