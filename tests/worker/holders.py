"""Many workers in one program: `python -m tests.worker.holders <dsn> <schema> <count>`.

Each is a forked process with a session lock and a lease that declares it. It says so by a line,
and then waits to be killed.
"""

import os
import signal
import sys

import recovery_journal as rj
from recovery_journal.worker.session_lock import SessionLock


def main(dsn: str, schema: str, count: int) -> None:
    with rj.open(dsn, schema=schema, must_exist=True) as journal:
        journal.now()
    for number in range(count):
        if os.fork() == 0:
            hold(dsn, schema, number)
    while True:
        signal.pause()


def hold(dsn: str, schema: str, number: int) -> None:
    journal = rj.open(dsn, schema=schema, must_exist=True)
    lock = SessionLock(journal.database)
    assert lock.take()
    lease = journal.acquire(attempt_id=f"a-{number}", run_id=f"r-{number}", worker_id=f"w-{number}")
    lease.heartbeat(session_lock=lock.number)
    journal.close()  # of its connections, the lock's own is left
    os.write(1, b".\n")
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
