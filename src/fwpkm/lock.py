"""Locks on files: who holds one holds it for as long as it lives."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


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
