"""A rebuild in a process of its own: `python -m tests.acceptance.rebuild_program <settings>`.

It says how many events an earlier start has folded as soon as it knows, and how it ended.
"""

import recovery_journal as rj
from recovery_journal.read_models.rebuild.progress import Phase, RebuildProgress
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from tests.acceptance.stop import Stop, say, settings

PROCESS_COUNT = 2

# Small blocks make it slow, so that its processes are in the middle of something when it is killed.
BLOCK_EVENTS = 50

given = settings()
stop = Stop(given.stop_at)
said: list[int] = []


def reach(progress: RebuildProgress) -> None:
    """A boundary is a phase, a phase of one projection, or a hundredth of all that is folded."""
    if not said:
        said.append(progress.done_before)
        say(f"{progress.done_before} done before")
    stop.reach(progress.phase.value)
    stop.reach(f"{progress.phase.value} {progress.projection}")
    if progress.phase is Phase.FOLDING:
        for hundredth in range(100 * progress.event_count // progress.total + 1):
            stop.reach(f"folding {hundredth}")


with rj.open(given.dsn, schema=given.schema) as journal:
    rebuild = Rebuild(
        journal.database,
        journal.reader,
        process_count=PROCESS_COUNT,
        block_events=BLOCK_EVENTS,
        on_progress=reach,
    )
    try:
        report = rebuild.run()
    except rj.RecoveryJournalError as error:
        say(type(error).__name__)
    else:
        say(f"rebuilt {report.event_count}")
