"""Zstandard files read as streams; unlike the library's own reader, a truncated one is an error."""

import io
from typing import IO, Any

from fwpkm.data.extra import need

_BLOCK = 1 << 20


class ZstReader(io.RawIOBase):
    """Unpacks one or more frames.

    Args:
        file: The packed bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._library: Any = need("zstandard", "data")
        self._frame: Any = None
        self._packed, self._ready = b"", b""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next.

        Raises:
            EOFError: If the file ends inside a frame.
        """
        while not self._ready and self._more():
            pass
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def _more(self) -> bool:
        packed = self._packed or self._file.read(_BLOCK)
        if not packed:
            if self._frame is not None:
                raise EOFError("the last frame is not whole")
            return False
        self._frame = self._frame or self._library.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(packed)
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True
