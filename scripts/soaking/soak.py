"""The soak test itself: a steady fleet, some of it relieved or killed now and then, and sampled."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from scripts.harness.fleet import Fleet, Member
from scripts.harness.life import Role, Setting
from scripts.harness.parts import REBUILT
from scripts.soaking.figure import Observation, Processes, Sample
from scripts.soaking.member import CALLS, READ, STEADY_WORKERS
from scripts.soaking.server import SoakServer

TICK_S: Final = 0.05
CHILD_S: Final = 2.0
"""How often a worker's child is killed, so that there is always something to recover."""
RELIEF_S: Final = 4.0
"""How often a worker of those that come and go is relieved, or every other time killed."""
SHORTEST_SAMPLE_S: Final = 0.3
SAMPLES: Final = 450

DONE: Final = """
SELECT CASE WHEN event ? 'loss' THEN 'lost by ' || (event ->> 'loss')
        WHEN event ? 'ending' THEN event ->> 'ending'
        ELSE type END AS what,
    count(*) AS count
FROM journal_log
GROUP BY what
"""


class Soak:
    """Keeps a fleet steady and samples it. `wrongs` must not happen at all, `done` counts what was
    done."""

    def __init__(self, setting: Setting, server: SoakServer, fleet: Fleet) -> None:
        self._setting = setting
        self._server = server
        self._fleet = fleet
        self._applications = [it.name for it in fleet.members]
        workers = [it for it in fleet.members if it.role is Role.WORKER]
        self._steady = itertools.cycle(workers[:STEADY_WORKERS])
        self._passing = workers[STEADY_WORKERS:]
        self._relieved = itertools.cycle(self._passing)
        self._relief_count = self._sample_count = 0
        self._file = setting.folder / "samples.jsonl"
        self.samples: list[Sample] = []
        self.wrongs: list[str] = []
        self.done: dict[str, int] = {}

    def last(self, length_s: float, show: Callable[[float, str], object]) -> None:
        """Continue for so long; `show` is called with the seconds so far and a summary."""
        # A successor inherits the open files that this process has for all others; from the first
        # sample on, all of those that come and go do.
        for member in self._passing:
            member.relieve()
        began_at = time.monotonic()
        sample_s = max(SHORTEST_SAMPLE_S, length_s / SAMPLES)
        due = {
            self._sample: (0.0, sample_s),
            self._kill_child: (CHILD_S, CHILD_S),
            self._relieve: (RELIEF_S, RELIEF_S),
        }
        while (spent_s := time.monotonic() - began_at) < length_s:
            self.wrongs += self._fleet.tend()
            for act, (due_at_s, every_s) in due.items():
                if spent_s >= due_at_s:
                    act(spent_s)
                    due[act] = (max(due_at_s + every_s, spent_s), every_s)
            show(spent_s, f"{self._sample_count} samples")
            time.sleep(TICK_S)
        self.wrongs += self._fleet.dismiss()
        self.done = self._done()
        lines = self._file.read_bytes().splitlines()
        self.samples = [msgspec.json.decode(line, type=Sample) for line in lines]

    def _sample(self, at_s: float) -> None:
        """Sample every process. The sample is written to a file at once and not kept in memory,
        which every process that is forked from this one would have too."""
        processes = Processes()
        seen = [
            processes.observation(os.getpid(), "soak", "soak itself"),
            *(it for member in self._fleet.members for it in _of_member(member, processes)),
            *self._server.observations(self._setting.schema, self._applications, processes),
        ]
        sample = Sample(at_s=at_s, observations=tuple(it for it in seen if it is not None))
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(sample) + b"\n")
        self._sample_count += 1

    def _kill_child(self, _at_s: float) -> None:
        next(self._steady).kill_child(0)

    def _relieve(self, _at_s: float) -> None:
        self._relief_count += 1
        member = next(self._relieved)
        if self._relief_count % 4 < 2:
            member.relieve()
        else:
            member.kill()

    def _done(self) -> dict[str, int]:
        """How many events of each type the log has, and how often the processes did the rest."""
        rows = self._server.rows(DONE, search_path=self._setting.schema)
        done = {row["what"]: row["count"] for row in rows}
        for role, what in ((Role.REBUILDER, REBUILT), (Role.READER, READ), (Role.CALLER, CALLS)):
            done[f"{role}: {what}"] = self._setting.report_count(role, what)
        return dict(sorted(done.items()))


def _of_member(member: Member, processes: Processes) -> Iterator[Observation | None]:
    """A member and all its descendants."""
    yield processes.observation(member.pid, member.role, member.name)
    for child in processes.descendants(member.pid):
        is_guardian = member.role == Role.WORKER and child.info["ppid"] == member.pid
        kind = "guardian" if is_guardian else "child"
        role, name = f"{kind} of a {member.role}", f"{kind} {child.pid} of {member.name}"
        yield processes.observation(child.pid, role, name)
