"""A bar on a terminal, a line a step elsewhere."""

from __future__ import annotations

import sys
import time

WIDTH = 30


class Progress:
    """steps: how many there will be."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.tty = sys.stderr.isatty()
        self.start = time.monotonic()

    def show(self, what: str) -> None:
        """What is being done now."""
        seconds = time.monotonic() - self.start
        if self.tty:
            filled = WIDTH * min(self.done, self.steps) // self.steps
            bar = "#" * filled + "." * (WIDTH - filled)
            sys.stderr.write(f"\r\x1b[K[{bar}] {seconds:4.0f} s  {what}")
        else:
            sys.stderr.write(f"[{self.done}/{self.steps}, {seconds:.0f} s] {what}\n")
        sys.stderr.flush()

    def note(self, words: str) -> None:
        """A line that stays."""
        sys.stderr.write(f"{chr(13) + chr(27) + '[K' if self.tty else ''}{words}\n")

    def end(self) -> None:
        if self.tty:
            sys.stderr.write("\r\x1b[K")
