"""Progress for a person: on a terminal one line that moves, else a line now and then."""

import re
import sys
import time
from collections.abc import Callable

# shows a line to a person
Say = Callable[[str], None]

# what ninja and pytest say of how far they are
_FAR = (
    (re.compile(r"^\s*\[(\d+)/(\d+)\]"), "compiling {} of {}"),
    (re.compile(r"\[\s*(\d+)%\]$"), "{}%"),
)
_QUIET_SECONDS = 30  # between two lines that are not on a terminal


class Progress:
    """Says what is going on, and since when.

    subject : what the lines are about, set by the caller
    """

    def __init__(self, stream=sys.stderr, verbose=False):
        self.subject = ""
        self._stream = stream
        self._verbose = verbose
        self._moving = False
        self._start = time.monotonic()
        self._last = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._end_moving_line()

    def step(self, line):
        """A step begins: always shown."""
        self._end_moving_line()
        print(f"{self._elapsed()} {self.subject}: {line}", file=self._stream, flush=True)

    def working(self, line):
        """A line of a log: shown when verbose, else as how far the work is."""
        if self._verbose:
            return self.step(line)
        for pattern, text in _FAR:
            if match := pattern.search(line):
                return self._far(text.format(*match.groups()))

    def _far(self, text):
        if self._stream.isatty():
            self._stream.write(f"\r{self._elapsed()} {self.subject}: {text} ")
            self._stream.flush()
            self._moving = True
        elif time.monotonic() - self._last > _QUIET_SECONDS:
            self._last = time.monotonic()
            self.step(text)

    def _elapsed(self):
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        return f"[{minutes:3d}:{seconds:02d}]"

    def _end_moving_line(self):
        if self._moving:
            self._stream.write("\n")
            self._moving = False
