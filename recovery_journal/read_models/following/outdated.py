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
    """One projection whose rows were made by the fold `found`, while this program has the fold
    `needed`: version and short hash of each. This program neither follows nor writes the rows; `do`
    is the remedy."""

    projection: str
    found: str
    needed: str
    do: str

    def __str__(self) -> str:
        return (
            f"the rows of projection {self.projection!r} were made by {self.found}, this program "
            f"has {self.needed}; this program does not follow them until both are of one version: "
            f"{self.do}"
        )

    def error(self) -> RowsOutdated:
        """Why this program does not follow the rows."""
        return RowsOutdated(self.projection, found=self.found, needed=self.needed, do=self.do)


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
    is_newer = place.fold_version > projection.version
    rebuild = f"run `recovery-journal rebuild {projection.name}`"
    return OutdatedProjection(
        projection=projection.name,
        found=f"version {place.fold_version} ({shown(place.fold_hash)})",
        needed=f"version {projection.version} ({shown(fold_hash(projection))})",
        do="upgrade this program" if is_newer else rebuild,
    )
