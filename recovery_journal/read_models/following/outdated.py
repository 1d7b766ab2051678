"""Rows that another fold than this program's made, and the remedy."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from recovery_journal.domain.errors import RowsOutdated
from recovery_journal.projections.fold_hash import fold_hash, shown
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.tracking import Followed


class ProjectionOutdated(UserWarning):
    """The rows of a projection belong to another fold than this program's."""


class OutdatedProjection(Struct, frozen=True, kw_only=True):
    """One projection whose rows were made by the fold `found`, version and hash, while this program
    has the fold `needed`. This program neither follows nor writes them."""

    projection: str
    found_version: int
    found_hash: str
    needed_version: int
    needed_hash: str

    @property
    def is_newer(self) -> bool:
        """Whether a newer program than this one made the rows."""
        return self.found_version > self.needed_version

    @property
    def do(self) -> str:
        """The remedy."""
        if self.is_newer:
            return "upgrade this program"
        return f"run `recovery-journal rebuild {self.projection}`"

    def __str__(self) -> str:
        return (
            f"the rows of projection {self.projection!r} were made by {self._found}, this program "
            f"has {self._needed}; this program does not follow them until both are of one version: "
            f"{self.do}"
        )

    def error(self) -> RowsOutdated:
        """Why this program does not follow the rows."""
        return RowsOutdated(self.projection, found=self._found, needed=self._needed, do=self.do)

    @property
    def _found(self) -> str:
        return f"version {self.found_version} ({shown(self.found_hash)})"

    @property
    def _needed(self) -> str:
        return f"version {self.needed_version} ({shown(self.needed_hash)})"


def outdated_of(
    places: Iterable[Followed], projections: Sequence[Projection[Any]]
) -> tuple[OutdatedProjection, ...]:
    """Those of these projections whose rows belong to another fold."""
    by_name = {projection.name: projection for projection in projections}
    return tuple(
        outdated(place, by_name[place.projection])
        for place in places
        if place.projection in by_name and not place.is_of(by_name[place.projection])
    )


def outdated(place: Followed, projection: Projection[Any]) -> OutdatedProjection:
    """The difference between the fold that made these rows and this program's fold."""
    return OutdatedProjection(
        projection=projection.name,
        found_version=place.fold_version,
        found_hash=place.fold_hash,
        needed_version=projection.version,
        needed_hash=fold_hash(projection),
    )
