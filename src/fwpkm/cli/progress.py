"""How far a command is."""

import sys
import time

SECONDS_BETWEEN_LINES = 60.0


class ProgressLine:
    """One line that is kept up to date on a terminal; elsewhere a line a minute, so that logs stay short."""

    def __init__(self, unit: str, *, what: str = "") -> None:
        """Get ready to count `unit` of `what`."""
        self._unit, self._what = unit, f"{what}: " if what else ""
        self._first: int | None = None
        self._done, self._began, self._spoke, self._last = 0, 0.0, time.monotonic(), 0.0

    def __call__(self, done: int, total: int, *, more: str = "") -> None:
        """Show `done` of `total`; fewer than before are of the next thing of its kind."""
        now = time.monotonic()
        if self._first is None:  # what an earlier process did took this one no time
            self._first, self._began = done, now
        elif done <= self._done:
            self._first, self._began = 0, self._last
        self._done, self._last = done, now
        text = f"{self._what}{done:,}/{total:,} {self._unit}{more}{self._speed(total)}"
        if sys.stderr.isatty():
            print(f"\r{text}\x1b[K", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        elif now - self._spoke >= SECONDS_BETWEEN_LINES and done < total:
            print(text, file=sys.stderr, flush=True)
            self._spoke = now

    def _speed(self, total: int) -> str:
        done, spent = self._done - (self._first or 0), self._last - self._began
        if done <= 0 or spent <= 0:
            return ""
        rate, left = done / spent, (total - self._done) * spent / done
        return (f", {rate:,.0f}/s" if rate >= 10 else "") + (f", {left:.0f} s left" if left else "")
