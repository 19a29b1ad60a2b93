"""Whatever is wrong with an input becomes one sentence with the file and the place."""

import contextlib
import zlib
from collections.abc import Iterator


@contextlib.contextmanager
def at_file(name: str, what: str) -> Iterator[None]:
    """Turn what readers of compressed files and tables raise into a ValueError that names the file.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise ValueError(
            f"{name}: this must be a whole {what}, got a truncated or damaged one ({error})"
        ) from None
    except OSError as error:
        if error.errno is not None:  # the machine's fault, not the file's
            raise
        raise ValueError(f"{name}: this must be a {what}, got something else ({error})") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("pyarrow", "zstandard"):
            raise
        raise ValueError(f"{name}: this must be a whole {what}, got a damaged one ({error})") from None


def decode_text(raw: bytes, where: str) -> str:
    """Turn bytes into text.

    Raises:
        ValueError: If they are not UTF-8 or hold a NUL, with the place: a binary file.
    """
    if (nul := raw.find(b"\0")) >= 0:
        raise ValueError(f"{where}: this must be text, got a NUL at byte {nul}; a binary file?")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: this must be UTF-8, got the byte 0x{raw[error.start]:02X} at byte {error.start}; a binary "
            "file, or convert it with iconv"
        ) from None
