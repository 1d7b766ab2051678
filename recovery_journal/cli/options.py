"""The options that several commands share."""

from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")
]

AttemptId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ATTEMPT", help="The attempt's id.", show_default=False)
]

By: TypeAlias = Annotated[
    str, typer.Option("--by", metavar="NAME", help="The person who decides; kept in the log.")
]

Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="The reason; kept in the log.")
]

Kinds: TypeAlias = Annotated[
    list[str] | None, typer.Option("--kind", metavar="KIND", help="Only runs of this kind.")
]

Tenants: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tenant", metavar="TENANT", help="Only of this tenant.")
]
