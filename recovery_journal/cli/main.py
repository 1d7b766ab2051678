"""The command line: `recovery-journal`."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from recovery_journal.cli import attempts, log, overview, people, serving, upkeep
from recovery_journal.cli.exits import ExitCode, report, table_for_help
from recovery_journal.cli.output import (
    discard_output,
    flush_output,
    is_output_full,
    is_reader_gone,
    prepare_output,
)
from recovery_journal.cli.target import Target
from recovery_journal.opening import DEFAULT_SCHEMA, SCHEMA_VARIABLE
from recovery_journal.postgres.connection_string import (
    CREDENTIALS,
    DSN_VARIABLE,
    is_like_dsn,
    misplaced,
)
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.process.identity import program

DECIDING: Final = "Deciding (with --by and --reason, which the log keeps)"

# These name the journal and not the action, so they may also stand after the command.
GLOBAL_OPTIONS: Final = ("--dsn", "--schema", "--data", "--app", "--durability")


class Commands(TyperGroup):
    """The commands, and their help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - the library's words
        """The help and, in lines of their own, the exit codes."""
        super().format_help(ctx, formatter)
        typer.echo(table_for_help())


app = typer.Typer(
    cls=Commands,
    name="recovery-journal",
    help="Recovers the attempts of dead workers, and keeps the proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001 - Typer calls it with what was given
    if is_wanted:
        typer.echo(program())
        raise typer.Exit


@app.callback()
def journal(
    context: typer.Context,
    *,
    dsn: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            help=f"The PostgreSQL server, like postgresql://user@host/database; else "
            f"${DSN_VARIABLE}, else the embedded server. Other users of this machine see what is "
            "typed here: keep a password in that variable or in a .pgpass file.",
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"The schema, else ${SCHEMA_VARIABLE}, else {DEFAULT_SCHEMA}."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Use the embedded server with its data here."),
    ] = None,
    app_name: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            help="Your own Python: an App of reducers and projections, a dict of reducers by "
            "kind, a Journal, or a function that returns one of them. A Journal brings its own "
            "server, schema and limits.",
        ),
    ] = None,
    durability: Annotated[
        Durability,
        typer.Option(
            help="relaxed: what was acknowledged in the last second before a crash of the server "
            "may be lost."
        ),
    ] = Durability.FULL,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Recovers the attempts of dead workers, and keeps the proof."""
    context.obj = Target(dsn=dsn, schema=schema, data=data, app=app_name, durability=durability)


COMMANDS: Final[dict[str, tuple[Callable[..., object], ...]]] = {
    "Recovering": (serving.init, serving.run, serving.sweep, serving.report_lost),
    "Inspecting": (overview.status, overview.ready, attempts.history, attempts.show, log.log),
    DECIDING: (people.resume, people.cancel, people.skip, people.after_restore),
    "Maintaining the journal": (upkeep.rebuild, upkeep.prune),
}
for panel, commands in COMMANDS.items():
    if panel is DECIDING:
        app.add_typer(people.quarantine, name="quarantine", rich_help_panel=panel)
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code, and raise nothing. A command whose output loses its
    reader, as by `head`, ends without a message."""
    prepare_output()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        flush_output()
    except BaseException as error:
        if not (is_reader_gone(error) or is_output_full(error)):
            raise
        discard_output()
        return ExitCode.PIPE_CLOSED if is_reader_gone(error) else ExitCode.OUTPUT_FULL
    return code


def _run(given: list[str]) -> int:
    try:
        _require_dsns_in_place(given)
        answer = app(args=_global_first(given), prog_name="recovery-journal", standalone_mode=False)
    except BaseException as error:
        if is_reader_gone(error):
            raise
        is_secret = any(CREDENTIALS.search(word) for word in _but_dsns(given))
        return int(report(error, as_json="--json" in given, has_credentials=is_secret))
    return int(answer) if isinstance(answer, int) else ExitCode.DONE


def _require_dsns_in_place(given: Sequence[str]) -> None:
    """Refuse a DSN that was passed to anything but `--dsn`, before it is used as any name."""
    for before, word in pairwise(["", *_but_dsns(given)]):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if is_like_dsn(value if equals else word):
            place = name or (before if before.startswith("-") else "an argument")
            raise typer.BadParameter(str(misplaced(place, "no DSN there")))


def _but_dsns(given: Sequence[str]) -> list[str]:
    """The arguments without the value of `--dsn`."""
    return [
        word
        for before, word in pairwise(["", *given])
        if before != "--dsn" and not word.startswith("--dsn=")
    ]


def _global_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the global options, wherever they stand, before the command."""
    first: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += [argument, *waiting]
            break
        if argument.partition("=")[0] not in GLOBAL_OPTIONS:
            rest.append(argument)
            continue
        first.append(argument)
        if "=" not in argument and waiting:
            first.append(waiting.pop(0))
    return first + rest


if __name__ == "__main__":
    sys.exit(main())
