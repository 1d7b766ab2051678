"""Types of a user's own, and their codecs."""

from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import recovery_journal as rj


class Currency(Enum):
    """A choice."""

    EUR = "EUR"
    USD = "USD"


class Money(NamedTuple):
    """An amount with its currency: a type of one's own with another inside."""

    amount: Decimal
    currency: Currency


class Point(NamedTuple):
    """A subclass of an accepted type."""

    x: int
    y: int


CURRENCY = rj.Codec(name="currency", type=Currency, encode=lambda it: it.value, decode=Currency)
MONEY = rj.Codec(
    name="money",
    type=Money,
    encode=lambda it: {"currency": it.currency, "amount": it.amount},
    decode=lambda form: Money(**form),
)
POINT = rj.Codec(name="point", type=Point, encode=tuple, decode=lambda form: Point(*form))
CODECS = (MONEY, CURRENCY, POINT)
PRICE = Money(Decimal("100.10"), Currency.EUR)


def total(state: Any, _name: str, output: Any) -> Any:
    """A reducer over amounts of money."""
    return Money(state["limit"].amount + output.amount, output.currency)


APP = rj.App(codecs=CODECS, reducers={"bill": total})
