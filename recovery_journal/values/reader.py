"""Decoding: from MessagePack with extension types to the value that was encoded."""

from msgspec.msgpack import Decoder

from recovery_journal.domain.wording import message_of
from recovery_journal.process.callables import finished
from recovery_journal.values.codec import Codecs
from recovery_journal.values.extensions import BY_CODE, CODEC_CODE
from recovery_journal.values.plain import Value
from recovery_journal.values.refusals import CannotRead, CodecBroke, type_name


class Reader:
    """Decode values. Raises `CannotRead` for a codec, time zone or extension type that is not known
    here, `CodecBroke` where a user codec fails, and any other exception for damaged bytes."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs.by_name
        self._decoder = Decoder(ext_hook=self._extension)

    def read(self, encoded: bytes | memoryview) -> Value:
        """Decode one value."""
        return self._decoder.decode(encoded)

    def read_with_codec(self, body: bytes | memoryview) -> Value:
        """Decode the body of a value with a user codec."""
        name, encoded = self._decoder.decode(body)
        codec = self._codecs.get(name)
        if codec is None:
            raise CannotRead(f"a value of codec {name!r}, which this journal does not have")
        form = self._decoder.decode(encoded)
        try:
            value = finished(f"decode of codec {name!r}", codec.decode(form))
        except Exception as error:
            found = f"{type(error).__name__}: {message_of(error)}"
            raise CodecBroke(name, found) from error
        if type(value) is not codec.type:
            raise CodecBroke(name, f"a {type_name(value)}, not a {codec.type.__name__}")
        return value

    def _extension(self, code: int, body: memoryview) -> Value:
        if code == CODEC_CODE:
            return self.read_with_codec(body)
        extension = BY_CODE.get(code)
        if extension is None:
            raise CannotRead(f"a value of extension type {code}, as of a newer program")
        return extension.value_of(self._decoder.decode(body))
