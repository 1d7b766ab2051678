"""The parts that a user's own program adds to the command line."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from recovery_journal.domain.replay import Reducer
from recovery_journal.projections.projection import Projection
from recovery_journal.values.codec import Codec


class App(Struct, frozen=True, kw_only=True):
    """Named by `--app module:attribute`: the reducers by kind of run, the codecs and the
    projections, that the journal is opened with."""

    reducers: Mapping[str, Reducer] = {}
    codecs: tuple[Codec, ...] = ()
    projections: tuple[Projection[Any], ...] = ()
