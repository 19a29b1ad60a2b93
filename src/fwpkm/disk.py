"""Files as the system has them: which one could not be written, and who holds one."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give errors of a write the name of its file; those of a full disk come without one.

    Raises:
        OSError: What the system says about `path`, through safetensors too.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{os.fspath(path)}: this could not be written ({error})") from error
        code = int(number[1])
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def holding(file: Path, refusal: str) -> Iterator[int]:
    """Hold a file's lock, and yield its handle: processes that are given it hold it too, for as long as they live.

    Raises:
        RuntimeError: With `refusal`, if another process holds it.
    """
    import fcntl

    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(refusal) from error
        yield opened.fileno()
