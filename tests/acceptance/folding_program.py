"""A sweeper, or a claimer, whose reducer iterates a set; with another hash seed it does so in
another order: `python -m tests.acceptance.folding_program <settings>`."""

from typing import Any

import recovery_journal as rj
from tests.acceptance.job import LIMITS
from tests.acceptance.stop import say, settings

WORDS = frozenset(
    [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "and",
        "then",
        "some",
        "more",
    ]
)


def counted(state: Any, _name: str, output: Any) -> Any:
    """A reducer that makes a dict, and sets, in the order of a set."""
    counts = dict((state or {}).get("counts", {}))
    for word in output:
        counts[word] = counts.get(word, 0) + 1
    return {"counts": counts, "words": set(output), "pairs": {(it, len(it)) for it in output}}


REDUCERS = {"count": counted}


def order_of(state: Any) -> str:
    """The order in which this process has come by the words."""
    return " ".join(state["counts"])


if __name__ == "__main__":
    given = settings()
    with rj.open(given.dsn, schema=given.schema, limits=LIMITS, reducers=REDUCERS) as journal:
        if given.stop_at == "ready":
            (swept,) = journal.report_lost(worker_id="w-1", reason="gone")
            say(f"{swept.stage}")
            say(order_of(counted(None, "", WORDS)))
        else:
            claims = journal.claim(worker_id="w-2")
            say(f"{len(claims)} claimed")
            say(order_of(claims[0].folded_state))
