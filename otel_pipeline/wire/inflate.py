"""Compressed bodies that arrive in pieces, inflated no further than to a bound."""

from __future__ import annotations

import zlib
from typing import Final

from otel_pipeline.errors import WireError

GZIP: Final = 16 + zlib.MAX_WBITS
ENCODINGS: Final = ("gzip", "deflate")


class Inflater:
    """Inflates one body: gzip, perhaps of several members, or deflate with or without zlib's header, as in the wild."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding == "gzip"
        self._stream: zlib._Decompress | None = None
        self._fed = 0

    def feed(self, piece: bytes, bytes_max: int) -> bytes:
        """What the next piece holds, `bytes_max` at most: whoever gets that much gives up. Raises WireError."""
        inflated = b""
        while piece and len(inflated) < bytes_max:
            if self._gzip and self._stream is not None and self._stream.eof:
                padded, piece = len(piece), piece.lstrip(b"\0")  # members may be padded with zeros
                self._fed += padded - len(piece)
                if not piece:
                    break
                self._stream = None
            if self._stream is None:
                self._stream = zlib.decompressobj(GZIP if self._gzip else _deflate_bits(piece))
            try:
                inflated += self._stream.decompress(piece, bytes_max - len(inflated))
            except zlib.error as error:
                raise WireError(f"the compressed body is corrupt: {error}", self._fed) from None
            rest = self._stream.unused_data
            self._fed += len(piece) - len(rest)
            if rest and not self._gzip:
                raise WireError("the compressed body has something behind its end", self._fed)
            piece = rest
        return inflated

    def finish(self) -> None:
        """All was fed. Raises WireError if something is missing."""
        if self._stream is not None and not self._stream.eof:
            raise WireError("the compressed body ends early", self._fed)


def _deflate_bits(piece: bytes) -> int:
    return zlib.MAX_WBITS if piece[0] & 0x0F == 8 else -zlib.MAX_WBITS
