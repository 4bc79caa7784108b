"""The key-value store with a thread beside it that never stops computing in Python."""

from __future__ import annotations

import sys
import threading

from raftpico import kvs


def compute() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003


if __name__ == "__main__":
    threading.Thread(target=compute, daemon=True).start()
    sys.exit(kvs.main())
