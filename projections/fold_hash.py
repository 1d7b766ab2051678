"""A short digest of what a fold does: folds that make other rows of the corpus have other hashes.

Rows belong to the fold that made them. Its version is its author's statement, its hash is what it
does: a changed fold is noticed also where its author did not raise the version.
"""

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import inspect

from recovery_journal.domain.errors import FoldFailed
from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.projection import Fold, Projection, RowT

PREFIX: Final = "fold1:"
SHOWN_LETTERS: Final = 8

_encoder = msgspec.json.Encoder(order="sorted")


@cache
def fold_hash(projection: Projection[Any]) -> str:
    """A digest of the projection's name, key fields and columns, and of every row that its fold
    makes of the corpus. An exception that it raises there counts as part of what it does."""
    described = (projection.name, projection.key_fields, _columns(projection))
    digest = sha256()
    for part in (*described, *_folded(projection)):
        digest.update(_encoded(part) + b"\n")
    return PREFIX + digest.hexdigest()


def shown(fold: str) -> str:
    """A fold's hash, short enough for a sentence."""
    return fold[: len(PREFIX) + SHOWN_LETTERS]


def _folded(projection: Projection[RowT]) -> Iterator[object]:
    newest: dict[str, RowT] = {}
    for record in corpus():
        fold = Fold(projection, newest)
        try:
            fold.add([record])
        except FoldFailed as failed:
            yield failed.position, type(failed.__cause__).__name__
        for row in fold.changed():
            newest[getattr(row, projection.key_fields[0])] = row
            yield row


def _columns(projection: Projection[Any]) -> list[tuple[str, str]]:
    described = inspect.type_info(projection.row_type)
    assert isinstance(described, inspect.StructType)
    return [(field.encode_name, _kind(field.type)) for field in described.fields]


def _kind(of: inspect.Type) -> str:
    """The kind of value. Not the name of a class: the same class has several, by its place."""
    if isinstance(of, inspect.UnionType):
        return "|".join(sorted(_kind(one) for one in of.types))
    return type(of).__name__


def _encoded(part: object) -> bytes:
    try:
        return _encoder.encode(part)
    except Exception as error:  # noqa: BLE001 - a value of the user's own may raise anything
        # No table could store such a row; that is reported when one is to be stored.
        return type(error).__name__.encode()
