"""One member of a PySyncObj cluster that makes its own load.

    python pysyncobj_member.py JOURNAL OWN_ADDRESS OTHER_ADDRESS...

It says "ready" when the cluster has a leader. Then each line of its input is an order,
{"count", "in_flight", "seed", "value"}, which it answers with a line of figures. A command is
sent as soon as fewer than in_flight wait, from the callback of the one before.
"""

from __future__ import annotations

import json
import random
import string
import sys
import threading
import time
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

STALL_SECONDS = 30.0
SAMPLE = 10_000  # latencies that are handed back


class Store(SyncObj):
    """A dictionary, replicated. The journal is written and, as PySyncObj does, never synced."""

    def __init__(self, journal: str, own: str, others: list[str]) -> None:
        # No compaction while a load runs, as with the others.
        conf = SyncObjConf(journalFile=journal, logCompactionMinEntries=10**9)
        super().__init__(own, others, conf)
        self.entries: dict[str, Any] = {}

    @replicated
    def put(self, key: str, value: Any) -> Any:
        before = self.entries.get(key)
        self.entries[key] = value
        return before


class Run:
    """One order."""

    def __init__(self, store: Store, order: dict[str, int]) -> None:
        self.store = store
        self.count = order["count"]
        self.chance = random.Random(order["seed"])
        self.value = "".join(self.chance.choices(string.ascii_letters, k=order["value"]))
        self.sent = self.answered = self.errors = 0
        self.took: list[float] = []
        self.last = time.time()
        self.done = threading.Event()
        self.lock = threading.Lock()

    def send(self) -> None:
        with self.lock:
            if self.sent == self.count:
                return
            self.sent += 1
        key = "".join(self.chance.choices(string.ascii_letters, k=3))
        value = self.value or self.chance.getrandbits(32)
        start = time.perf_counter()
        self.store.put(key, value, callback=lambda _, error: self.end(start, error))

    def end(self, start: float, error: int) -> None:
        with self.lock:
            self.took.append((time.perf_counter() - start) * 1000)
            self.errors += error != FAIL_REASON.SUCCESS
            self.answered += 1
            self.last = time.time()
            if self.answered == self.count:
                self.done.set()
        self.send()

    def figures(self, in_flight: int) -> dict[str, Any]:
        start = time.time()
        for _ in range(in_flight):
            self.send()
        while not self.done.wait(1.0) and time.time() - self.last < STALL_SECONDS:
            pass
        step = max(1, len(self.took) // SAMPLE)
        return {
            "start": start,
            "end": self.last,
            "answered": self.answered,
            "errors": self.errors,
            "unanswered": self.count - self.answered,
            "sample_ms": sorted(self.took)[::step],
        }


def main() -> None:
    store = Store(sys.argv[1], sys.argv[2], sys.argv[3:])
    while not (store.isReady() and store._getLeader()):
        time.sleep(0.01)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(Run(store, order).figures(order["in_flight"])), flush=True)


if __name__ == "__main__":
    main()
