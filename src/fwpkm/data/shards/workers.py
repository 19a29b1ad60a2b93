"""Processes that build, one folder at a time, and end when the one that started them does."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

from fwpkm.lock import holding

LOCK = "lock"
"""The file in a folder that is being built which its builders hold."""


class Lock:
    """What keeps other builds out while any process that holds it lives; processes that are given it hold it, too.

    Args:
        handle: Of the locked file.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        starting: Any = get_spawning_popen()
        assert starting is not None, "a lock is given to processes as they start, and in no other way"
        return Lock, (starting.duplicate_for_child(self.handle),)


@contextmanager
def locked(building: Path) -> Iterator[Lock]:
    """Keep other builds out of a folder.

    Raises:
        RuntimeError: If one is at work there.
    """
    refusal = f"{building}: another build is at work here; wait for it or end it, or choose another --out"
    with holding(building / LOCK, refusal) as handle:
        yield Lock(handle)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has, and at Ctrl-C without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = parent_process()
    assert parent is not None, "only a process that another one started waits for it"
    parent.join()
    os._exit(1)
