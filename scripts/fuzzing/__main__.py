"""Fuzz for so many executions or seconds; say how far it came, or what was found and how to see it.

Each execution takes one damaged log the whole way, from its bytes to a printed history and to rows.
The library (atheris, the extra `fuzz`) watches which branches an input reaches and continues from
those that reached new ones. Exit code 1 for a finding, 2 for a wrong option or a missing library.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from scripts.fuzzing.stored import put_seeds
from scripts.fuzzing.way import go

ROOT: Final = Path(__file__).resolve().parents[2]
EXECUTIONS: Final = 200_000
LONGEST_INPUT: Final = 24_000
HANG_S: Final = 60
REPORT_EVERY_S: Final = 10.0
LINES_KEPT: Final = 40
FINDINGS: Final = Path("fuzz-findings")
KINDS: Final = ("crash", "timeout", "oom", "leak", "slow-unit")
MISSING: Final = (
    "cannot fuzz: found no library for it, needed the dependency group `fuzz`: "
    "install it with `pip install --group fuzz` (there is a wheel for Linux on x86-64 alone)"
)

# As in `#1024 NEW cov: 468 ft: 1550 corp: 237/661Kb lim: 6000 exec/s: 1505 rss: 74Mb …`.
PULSE: Final = re.compile(
    r"#(?P<executions>\d+)\s+\w+\s+cov: (?P<branches>\d+) ft: (?P<features>\d+) "
    r"corp: (?P<inputs>\d+)/"
)


def main() -> int:
    """0 where nothing was found."""
    options = _options()
    if options.replay is not None:
        go(options.replay.read_bytes())
        sys.stdout.write("nothing is found in it\n")
        return 0
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write(f"{MISSING}\n")
        return 2
    options.findings.mkdir(parents=True, exist_ok=True)
    before = set(_saved(options.findings))
    with TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, kept = Path(folder, "seeds"), Path(folder, "kept")
        seeds.mkdir()
        kept.mkdir()
        put_seeds(seeds)
        began = time.monotonic()
        code, numbers = _fuzz(options, kept, seeds)
    seconds = round(time.monotonic() - began, 1)
    found = sorted(set(_saved(options.findings)) - before)
    result = {**numbers, "seconds": seconds, "findings": len(found)}
    sys.stdout.write(f"{json.dumps(result)}\n")
    for path in found:
        sys.stderr.write(f"to see it again: scripts/fuzz --replay {path}\n")
    return 1 if found or code else 0


def _fuzz(options: argparse.Namespace, kept: Path, seeds: Path) -> tuple[int, dict[str, int]]:
    """Let the library's loop run in its process, and report progress every few seconds; its exit
    code, and how far it came, by what it says."""
    command = [
        *(sys.executable, "-m", "scripts.fuzzing.engine"),
        *(f"-runs={options.executions}", f"-seed={options.seed}"),
        *(f"-max_total_time={options.seconds}", f"-max_len={LONGEST_INPUT}"),
        *(f"-timeout={HANG_S}", f"-artifact_prefix={options.findings}/"),
        *(str(kept), str(seeds)),
    ]
    numbers = {"executions": 0, "branches": 0, "features": 0, "inputs": 0}
    last_lines: deque[str] = deque(maxlen=LINES_KEPT)
    reported_at = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (found := PULSE.match(line)) is None:
                last_lines.append(line)
                continue
            numbers = {name: int(number) for name, number in found.groupdict().items()}
            if time.monotonic() - reported_at >= REPORT_EVERY_S:
                reported_at = time.monotonic()
                text = ", ".join(f"{number:,} {name}" for name, number in numbers.items())
                sys.stderr.write(f"fuzz: {text}\n")
    if process.returncode:
        sys.stderr.writelines(last_lines)
    return process.returncode, numbers


def _saved(findings: Path) -> list[Path]:
    return [path for kind in KINDS for path in findings.glob(f"{kind}-*")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=EXECUTIONS, help="how many at most")
    parser.add_argument("--seconds", type=int, default=0, help="for how long at most; 0: no limit")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs")
    parser.add_argument(
        "--findings", type=Path, default=FINDINGS, help="the folder to save them in"
    )
    parser.add_argument("--replay", type=Path, help="only take this saved input the way again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
