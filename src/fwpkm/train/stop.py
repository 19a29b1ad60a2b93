"""Requests to stop: a signal ends the run after its present step, in a state that can be resumed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal asked the run to end."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """Which one did."""

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second SIGINT interrupts at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a request; what they did before is put back afterwards."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
