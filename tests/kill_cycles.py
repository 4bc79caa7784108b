"""Processes of a cluster killed at random moments under load, again and again.

    python tests/kill_cycles.py --cycles 2000 --all 500

Each cycle kills one member (or all three at once) with SIGKILL while clients write, and starts
it again; now and then it is killed a second time while it opens its directory. A client
remembers every Put that was acknowledged. At the end of each series (and in between) every
member must have come back, hold every acknowledged Put and none that was refused, and the
members' logs must agree, which `raftpico.log diff` checks line by line.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path

from cluster import KVS, Cluster, Connection, Member
from load import Load

from raftpico._diff import compare
from raftpico._inspect import inspect

SERIES_CYCLES = 100
CHECK_EVERY = 25
ELECTION_MS = (100, 300)
COMMAND = [*KVS, "--snapshot-log-mb", "0.1"]  # snapshots are taken and installed meanwhile


class PacedLoad(Load):
    """A few Puts at a time: what counts is when processes die, not how much was written."""

    PAUSE_SECONDS = 0.004

    def _put(self, connection: Connection, member: Member, key: str) -> bool:
        self._stop.wait(self.PAUSE_SECONDS)
        return super()._put(connection, member, key)


class KillCycles:
    """A cluster under load whose members are killed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.dice = random.Random(seed)
        self.loads = [PacedLoad(cluster, workers=4)]
        self.kills = 0

    @property
    def load(self) -> PacedLoad:
        """The one that runs."""
        return self.loads[-1]

    def one(self) -> None:
        """Kill one member under load and bring it back."""
        self.load.wait_more(self.dice.randint(1, 40))
        member = self.dice.choice(self.cluster.all)
        self._kill(member)
        self._start_again([member])

    def all(self) -> None:
        """Kill all of them at once: the power went."""
        self.load.wait_more(self.dice.randint(1, 40))
        for member in self.cluster:
            self._kill(member)
        self._start_again(list(self.cluster))

    def _kill(self, member: Member) -> None:
        member.kill()
        self.kills += 1

    def _start_again(self, members: list[Member]) -> None:
        for member in members:
            member.start()
        if self.dice.random() < 0.2:  # and again, somewhere in its opening
            time.sleep(self.dice.random() * 0.4)  # the moment is drawn, nothing is waited for
            for member in members:
                if member.running:
                    self._kill(member)
                    member.start()
        for member in members:
            member.wait_ready()

    def check(self) -> None:
        """End the load: all are back, hold every acknowledged Put, and agree."""
        self.load.wait_more(10)
        self.load.stop()
        self.cluster.wait_converged()
        for load in self.loads:
            load.check(self.cluster)
        for a, b in itertools.combinations(self.cluster, 2):
            assert a.data is not None and b.data is not None
            found = compare(a.data, b.data)
            assert found.outcome == "agree" and not found.broken, (found.words, found.broken)
        for member in self.cluster:
            assert member.data is not None
            report = inspect(member.data)
            assert report.sound, report.findings

    def go_on(self) -> None:
        """Load again, with other keys."""
        self.loads.append(PacedLoad(self.cluster, 4, f"k{len(self.loads)}"))


def run_series(cluster: Cluster, cycles: int, all_cycles: int, seed: int) -> tuple[int, int]:
    """Kill members of a fresh cluster so often; (processes killed, Puts acknowledged)."""
    cluster.create(*ELECTION_MS)
    cluster.wait_leader()
    killing = KillCycles(cluster, seed)
    turns = [killing.one] * cycles + [killing.all] * all_cycles
    killing.dice.shuffle(turns)
    for number, turn in enumerate(turns, 1):
        turn()
        if number % CHECK_EVERY == 0 and number < len(turns):
            killing.check()
            killing.go_on()
    killing.check()
    return killing.kills, sum(load.count for load in killing.loads)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=2000, help="kills of one member")
    parser.add_argument("--all", type=int, default=500, help="kills of all three")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ones, alls, series = options.cycles, options.all, 0
    begin, killed, written = time.monotonic(), 0, 0
    while ones + alls > 0:
        cycles = min(ones, SERIES_CYCLES * options.cycles // (options.cycles + options.all))
        all_cycles = min(alls, SERIES_CYCLES - cycles)
        with tempfile.TemporaryDirectory(prefix="raftpico-kill-") as folder:
            cluster = Cluster(Path(folder) / "c", 3, command=COMMAND)
            try:
                kills, puts = run_series(cluster, cycles, all_cycles, options.seed + series)
                cluster.close()
            finally:
                cluster.destroy()
        ones, alls, series = ones - cycles, alls - all_cycles, series + 1
        killed, written = killed + kills, written + puts
        print(
            f"series {series}: {options.cycles - ones} and {options.all - alls} cycles, "
            f"{killed} processes killed, {written} Puts acknowledged, none lost, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
