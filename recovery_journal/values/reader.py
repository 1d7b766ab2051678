"""Reading: MessagePack with extensions to the value that was written."""

from msgspec.msgpack import Decoder

from domain.wording import message_of
from recovery_journal.values.codec import Codecs
from recovery_journal.values.extensions import BY_CODE, CODEC_CODE
from recovery_journal.values.plain import Value
from recovery_journal.values.refusals import CannotRead, CodecBroke, type_name


class Reader:
    """Reads values. Raises `CannotRead` for what is not known here, `CodecBroke` where a codec
    does not give the value again, and anything else for bytes that nobody wrote."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs.by_name
        self._decoder = Decoder(ext_hook=self._extended)

    def read(self, encoded: bytes | memoryview) -> Value:
        """The value of these bytes."""
        return self._decoder.decode(encoded)

    def read_own(self, body: bytes | memoryview) -> Value:
        """The value of a type of the user's own."""
        name, encoded = self._decoder.decode(body)
        codec = self._codecs.get(name)
        if codec is None:
            raise CannotRead(f"a value of codec {name!r}, which this journal does not have")
        form = self._decoder.decode(encoded)
        try:
            value = codec.decode(form)
        except Exception as error:
            found = f"{type(error).__name__}: {message_of(error)}"
            raise CodecBroke(name, found) from error
        if type(value) is not codec.type:
            raise CodecBroke(name, f"a {type_name(value)}, not a {codec.type.__name__}")
        return value

    def _extended(self, code: int, body: memoryview) -> Value:
        if code == CODEC_CODE:
            return self.read_own(body)
        extension = BY_CODE.get(code)
        if extension is None:
            raise CannotRead(f"a value of extension type {code}, as of a newer program")
        return extension.value_of(self._decoder.decode(body))
