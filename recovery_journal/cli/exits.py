"""How a command ends: the one table of exit codes, and errors for people and for programs."""

import re
import sys
import traceback
from enum import IntEnum
from functools import partial
from typing import Any, Final, Self

import psycopg
import typer

from recovery_journal.cli import page, words
from recovery_journal.cli.output import is_output_full
from recovery_journal.domain.errors import LeaseLost, Refused, Retry, Stop
from recovery_journal.postgres.connection_string import CREDENTIALS


class ExitCode(IntEnum):
    """The codes on which a script may act, each with its meaning."""

    DONE = 0, "done"
    UNEXPECTED = 1, "an unexpected error: a bug here, shown with its traceback"
    USAGE = 2, "the command line is not understood"
    REFUSED = 3, "refused: unknown attempt, wrong stage, no or another schema, bad value"
    RETRY = 4, "try again later: server unavailable or busy, a rebuild under way"
    STOP = 5, "stop, a person must act: damaged events, a standby, another server"
    DIFFERENT = 6, "rebuild --check: the rows differ from the log"
    PARTLY = 7, "done, but some attempts could not proceed: sweep, report-lost, lift, resume"
    OUTPUT_FULL = 74, "the output cannot be written: its disk is full"
    INTERRUPTED = 130, "interrupted by Ctrl-C"
    PIPE_CLOSED = 141, "the reader of the output went away"

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """A member is its code, and has its meaning as an attribute."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


# One row for each reaction of errors.py; a lost lease is a refusal to the person at the terminal.
CODE_OF_ERROR: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (Refused, ExitCode.REFUSED),
    (LeaseLost, ExitCode.REFUSED),
    (Retry, ExitCode.RETRY),
    (Stop, ExitCode.STOP),
    (psycopg.errors.InsufficientPrivilege, ExitCode.REFUSED),
)

# A DSN where a command or another option's value is expected is not repeated.
HIDDEN: Final = "(what may be a DSN, not shown)"
CONNECTION_STRING: Final = re.compile(r"(?:postgres(?:ql)?://|\b(?:ssl)?password\s*=).*", re.DOTALL)

# Typer's own errors have a base that is exported in no version and is above this one in all.
USAGE_ERROR: Final[type[Exception]] = typer.BadParameter.__mro__[2]


def table_for_help() -> str:
    """The exit codes as the end of `--help`."""
    lines = [f"{code.value:>5}  {code.meaning}" for code in ExitCode]
    return "\n".join([" Exit codes:", *lines])


def code_of(error: BaseException) -> ExitCode:
    """The code with which the program ends after this error."""
    if isinstance(error, USAGE_ERROR):
        return ExitCode.USAGE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return ExitCode.INTERRUPTED
    if is_output_full(error):
        return ExitCode.OUTPUT_FULL
    found = (code for kind, code in CODE_OF_ERROR if isinstance(error, kind))
    return next(found, ExitCode.UNEXPECTED)


def report(error: BaseException, *, as_json: bool, has_credentials: bool = False) -> ExitCode:
    """Report an error on standard error: as a message, a JSON object, or, if it is unforeseen, its
    traceback. Where the command line `has_credentials`, nothing like them is shown."""
    code = code_of(error)
    hide = partial(CREDENTIALS.sub, HIDDEN) if has_credentials else str
    message = hide(_message(error))
    if code is ExitCode.INTERRUPTED or _is_help(error):
        return code
    if as_json:
        _say_json(type(error).__name__, message, code)
        return code
    if code is ExitCode.UNEXPECTED:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(words.plain(hide(line)), file=sys.stderr)  # noqa: T201 - the command line speaks to its user
    print(f"recovery-journal: {words.plain(message)}", file=sys.stderr)  # noqa: T201 - the command line speaks to its user
    if code is ExitCode.USAGE and (usage := _usage(error)):
        print(f"{usage}\nTry it with --help.", file=sys.stderr)  # noqa: T201 - as above
    return code


def _is_help(error: BaseException) -> bool:
    """Whether it is no error but the help of a command that was called without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


def _message(error: BaseException) -> str:
    format_message: Any = getattr(error, "format_message", None)
    text = str(format_message() if format_message else error).strip()
    if isinstance(error, USAGE_ERROR):
        text = CONNECTION_STRING.sub(HIDDEN, text)
    return text or type(error).__name__


def _usage(error: BaseException) -> str:
    context: Any = getattr(error, "ctx", None)
    return "" if context is None else str(context.get_usage())


def _say_json(kind: str, message: str, code: ExitCode) -> None:
    # The user's input may hold bytes that are no UTF-8; JSON cannot.
    message = message.encode(errors="backslashreplace").decode()
    document = {"error": {"type": kind, "message": message, "exit_code": code.value}}
    print(page.json_text(document), file=sys.stderr)  # noqa: T201 - as above
