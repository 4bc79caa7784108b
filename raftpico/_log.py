"""What the engine has to say, into Python's logging."""

from __future__ import annotations

import logging
import time
import traceback

logger = logging.getLogger("raftpico")

RAISED_PER_SECOND = 5
"""Tracebacks of machines in the log, at most; the others are counted."""

_WHAT = ("command", "query", "local query", "state", "snapshot", "restore", "notice")


class _Limit:
    """So many a second, and how many were left out."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self.second = 0
        self.count = 0
        self.left_out = 0

    def passes(self) -> bool:
        second = int(time.monotonic())
        if second != self.second:
            self.second = second
            self.count = 0
        self.count += 1
        if self.count > self.per_second:
            self.left_out += 1
            return False
        return True


_limit = _Limit(RAISED_PER_SECOND)


def log_raised(error: BaseException, index: int, kind: int) -> None:
    """Log an exception that left the machine, with its traceback. Called by the engine.

    Args:
        error: the exception.
        index: the log index of the entry, or of the last one applied.
        kind: the engine's apply kind, from 0.
    """
    if not _limit.passes():
        return
    left_out, _limit.left_out = _limit.left_out, 0
    more = f" ({left_out} more were not shown)" if left_out else ""
    logger.error(
        "the machine raised %s in a %s at index %d%s",
        type(error).__name__,
        _WHAT[kind],
        index,
        more,
        exc_info=error,
    )


def describe_raised(error: BaseException) -> str:
    """An exception of the machine's `snapshot` in one line. Called by the engine.

    Args:
        error: the exception.

    Returns:
        Its type, its text and where it was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be had"
    return f"{type(error).__name__}: {text[:200]}{where}"
