"""Types of the user's own are stored by a codec that is registered for exactly that type."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NoReturn

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import CodecFailed, CodecMissing, InvalidInput
from recovery_journal.values.payload import Values
from tests.values.accepted import shape
from tests.values.money import CODECS, CURRENCY, MONEY, POINT, PRICE, Currency, Money, Point

VALUES = Values(CODECS)


class Tag:
    """A type of one's own that is equal to nothing else."""


def codec(
    encode: Any = lambda _tag: "tag",
    decode: Any = lambda _form: Tag(),
    *,
    name: Any = "tag",
    type: Any = Tag,  # noqa: A002 - the codec's own word
) -> rj.Codec:
    return rj.Codec(name=name, type=type, encode=encode, decode=decode)


def raises(_value: object) -> NoReturn:
    raise KeyError("nothing of it")


def endless(value: Any) -> Any:
    return endless(value)


def again(value: Any, values: Values = VALUES) -> Any:
    return values.decode_digested(values.encode(value, name="it").encoded, what="it")


@pytest.mark.parametrize(
    "value",
    [
        PRICE,
        [PRICE, PRICE],
        {"a": (PRICE,)},
        {Currency.EUR},
        frozenset({PRICE, Point(1, 2)}),
        {"point": Point(1, 2), "pair": (1, 2)},
    ],
)
def test_a_value_with_a_codec_comes_back_wherever_it_is(value: Any) -> None:
    found = again(value)

    assert found == value
    assert type(found) is type(value)


def test_a_codec_is_for_exactly_its_type_and_leaves_its_base_alone() -> None:
    class Further(Point):
        """A subclass of a type with a codec."""

    assert shape(again((1, 2))) == shape((1, 2))
    assert type(again(Point(1, 2))) is Point
    with pytest.raises(InvalidInput, match=r"output\[0\]: Further, a subclass of tuple"):
        VALUES.encode([Further(1, 2)], name="output")


def test_a_codec_is_given_again_what_it_made() -> None:
    seen: list[Any] = []

    def decode(form: Any) -> Tag:
        seen.append(form)
        return Tag()

    own = codec(encode=lambda _tag: {"b": (1,), "a": {2}}, decode=decode)

    again(Tag(), Values([own]))

    assert [shape(form) for form in seen] == [shape({"b": (1,), "a": {2}})] * 2


def test_the_canonical_digest_of_a_value_with_a_codec_leaves_out_the_order_of_keys() -> None:
    left = codec(encode=lambda _tag: {"a": 1, "b": {"c": 1, "d": 2}})
    right = codec(encode=lambda _tag: {"b": {"d": 2, "c": 1}, "a": 1})

    digests = {Values([it]).canonical_digest([Tag()], name="it") for it in (left, right)}

    assert len(digests) == 1
    assert digests != {VALUES.canonical_digest([{"a": 1, "b": {"c": 1, "d": 2}}], name="it")}


async def later(_value: object) -> Any:
    return "tag"


def yields(_value: object) -> Any:
    yield "tag"


REFUSED: dict[str, tuple[rj.Codec, str]] = {
    "encode raises": (codec(encode=raises), "encode of codec 'tag' made KeyError: 'nothing of it'"),
    "decode raises": (codec(decode=raises), "decode of codec 'tag' made KeyError: 'nothing of it'"),
    "decode gives another type": (codec(decode=lambda _: "tag"), "made a str, not a Tag"),
    "decode gives nothing": (codec(decode=lambda _: None), "made a NoneType, not a Tag"),
    "encode gives what is refused": (codec(encode=lambda _: [1j]), "<tag>[0]: complex"),
    "encode gives the value itself": (codec(encode=lambda it: it), "nested deeper than 100 levels"),
    "encode gives a coroutine": (
        codec(encode=lambda it: later(it)),  # noqa: PLW0108 - a lambda, so that the door cannot see it
        "found a coroutine, whose code has not run",
    ),
    "encode gives a generator": (
        codec(encode=lambda it: yields(it)),  # noqa: PLW0108 - a lambda, so that the door cannot see it
        "found a generator, whose code has not run",
    ),
    "decode gives a coroutine": (
        codec(decode=lambda it: later(it)),  # noqa: PLW0108 - a lambda, so that the door cannot see it
        "found a coroutine, whose code has not run",
    ),
    "encode never ends": (codec(encode=endless), "RecursionError"),
    "decode never ends": (codec(decode=endless), "RecursionError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_codec_that_does_not_give_its_value_again_is_refused_at_the_door(case: str) -> None:
    own, found = REFUSED[case]

    with pytest.raises(InvalidInput) as refused:
        Values([own]).encode({"lines": [1, {"tag": Tag()}]}, name="output")

    assert "output.lines[1].tag" in str(refused.value)
    assert found in str(refused.value)


def test_what_is_wrong_within_a_value_of_a_codec_is_named_with_its_path() -> None:
    bad = Money(Decimal(1), "EUR pounds \ud800")  # type: ignore[arg-type]  # on purpose

    with pytest.raises(InvalidInput, match=r"output\[0\]<money>\.currency: str with a lone"):
        VALUES.encode([bad], name="output")


def test_without_the_codec_a_stored_value_is_not_damaged_but_not_known_here() -> None:
    encoded = VALUES.encode({"price": [PRICE]}, name="it").encoded

    for codecs in ((), (MONEY,), (CURRENCY, POINT)):
        with pytest.raises(CodecMissing, match=r"cannot decode it: found a value of codec '(m|c)"):
            Values(codecs).decode_digested(encoded, what="it")


def test_a_codec_that_has_changed_is_to_blame_and_the_value_is_not_damaged() -> None:
    encoded = VALUES.encode(PRICE, name="it").encoded

    for decode in (raises, lambda _: 1, endless):
        changed = rj.Codec(name="money", type=Money, encode=raises, decode=decode)
        with pytest.raises(CodecFailed, match="decode of codec 'money' made"):
            Values([changed, CURRENCY]).decode_digested(encoded, what="it")


@pytest.mark.parametrize(
    ("codecs", "found"),
    [
        ([codec(), codec(type=Money)], "the name 'tag' twice"),
        ([codec(), codec(name="other")], "the type Tag twice"),
        ([codec(type=dict)], "the type dict, which is stored without a codec"),
        ([codec(type=Decimal)], "the type Decimal, which is stored without a codec"),
        ([codec(type=bool)], "the type bool"),
        ([codec(type="Tag")], "found 'Tag', needed a class"),
        ([codec(name="")], "the name of a codec"),
        ([codec(name=7)], "the name of a codec"),
        ([codec(encode=None)], "encode of the codec 'tag'"),
        ([codec(decode="no")], "decode of the codec 'tag'"),
        (["codec"], "needed a list of Codecs"),
        ({"tag": codec()}, "needed a list of Codecs"),
        (codec(), "needed a list of Codecs"),
    ],
)
def test_codecs_that_cannot_be_distinguished_are_refused(codecs: Sequence[Any], found: str) -> None:
    with pytest.raises(InvalidInput, match=found.replace("[", r"\[")):
        Values(codecs)
    with pytest.raises(InvalidInput):
        rj.open("host=/nowhere", codecs=codecs)


def test_a_codec_may_be_written_in_one_line() -> None:
    assert rj.Codec("money", Money, MONEY.encode, MONEY.decode) == MONEY
