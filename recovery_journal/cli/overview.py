"""The commands that show the present: `status` on one page, and `ready`, the list in order."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.essentials import in_doubt
from recovery_journal.cli.options import AsJson, At, Kinds, Tenants, moment_of
from recovery_journal.cli.target import journal_of
from recovery_journal.domain.lease import OPEN_STATUSES, LeaseStatus
from recovery_journal.monitoring.projection_status import ProjectionStatus
from recovery_journal.monitoring.status import Status
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.projections.dispatch_ready import DispatchReadyRow


def status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the journal's health: queue, failing recoveries, refused writes, projection lag."""
    with journal_of(context, must_be_accepted=False) as journal:
        found = journal.status()
    page.show_result(found, _overview(found), as_json=as_json)


def _overview(status: Status) -> Iterator[RenderableType]:
    """The parts of the page, the most important first: the queue, failures, lag."""
    yield _title(status)
    yield Text()
    if status.problems:
        yield _problems(status)
        yield Text()
    if status.delays:
        yield _delays(status)
        yield Text()
    listed = [one for one in LeaseStatus if one in OPEN_STATUSES or one in status.leases]
    yield page.pairs([(one.value, _attempts(status, one)) for one in listed])
    if status.failing:
        yield Text()
        yield from _failing(status)
    yield Text()
    yield page.pairs([("log", _log(status)), ("refused stale writes", _refused(status))])
    yield Text()
    yield page.table(
        ("projection", "version", "position", "behind", "for", "state"),
        [_projection(one) for one in status.projections],
        numbers=("version", "position", "behind", "for"),
    )


def _title(status: Status) -> Text:
    server = status.server
    title = page.text(f"Recovery journal {server.schema}", "bold")
    uptime, now = words.duration(server.uptime_s), words.moment(server.now)
    where = f" on {server.address}, PostgreSQL {server.version} up for {uptime}, {now} UTC"
    title.append_text(page.text(where))
    if server.durability is not Durability.FULL:
        relaxed = ", durability relaxed: a crash of the server may lose the last second"
        title.append_text(page.text(relaxed, "yellow"))
    return title


def _problems(status: Status) -> RenderableType:
    rows = [(page.text(one.what, "bold red"), one.do) for one in status.problems]
    return page.table(("problem", "what helps"), rows)


def _delays(status: Status) -> RenderableType:
    now = status.server.now
    rows = [
        (
            page.text(one.what, "bold yellow"),
            "" if one.since is None else words.between(one.since, now),
            one.do,
        )
        for one in status.delays
    ]
    return page.table(("delayed", "for", "what helps"), rows, numbers=("for",))


def _attempts(status: Status, lease: LeaseStatus) -> Text:
    count = status.leases.get(lease, 0)
    style = page.STYLES.get(lease.value, "") if count else "dim"
    line = page.text(f"{count:>8,}", style)
    if not count:
        return line
    details = {
        LeaseStatus.RECOVERING: [f"{n:,} {stage.value}" for stage, n in status.recovering.items()],
        LeaseStatus.READY: _waiting(status),
        LeaseStatus.QUARANTINED: [
            f"{n:,} {words.spaced(cause)}" for cause, n in status.quarantined.items()
        ],
    }
    return line.append_text(page.text("   " + ", ".join(details.get(lease, []))))


def _waiting(status: Status) -> list[str]:
    waiting = status.waiting
    if waiting.oldest_attempt_id is None:
        return []
    age = words.duration(waiting.oldest_age_s)
    parts = [f"the oldest is {waiting.oldest_attempt_id}, for {age}"]
    if waiting.deferred_count:
        parts.append(f"{waiting.deferred_count:,} must not start yet")
    return parts


def _failing(status: Status) -> Iterator[RenderableType]:
    now = status.server.now
    rows = [
        (
            words.recovery_name(one.attempt_id, one.recovery_no),
            "" if one.stage is None else page.styled(one.stage.value),
            one.failed_step_count,
            words.between(now, one.retry_at) if one.retry_at > now else "now",
            page.text(one.error or "its stream could not be read, or see its history", "red"),
        )
        for one in status.failing
    ]
    headings = ("failing now", "stage", "tries", "again in", "error")
    yield page.table(headings, rows, numbers=("tries", "again in"))
    yield from page.more(status.failing_count, len(status.failing))


def _log(status: Status) -> str:
    if status.settled_position == status.last_position:
        return f"last position {status.last_position}, all of it settled"
    return f"last position {status.last_position}, settled up to {status.settled_position}"


def _refused(status: Status) -> Text:
    refused = status.refused_writes
    if not refused.count:
        return Text("0")
    newest = "" if refused.newest_at is None else f", at {words.moment(refused.newest_at)} UTC"
    return page.text(
        f"{refused.count:,}, the newest of worker {refused.newest_worker_id}{newest}", "yellow"
    )


def _projection(one: ProjectionStatus) -> tuple[object, ...]:
    state = page.styled(one.state.value)
    if detail := one.error or one.do:
        state.append_text(page.text(f": {detail}"))
    elif one.is_inline:
        state.append(" (rows are written inline)", style="dim")
    lag = words.duration(one.lag_s) if one.lag_events else ""
    return one.name, one.version, one.position, words.plural(one.lag_events, "event"), lag, state


def ready(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    kind: Kinds = None,
    tenant: Tenants = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List the attempts that wait for a worker, in the order in which they are dispatched; or
    those that waited at a position or a time."""
    with journal_of(context) as journal:
        moment = None if at is None else moment_of(journal, at)
        position = None if moment is None else moment.position
        rows = journal.dispatch_ready(limit=limit, kinds=kind, tenants=tenant, at=position)
        now = journal.now()
    if moment is None:
        page.show_result(rows, _listed(rows, now), as_json=as_json)
        return
    then = moment.time or now
    parts = [page.text(f"As of {moment}", "bold"), *_listed(rows, then, waits="waited")]
    page.show_result({"at": moment, "rows": rows}, parts, as_json=as_json)


def _listed(
    rows: Sequence[DispatchReadyRow], now: datetime, *, waits: str = "waits"
) -> Iterator[RenderableType]:
    if not rows:
        yield f"No attempt {waits} for a worker."
        return
    headings = (
        *("#", "attempt", "run", "kind", "tenant", "priority", "waits for", "not before", "from"),
        *("code", "in doubt"),
    )
    lines = [
        (
            number,
            words.recovery_name(row.attempt_id, row.recovery_no),
            *(row.run_id, row.kind, row.tenant, row.priority),
            words.between(row.ready_at, now),
            _not_before(row, now),
            *(row.start.value, row.code_version),
            page.text(in_doubt(row.in_doubt), "bold yellow"),
        )
        for number, row in enumerate(rows, 1)
    ]
    yield page.table(*_filled(headings, lines), numbers=("#", "priority", "waits for"))
    count = sum(bool(row.in_doubt) for row in rows)
    if count:
        yield Text()
        yield (
            f"{words.plural(count, 'attempt')} with effects in doubt: they were announced and "
            "never recorded, so they may happen twice."
        )


def _not_before(row: DispatchReadyRow, now: datetime) -> str:
    """The time before which it must not start; the present list leaves such entries out."""
    if row.not_before is None or row.not_before <= now:
        return ""
    return words.moment(row.not_before)


def _filled(
    headings: Sequence[str], lines: Sequence[Sequence[object]]
) -> tuple[list[str], list[list[object]]]:
    """The rows without the columns that are empty."""
    kept = [index for index in range(len(headings)) if any(str(line[index]) for line in lines)]
    return [headings[index] for index in kept], [[line[index] for index in kept] for line in lines]
