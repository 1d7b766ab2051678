"""Columns of values as PostgreSQL array literals, one text for each.

psycopg adapts a list element by element in Python, which costs a large batch more than its
statement does.
"""

from collections.abc import Sequence
from typing import TypeAlias

Element: TypeAlias = object


def array(values: Sequence[Element]) -> str:
    """The literal of a one-dimensional array, to be cast where it is used."""
    if len(values) > 1 and values.count(values[0]) == len(values):
        return "{" + ",".join([_element(values[0])] * len(values)) + "}"
    try:
        joined = '","'.join(values)  # type: ignore[arg-type]  # text is what most columns hold
    except TypeError:
        return "{" + ",".join(map(_element, values)) + "}"
    if not values:
        return "{}"
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        return "{" + ",".join(map(_quoted, values)) + "}"
    return '{"' + joined + '"}'


def _element(value: Element) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int | float):  # a boolean too, in PostgreSQL's own words
        return str(value)
    return _quoted(value)


def _quoted(value: Element) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
