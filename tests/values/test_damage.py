"""Bytes that no program wrote: any, and written ones that were changed."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recovery_journal.domain.errors import CodecMissing, PayloadCorrupt
from recovery_journal.values.extensions import EXTENSIONS
from recovery_journal.values.payload import BUILT_IN
from tests.values.accepted import accepted

DEEP = b"\x91" * 100_000 + b"\xc0"
EXTENDED = [0, 10, 127, *(extension.code for extension in EXTENSIONS)]


def read(encoded: bytes) -> Any:
    """A value, or one of the two errors: no more may come of any bytes."""
    try:
        return BUILT_IN.decode_digested(encoded, what="a state")
    except (PayloadCorrupt, CodecMissing) as error:
        return error


@given(st.binary(max_size=40))
@example(DEEP)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff" * 10)
def test_any_bytes_are_a_value_or_an_error_of_ours(encoded: bytes) -> None:
    read(encoded)


@given(st.sampled_from(EXTENDED), st.binary(max_size=20) | accepted())
def test_any_body_of_an_extension_is_a_value_or_an_error_of_ours(code: int, body: Any) -> None:
    inner = body if isinstance(body, bytes) else BUILT_IN.encode(body, name="it").encoded
    extended = b"\xc9" + len(inner).to_bytes(4) + bytes([code]) + inner

    for encoded in (extended, b"\x91" + extended, b"\x81" + extended + b"\x01"):
        read(encoded)


@given(accepted(), st.data())
def test_a_written_value_that_was_changed_is_damaged(value: Any, data: st.DataObject) -> None:
    payload = BUILT_IN.encode(value, name="it")
    at = data.draw(st.integers(0, len(payload.encoded) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(payload.encoded)
    changed[at] ^= 1 << bit

    read(bytes(changed))
    with pytest.raises(PayloadCorrupt):
        BUILT_IN.decode(bytes(changed), digest=payload.digest, what="a state")


@pytest.mark.parametrize("code", EXTENDED)
def test_extensions_within_one_another_without_end_are_damaged(code: int) -> None:
    encoded = b"\xc0"
    for _ in range(3_000):
        encoded = b"\xc9" + (len(encoded) + 1).to_bytes(4) + bytes([code]) + b"\x91" + encoded

    assert isinstance(read(encoded), PayloadCorrupt | CodecMissing)


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc7\x06\x01\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 90,
        b"\xc7\x0c\x04\xab1E999999999",
        DEEP,
    ],
)
def test_a_few_bytes_do_not_become_a_huge_value(encoded: bytes) -> None:
    tracemalloc.start()
    try:
        read(encoded)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 10 * 1024 * 1024


def test_text_that_is_no_decimal_number_is_damaged_whatever_the_program_traps() -> None:
    from decimal import Context, localcontext

    with localcontext(Context(traps=[])):
        for text in (b"nonsense", b"1_0", b" 1", b"\xef\xbc\x91"):
            encoded = bytes([0xC7, len(text) + 1, 4, 0xA0 + len(text)]) + text
            assert isinstance(read(encoded), PayloadCorrupt)


def test_what_a_newer_program_wrote_is_not_damaged() -> None:
    with pytest.raises(CodecMissing, match="extension type 99, as of a newer program"):
        BUILT_IN.decode_digested(b"\xd4\x63\x01", what="a state")


@pytest.mark.parametrize("key", [b"Mars/Olympus", b"../../etc/passwd", b"/etc/passwd", b"\0", b""])
def test_a_zone_that_this_machine_does_not_know_is_not_damaged(key: bytes) -> None:
    body = b"\x96\x01\x02\x03\x04\x00" + bytes([0xA0 + len(key)]) + key

    with pytest.raises(CodecMissing, match=r"time zone .* which is not known here"):
        BUILT_IN.decode_digested(bytes([0xC7, len(body), 7]) + body, what="a state")
