"""The journal on which a command works, as the global options name it."""

import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Final

import typer
from msgspec import Struct

from recovery_journal import inputs, opening
from recovery_journal.cli import page
from recovery_journal.cli.app import App
from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.domain.wording import message_of
from recovery_journal.journal import Journal
from recovery_journal.postgres.server_settings import DurabilityWeakened, words_of
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.read_models.following.outdated import ProjectionOutdated

APP_FORM: Final = "module:attribute"
NEEDED: Final = (
    "an App, a dict of reducers, a Journal, or a function without arguments that returns one"
)


class Target(Struct, frozen=True, kw_only=True):
    """The global options; None for one that was not given."""

    dsn: str | None = None
    schema: str | None = None
    data: Path | None = None
    app: str | None = None
    durability: str = Durability.FULL

    def open(
        self,
        *,
        must_exist: bool = True,
        must_be_accepted: bool = True,
        must_be_own: bool = False,
        may_migrate: bool = False,
    ) -> Journal:
        """Open the journal. Only on request it creates or migrates a schema, admits a server that
        is not accepted yet, and refuses a schema of another role.

        An `--app` that is an App adds its reducers, codecs and projections; one that is, or
        returns, a Journal brings server, schema and limits too, and then no other option may name
        them.
        """
        if self.dsn and self.data:
            raise typer.BadParameter("--dsn and --data name two servers; give one of them")
        found = _load(self.app) if self.app else App()
        if isinstance(found, Journal):
            if self.dsn or self.data or self.schema:
                found.close()
                raise typer.BadParameter(
                    "--app brings a journal with its server and schema; leave out --dsn, "
                    "--data and --schema"
                )
            return found
        return opening.open(
            self.dsn,
            schema=self.schema,
            data=self.data,
            reducers=found.reducers,
            codecs=found.codecs,
            projections=found.projections,
            must_exist=must_exist,
            must_be_accepted=must_be_accepted,
            must_be_own=must_be_own,
            may_migrate=may_migrate,
            durability=self.durability,
        )


def target_of(context: typer.Context) -> Target:
    """The global options of the current command."""
    target = context.find_object(Target)
    assert target is not None
    return target


def journal_of(context: typer.Context, *, must_be_accepted: bool = True) -> Journal:
    """The journal to work on, which must exist. Close it, or use it in a `with`.

    Outdated projections, and a server that does not keep what it acknowledges, are reported to
    people in one line each, to programs by `status`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProjectionOutdated)
        warnings.simplefilter("ignore", DurabilityWeakened)
        journal = target_of(context).open(must_be_accepted=must_be_accepted)
    if not context.params.get("as_json"):
        try:
            for warning in (*journal.outdated, *map(words_of, journal.weakened)):
                page.console(is_error=True).print(page.text(f"recovery-journal: {warning}"))
        except BaseException:
            journal.close()
            raise
    return journal


def _load(app: str) -> Journal | App:
    found = _attribute(app)
    if callable(found):
        found = _guarded(app, found)
    if isinstance(found, Journal | App):
        return found
    if isinstance(found, Mapping) and all(
        isinstance(kind, str) and callable(reducer) for kind, reducer in found.items()
    ):
        return App(reducers=found)
    raise inputs.refused(f"--app {app}", f"a {type(found).__name__}", NEEDED, "name such a one")


def _attribute(app: str) -> object:
    name, colon, attribute = app.partition(":")
    if not (name and colon and attribute):
        raise typer.BadParameter(f"--app {app!r}: write it as {APP_FORM}, like app.journal:journal")
    _search_here_last()
    return _guarded(app, lambda: pkgutil.resolve_name(app))


def _search_here_last() -> None:
    """Search for modules in the working directory too, but last: a file in it must not shadow an
    installed one. `python -m` has put it first."""
    here = str(Path.cwd())
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.path[:1] in ([""], [here]) and here not in named and "" not in named[:-1]:
        del sys.path[0]
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _guarded(app: str, call: Callable[[], object]) -> object:
    """The user's code may raise anything; its error is reported as the user's, in one line."""
    try:
        return call()
    except RecoveryJournalError:
        raise
    except (Exception, SystemExit) as error:  # it may be a program that was not made to be imported
        frames = extract_tb(error.__traceback__)
        place = f" at {os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}"
        found = f"{type(error).__name__}: {message_of(error)}{place}"
        raise inputs.refused(f"--app {app}", found, NEEDED, "fix it") from error
