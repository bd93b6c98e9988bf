"""Progress for a person: one moving line on a terminal, a line now and then elsewhere."""

import re
import sys
import time
from collections.abc import Callable
from typing import TextIO

from . import redact
from .errors import shown

# a function that is called with a line for a person
Say = Callable[[str], None]

# {how ninja and pytest say how far they are: how it is shown}
_PROGRESS_LINES = (
    (re.compile(r"^\s*\[(\d+)/(\d+)\]"), "compiling {} of {}"),
    (re.compile(r"\[\s*(\d+)%\]$"), "{}%"),
)
_QUIET_SECONDS = 30  # seconds between two lines that are not on a terminal


class Progress:
    """Says what is going on, and since when.

    subject : what the lines are about, set by the caller
    """

    def __init__(self, stream: TextIO | None = None, verbose: bool = False) -> None:
        self.subject = ""
        self._stream = stream or sys.stderr
        self._verbose = verbose
        self._moving = False
        self._start = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_moving_line()

    def step(self, line: str) -> None:
        """Say that a step begins. It is always shown. The secrets of URLs in it are hidden."""
        self._end_moving_line()
        text = shown(redact.urls_in(line))
        print(f"{self._elapsed()} {self.subject}: {text}", file=self._stream, flush=True)

    def working(self, line: str) -> None:
        """Take a line of a log. Show it when verbose; otherwise show how far the work is."""
        if self._verbose:
            self.step(line)
            return
        for pattern, text in _PROGRESS_LINES:
            match = pattern.search(line)
            if match:
                self._show_share(text.format(*match.groups()))
                return

    def _show_share(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r{self._elapsed()} {self.subject}: {text} ")
            self._stream.flush()
            self._moving = True
        elif time.monotonic() - self._last > _QUIET_SECONDS:
            self._last = time.monotonic()
            self.step(text)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        return f"[{minutes:3d}:{seconds:02d}]"

    def _end_moving_line(self) -> None:
        if self._moving:
            self._stream.write("\n")
            self._moving = False
