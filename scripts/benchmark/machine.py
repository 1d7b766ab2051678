"""The machine and the versions of a run: a page of figures is worth nothing without them."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
import psycopg

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("recovery-journal", "eventsourcing", "psycopg", "msgspec")
BYTES_PER_GB: Final = 1_000_000_000
CPU_INFO: Final = Path("/proc/cpuinfo")

SERVER: Final = "SELECT current_setting('server_version')"


def describe_machine(dsn: str) -> dict[str, str]:
    """Machine and versions, by name. Nothing in it names a host or a person."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(SERVER).fetchone()
    assert row is not None
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / BYTES_PER_GB:.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "PostgreSQL": str(row[0]),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, found = line.partition(":")
            if name.strip() == "model name":
                return found.strip()
    return platform.processor() or sys.platform


def _commit() -> str:
    """The commit that was measured, if this is a checkout and git is here."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
