"""Digests: of payloads, and the chain that ties a run's steps together.

A digest names its codec, and digests of different codecs are never compared. `cs1` is the sha256 of
a value as it is stored, `cv1` that of its canonical encoding, in which the order of a dict's keys
does not count; `ch1` is the chain of run steps.
"""

from hashlib import sha256


def payload_digest(encoded: bytes) -> str:
    """The digest of a payload as it is stored: to detect damage, and for the chain."""
    return f"cs1:{sha256(encoded).hexdigest()}"


def canonical_digest(encoded: bytes) -> str:
    """The digest of a canonically encoded value: for comparing values between processes."""
    return f"cv1:{sha256(encoded).hexdigest()}"


def chain_origin(run_id: str, input_digest: str) -> str:
    """The chain before the first run step: it depends on the run and its input."""
    return _link("origin", run_id, input_digest)


def chain_next(previous: str, *, ordinal: int, name: str, output_digest: str) -> str:
    """The chain after one more run step."""
    # As `_link`, but inlined for speed: a mass crash replays many tails.
    number = str(ordinal)
    text = (
        f"{len(previous)}:{previous}{len(number)}:{number}"
        f"{len(name)}:{name}{len(output_digest)}:{output_digest}"
    )
    return f"ch1:{sha256(text.encode()).hexdigest()}"


def same_codec(left: str, right: str) -> bool:
    """Whether two digests may be compared at all."""
    return left.partition(":")[0] == right.partition(":")[0]


def _link(*parts: str) -> str:
    # Each part is length-prefixed, so that no two different lists give the same bytes.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"ch1:{sha256(text.encode()).hexdigest()}"
