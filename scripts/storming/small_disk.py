"""A file system of our own, small enough to be filled: it lies in memory and, because it is mounted
in a namespace of this process alone, it is gone with the last process of the storm."""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

SIZE_MB: Final = 1024
PIECE_BYTES: Final = 1024 * 1024
CLONE_NEWNS: Final = 0x00020000  # of linux/sched.h

LIBC: Final = ctypes.CDLL(None, use_errno=True)


class SmallDisk:
    """Mounted on a folder. Only for root on Linux; elsewhere there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    @classmethod
    def on(cls, folder: Path) -> "SmallDisk | None":
        """Mount one, or say that it cannot be had. This process must not have any threads."""
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return None
        if LIBC.unshare(CLONE_NEWNS) != 0:
            return None
        commands = (
            ("mount", "--make-rprivate", "/"),
            ("mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=755", "tmpfs", str(folder)),
        )
        for command in commands:
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return None
        return cls(folder)

    def fill(self) -> None:
        """Leave no room for anything."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (PIECE_BYTES, 512):
                _write_until_full(file.fileno(), b"\0" * size)

    def free(self) -> None:
        """Remove what it was filled with. Idempotent."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, once no process works on it. Its contents are gone."""
        subprocess.run(("umount", str(self._folder)), capture_output=True, check=True)


def _write_until_full(file: int, piece: bytes) -> None:
    while True:
        try:
            os.write(file, piece)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
